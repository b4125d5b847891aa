"""What is different on Hugging Face Spaces, and nothing anywhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)

GPU_SECONDS = 30  # the longest that one batch may hold a ZeroGPU slot


def on_space() -> bool:
    """Whether this program runs as a Space."""
    return os.environ.get("SYSTEM") == "spaces"


def on_zero_gpu() -> bool:
    """Whether GPU work has to happen in functions marked with ``spaces.GPU``."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def gpu(function: F) -> F:
    """``spaces.GPU`` where that package is there and means something, else the function itself."""
    if not on_zero_gpu():
        return function
    import spaces

    return spaces.GPU(duration=GPU_SECONDS)(function)


def num_threads() -> int | None:
    """Processor cores that a Space grants; None where the machine's own count is right."""
    cores = os.environ.get("CPU_CORES", "")
    return int(cores) if cores.isdecimal() and int(cores) > 0 else None
