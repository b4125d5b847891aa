"""What the hardware at hand is good at."""

from __future__ import annotations

import torch


def choose_device() -> torch.device:
    """The first CUDA GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def native_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies in bfloat16 itself; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch 2.6 and later
    return device.type == "cpu" and supported is not None and supported()


def sampling_dtype(device: torch.device) -> torch.dtype:
    """What weights are best kept in for drawing: cast once, not at every evaluation."""
    return torch.bfloat16 if native_bf16(device) else torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """A context in which float32 networks compute in bfloat16, where the hardware does."""
    return torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that memory ran out; on the CPU torch only says so in words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in ("not enough memory", "can't allocate"))
