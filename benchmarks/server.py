"""The page as a process that a benchmark starts, ends and starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import httpx

from benchmarks.clients import PATIENCE, ROOT, free_port


class Server:
    """``app.py`` over a data folder: started, ended and started again."""

    def __init__(self, data_dir: Path, model: str) -> None:
        self.port, self.data_dir, self.model = free_port(), data_dir, model
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = data_dir / "server.log"
        self.life = 0  # how often it was started; even numbers are between two lives
        self.ends: dict[str, list[float]] = defaultdict(list)  # seconds, by signal
        self.starts: list[float] = []  # seconds
        self.start()

    def start(self) -> None:
        began = time.monotonic()
        command = [sys.executable, "app.py", "--port", str(self.port), "--checkpoint", self.model]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data_dir)], cwd=ROOT, stdout=log, stderr=log,
                env={**os.environ, "ADMIN_PASSWORD": "of the benchmark"},
            )  # fmt: skip
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"The server did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)
        self.life += 1
        self.starts.append(time.monotonic() - began)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: signal.Signals) -> None:
        self.life += 1
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        self.ends[number.name].append(time.monotonic() - began)

    @property
    def up(self) -> bool:
        return self.life % 2 == 1
