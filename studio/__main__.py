"""``python -m studio deploy``."""

from .deploy import main

if __name__ == "__main__":
    raise SystemExit(main())
