"""The program from its start to its end, as a host's service manager runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows ends processes another way")
fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@pytest.fixture
def program(tiny_folder, tmp_path):
    """``app.py`` over the tiny model, and the address that it says it is at."""
    options = ["--checkpoint", str(tiny_folder / "tiny.safetensors"), "--data-dir", str(tmp_path)]
    run = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0", *options],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "ADMIN_PASSWORD": "at least twelve", "GRADIO_TEMP_DIR": str(tmp_path)},
        # A shell starts what runs in its background with a deaf ear for Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    said = []
    for line in run.stderr:
        said.append(line)
        if found := re.match(r"Cat Diffusion is at (\S+)", line):
            break
    else:
        pytest.fail("".join(said))
    yield run, found[1]
    run.kill()
    run.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_program_serves_and_ends_in_order(program, how):
    run, address = program
    with fetch(address, timeout=60) as page:
        assert b"Cat Diffusion" in page.read()
    run.send_signal(how)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 0
    assert "Traceback" not in said
    with pytest.raises(urllib.error.URLError):
        fetch(address, timeout=5)
