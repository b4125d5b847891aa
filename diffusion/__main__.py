"""``python -m diffusion``."""

from .cli import main
from .device import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()
    raise SystemExit(main())
