"""Ctrl-C in the first seconds: no traceback, and nothing that swallows it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import diffusion

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")

PRESSED = """
import os, signal
from diffusion.cli.interrupt import ctrl_c_ends_at_once
signal.signal(signal.SIGINT, {before})
with ctrl_c_ends_at_once():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        print("went on")
    except BaseException:
        print("swallowed")
assert signal.getsignal(signal.SIGINT) is {before}
"""


def run(code: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_while_modules_are_imported_it_ends_without_a_word():
    assert run(PRESSED.format(before="signal.default_int_handler")) == (130, "")


def test_a_process_that_is_deaf_to_it_stays_so():
    assert run(PRESSED.format(before="signal.SIG_IGN")) == (0, "went on\n")


def test_the_package_imports_nothing_slow_before_the_command_listens():
    assert run("import sys, diffusion.cli.interrupt; print('torch' in sys.modules)") == (
        0,
        "False\n",
    )


@pytest.mark.parametrize("command", [["-m", "diffusion", "inspect", "x"], ["app.py"]])
def test_a_command_takes_it_in_its_imports(command, tmp_path):
    """What stands in for slow modules presses it, exactly when they are imported."""
    for module in ("torch", "gradio"):
        (tmp_path / f"{module}.py").write_text(
            "import os, signal\n"
            "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
            "except BaseException: pass\n"
        )
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (130, "")


def test_every_public_name_is_there():
    for name in diffusion.__all__:
        assert getattr(diffusion, name).__class__
    with pytest.raises(AttributeError, match="has no attribute 'cat'"):
        _ = diffusion.cat


def test_a_run_that_prepares_ends_at_once_and_one_that_learns_is_asked():
    code = """
import os, signal
from diffusion.cli.interrupt import stop_on_signal
signal.signal(signal.SIGINT, signal.default_int_handler)
with stop_on_signal() as stop:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("at once", end=", ")
    print(stop(), end=", ")
    os.kill(os.getpid(), signal.SIGINT)
    print(stop())
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    assert run(code) == (0, "at once, False, True\n")
