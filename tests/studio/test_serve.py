"""The program from its start to its end, as a host's service manager runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from training_rig import rig, start_long  # noqa: F401 - the first is a fixture

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows ends processes another way")
fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@pytest.fixture
def busy(rig):  # noqa: F811
    """A training in the program's data folder that saves for ever when it is asked to leave."""
    trainings = rig.server()
    start_long(rig, trainings, label="deaf")
    rig.crash(trainings)
    return rig


@pytest.fixture
def program(tiny_folder, tmp_path):
    """``app.py`` over the tiny model, and the address that it says it is at."""
    model = str(tiny_folder / "tiny.safetensors")
    options = ["--checkpoint", model, "--data-dir", str(tmp_path / "data")]
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


def draw(address: str) -> bytes:
    """A cat as a script has it drawn, and its file."""
    call = urllib.request.Request(
        f"{address}gradio_api/call/generate",
        data=json.dumps({"data": [7, 1, "", 2, "euler", 1.0, ""]}).encode(),
        headers={"content-type": "application/json"},
    )
    with fetch(call, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with fetch(f"{address}gradio_api/call/generate/{event}", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    last = json.loads(next(line[6:] for line in reversed(lines) if '"pictures"' in line))
    path = last[0]["pictures"][0]["path"]
    with fetch(f"{address}gradio_api/file={path}", timeout=60) as answer:
        return answer.read()


def broken_off_upload(address: str) -> None:
    """The first half of a file, and no more."""
    host, port = urlsplit(address).netloc.split(":")
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n"
            "Content-Length: 1000000\r\n\r\n".encode()
            + head
            + bytes(500_000)
        )
        time.sleep(1)


@pytest.mark.slow
def test_a_broken_off_upload_leaves_nothing_past_the_end(program, tmp_path):
    run, address = program
    assert draw(address).startswith(b"\x89PNG")
    broken_off_upload(address)
    files = [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > 400_000
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
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


@pytest.mark.slow
def test_it_ends_soon_whoever_watches_and_whatever_still_saves(busy, program):
    run, address = program
    held = [fetch(f"{address}gradio_api/heartbeat/visit{i}", timeout=60) for i in range(3)]
    assert all(b"ALIVE" in stream.readline() for stream in held)  # pages that are open
    (id,) = busy.alive()
    started = time.monotonic()
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert time.monotonic() - started < 7  # 5 where nothing else runs
    assert run.returncode == 0
    assert busy.alive() == [id]  # it is left to it, and found again
    assert busy.record(id)["state"] == "running"
