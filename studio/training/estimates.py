"""How long fine-tuning takes on this machine: measured once for each base model, in a process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from pydantic import PositiveFloat, TypeAdapter

from diffusion.files import atomic_path

from ..drawing.library import ModelLibrary, model_hash
from .process import start_niced
from .training_folder import FileCache, parse_json

SPEED_NAME = "speed.json"  # in the data folder: hash of a base model to its estimate
TIMEOUT = 600.0  # seconds
_ESTIMATE = TypeAdapter(dict[str, PositiveFloat])
_ESTIMATES = TypeAdapter(dict[str, dict[str, PositiveFloat]])


class Estimates:
    """Images per second, and minutes for each length, by base model."""

    def __init__(self, data_dir: Path, library: ModelLibrary, command: Sequence[str]) -> None:
        self.path, self.library, self.command = Path(data_dir) / SPEED_NAME, library, command
        self._files = FileCache()
        self._measured: dict[str, dict[str, float]] = {}
        self._lock = threading.Lock()
        self._measuring: subprocess.Popen[bytes] | None = None
        self._gave_way = False

    def get(self, base: str, *, measure: bool = True) -> dict[str, float] | None:
        """{"images_per_second", "quick", "balanced", "thorough"}, the last three in minutes.

        None if it is not known yet; then, with ``measure``, it is being measured. Empty if it
        cannot be measured here. Raises ValueError for an unknown model.
        """
        path = self.library.paths().get(base or self.library.default)
        if path is None:
            raise ValueError(f"There is no model '{str(base)[:60]}' here.")
        try:
            key = model_hash(path)
        except OSError:  # renamed or deleted this very moment
            return None
        known = {**self._files.read(self.path, _known), **self._measured}
        if key in known:
            return known[key]
        with self._lock:
            if measure and self._measuring is None:
                self._start(key, path)
        return None

    def give_way(self) -> None:
        """End a measurement: a training starts, and each would slow the other."""
        with self._lock:
            if self._measuring is not None:
                self._gave_way = True
                self._measuring.kill()

    def _start(self, key: str, path: Path) -> None:
        arguments = [*self.command, "--base", str(path.resolve()), "--estimate"]
        try:
            self._measuring = start_niced(
                arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError:
            self._measured[key] = {}
            return
        threading.Thread(target=self._finish, args=(key, self._measuring), daemon=True).start()

    def _finish(self, key: str, process: subprocess.Popen[bytes]) -> None:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        values = _told(output) if process.returncode == 0 else {}
        if values or not self._gave_way:  # what had to give way is measured again
            self._measured[key] = values
        if values:
            known = {**self._files.read(self.path, _known), key: values}
            with contextlib.suppress(OSError), atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps(known, indent=2))
        with self._lock:
            self._measuring, self._gave_way = None, False


def _known(data: bytes) -> dict[str, dict[str, float]]:
    """What ``speed.json`` holds; nothing if it is damaged, and all is measured anew."""
    try:
        return _ESTIMATES.validate_python(parse_json(data))
    except ValueError:
        return {}


def _told(output: bytes) -> dict[str, float]:
    """The estimate in the last line of a measurement; empty if there is none."""
    try:
        return _ESTIMATE.validate_python(parse_json(b"".join(output.splitlines()[-1:])))
    except ValueError:
        return {}
