"""``python -m diffusion``."""

import sys

from .cli import main
from .device import keep_freed_memory

if __name__ == "__main__":
    # File names may hold what the terminal cannot show. (TextIO, in the stubs, lacks this method.)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    keep_freed_memory()
    raise SystemExit(main())
