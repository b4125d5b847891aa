"""What the hardware and the C library are asked for."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

TAKE_AND_FREE = """
import resource, sys, torch
from diffusion.device import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for turn in range(21):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2_000_000) for _ in range(4)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_not_taken_from_the_kernel_again():
    """20 turns of 32 MB are 156,000 pages of 4 KB."""
    faults = {}
    for what in ("keep", "let go"):
        command = [sys.executable, "-c", TAKE_AND_FREE, what]
        faults[what] = int(subprocess.run(command, capture_output=True, check=True).stdout)
    assert faults["keep"] < 0.1 * faults["let go"]
