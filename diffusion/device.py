"""What the hardware at hand is good at."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from typing import Any

import torch

# mallopt(3): the parameters, and values that keep a program's memory in its own hands
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
M_ARENA_MAX, ARENAS = -8, 2
KEEP_ALL, LARGEST_MMAP_THRESHOLD = 2**31 - 1, 32 * 2**20


def choose_device() -> torch.device:
    """The first CUDA GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_bf16(device: torch.device) -> bool:
    """Whether ``device`` computes faster in bfloat16 than in float32.

    Emulated it is slower, and so is Intel's AVX512-BF16 (an evaluation takes 1.4 to 1.7 times as
    long): there AMX is the fast unit, which a virtual machine may not show.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # An older torch does not say: float32.
    cpu: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    by_vectors = cpu.get("avx512_bf16", False) and not cpu["cpu_name"].startswith("Intel")
    return cpu.get("amx_bf16", False) or by_vectors


def sampling_dtype(device: torch.device) -> torch.dtype:
    """What weights are best kept in for drawing: cast once, not at every evaluation."""
    return torch.bfloat16 if fast_bf16(device) else torch.float32


def in_bf16(precision: str, device: torch.device) -> bool:
    """Whether a training of this ``precision`` (see ``TrainConfig``) computes in bfloat16."""
    return precision == "bf16" or (precision == "auto" and fast_bf16(device))


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """A context in which float32 networks compute in bfloat16, if that is the ``precision``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bf16(precision, device))


def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors for the next ones; nothing where there is none.

    By default it hands large ones back, and the kernel clears every page that is taken again: a
    seventh of the time of drawing 16 pictures at once. For programs to call as they begin.
    """
    _mallopt({M_TRIM_THRESHOLD: KEEP_ALL, M_MMAP_THRESHOLD: LARGEST_MMAP_THRESHOLD})


def limit_arenas() -> None:
    """Have all threads share two arenas of glibc's malloc; nothing where there is none.

    By default there are eight for each core, and each keeps what its threads once needed. For
    programs of many threads to call as they begin.
    """
    _mallopt({M_ARENA_MAX: ARENAS})


def _mallopt(options: dict[int, int]) -> None:
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that memory ran out; on the CPU torch only says so in words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in ("not enough memory", "can't allocate"))
