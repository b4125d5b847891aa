"""``python -m diffusion``."""

import sys

from .cli import main
from .device import keep_freed_memory

if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # file names may hold what the terminal cannot show
    keep_freed_memory()
    raise SystemExit(main())
