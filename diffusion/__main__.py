"""``python -m diffusion``."""

import sys

from .cli.interrupt import ctrl_c_ends_at_once

if __name__ == "__main__":
    with ctrl_c_ends_at_once():
        from .cli.main import main
        from .device import keep_freed_memory
    # File names may hold what the terminal cannot show. (TextIO, in the stubs, lacks this method.)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    keep_freed_memory()
    raise SystemExit(main())
