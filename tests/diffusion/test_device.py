"""What the hardware and the C library are asked for."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from diffusion.device import fast_bf16

TAKE_AND_FREE = """
import resource, sys, torch
from diffusion.device import keep_freed_memory

PAGE = resource.getpagesize()

def resident():
    return PAGE * int(open("/proc/self/statm").read().split()[1])

if sys.argv[1] == "keep":
    keep_freed_memory()
torch.ones(20_000)
before = resident()
tensor = torch.ones(7_500_000)
del tensor
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_tensor():
    """30 MB, of which a program that says nothing has nothing left."""
    left = {}
    for what in ("keep", "let go"):
        command = [sys.executable, "-c", TAKE_AND_FREE, what]
        left[what] = int(subprocess.run(command, capture_output=True, check=True).stdout)
    assert left["keep"] > 29e6
    assert left["let go"] < 3e6


IN_MANY_THREADS = """
import sys, threading
from diffusion.device import limit_arenas

if sys.argv[1] == "few":
    limit_arenas()
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
barrier = threading.Barrier(12)

def take():
    barrier.wait()
    libc.malloc(1000)
    barrier.wait()

threads = [threading.Thread(target=take) for _ in range(12)]
[t.start() for t in threads]
[t.join() for t in threads]
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(ctypes.c_void_p(file))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_many_threads_share_two_arenas(tmp_path):
    arenas = {}
    for what in ("few", "many"):
        report = tmp_path / what
        subprocess.run([sys.executable, "-c", IN_MANY_THREADS, what, str(report)], check=True)
        arenas[what] = report.read_text().count("<heap nr=")
    assert arenas["few"] <= 2
    assert arenas["many"] > 2


@pytest.mark.parametrize(
    ("name", "instructions", "fast"),
    [
        ("AMD EPYC 9B45", ["avx512_bf16"], True),
        ("Intel Xeon", ["avx512_bf16", "amx_bf16"], True),
        ("Intel Xeon", ["avx512_bf16"], False),
        ("Intel Core i7-8550U", [], False),
        ("Apple M2", ["bf16"], False),  # nobody has measured it
    ],
)
def test_bf16_is_for_hardware_that_is_faster_in_it(monkeypatch, name, instructions, fast):
    capabilities = {"cpu_name": name, **dict.fromkeys(instructions, True)}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert fast_bf16(torch.device("cpu")) is fast


def test_torch_that_does_not_say_computes_in_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not fast_bf16(torch.device("cpu"))
