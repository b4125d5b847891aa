"""``python -m studio deploy``."""

from diffusion.cli.interrupt import ctrl_c_ends_at_once

from .deploy import main

if __name__ == "__main__":
    with ctrl_c_ends_at_once():  # rather than when the files under way have arrived
        raise SystemExit(main())
