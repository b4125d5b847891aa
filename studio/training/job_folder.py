"""What lies in the folder of a fine-tuning job, and how to read it cheaply and while it changes.

``job.json`` is the studio's; the rest is written by ``python -m diffusion finetune``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from diffusion.checkpoint import WEIGHTS_NAME
from diffusion.config import LAYERS, LEAST_KEEP, LENGTHS, MAX_LABEL, MOST_KEEP, Config
from diffusion.files import atomic_path
from diffusion.run_folder import SAMPLES_NAME, STEPS_NAME

from .tuned import slug

T = TypeVar("T")

JOB_NAME = "job.json"
LOG_NAME = "log.txt"
QUEUED, RUNNING, PAUSED, STOPPED, FAILED, DONE = STATES = (
    "queued", "running", "paused", "stopped", "failed", "done",
)  # fmt: skip
PAUSE, STOP, CANCEL = "pause", "stop", "cancel"  # what the owner can want of a running job
INTERRUPTED = "Interrupted; resume it to go on."
LOG_LINES = 12
LOG_BYTES, METRICS_BYTES = 8_000, 1_000_000  # of the end of a file
STARTED = "-- "  # begins the line of the log that the studio writes ahead of each start


@dataclass(frozen=True)
class JobSpec(Config):
    """What the owner asks for. Raises ValueError with a sentence if that is not possible."""

    name: str  # of the model to be; a safe file name is made of it
    label: str  # of the new cat, beside the base model's labels
    base: str = ""  # name in the model library; empty is the default
    length: str = "balanced"  # quick, balanced or thorough
    lr: float | None = None  # peak learning rate; None is the one that suits
    batch_size: int | None = None  # images per optimizer step; None is the one that suits
    layers: str = "all"  # what may change: all, deep or label
    keep: float = 0.3  # share of each batch that shows what the base model draws

    def __post_init__(self) -> None:
        slug(self.name)
        label = self.label
        if not isinstance(label, str) or not label.isprintable() or label != label.strip():
            raise ValueError("The label must be a name on one line, without spaces around it.")
        if not 1 <= len(label) <= MAX_LABEL:
            raise ValueError(f"The label must have 1 to {MAX_LABEL} characters.")
        if not isinstance(self.base, str):
            raise ValueError("The base must be the name of a model.")
        if self.length not in list(LENGTHS):  # which, unlike the dictionary, bears anything
            raise ValueError(f"How long must be one of {', '.join(LENGTHS)}.")
        if self.layers not in list(LAYERS):
            raise ValueError(f"What may change must be one of {', '.join(LAYERS)}.")
        if self.lr is not None and not (_is_number(self.lr) and 0 < self.lr <= 1):
            raise ValueError("The learning rate must be above 0 and at most 1.")
        size = self.batch_size
        if size is not None and not (_is_number(size) and size == int(size) and 1 <= size <= 256):
            raise ValueError("The batch must be a whole number between 1 and 256.")
        keep = self.keep
        if not (_is_number(keep) and (keep == 0 or LEAST_KEEP <= keep <= MOST_KEEP)):
            raise ValueError(
                f"How much to keep must be 0, or between {LEAST_KEEP} and {MOST_KEEP}."
            )

    def options(self) -> list[str]:
        """As the command line takes them; one argument each, so that no label reads as another."""
        options = [f"--label={self.label}", f"--length={self.length}"]
        options += [f"--layers={self.layers}", f"--keep={self.keep:g}"]
        if self.lr is not None:
            options.append(f"--lr={self.lr:g}")
        if self.batch_size is not None:
            options.append(f"--batch-size={int(self.batch_size)}")
        return options


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Record(Config):
    """``job.json``: what cannot be seen from the rest of the folder."""

    spec: JobSpec
    created: float  # times are in Unix seconds
    state: str = QUEUED
    message: str = ""
    queued: float = 0.0  # when it was put into the queue
    launched: float = 0.0  # when its process was started last
    pid: int = 0  # that process
    identity: str = ""  # and what tells it from a later one with the same number
    wanted: str = ""  # what the owner has asked the process for
    asked: float = 0.0  # when
    model: int = 0  # modification time, in ns, of the model that it gave to the library

    def __post_init__(self) -> None:
        numbers = (self.created, self.queued, self.launched, self.pid, self.asked, self.model)
        texts = (self.message, self.identity, self.wanted)
        whole = all(map(_is_number, numbers)) and all(isinstance(text, str) for text in texts)
        if not whole or self.state not in STATES:
            raise ValueError("The record of the job is damaged.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        return super().from_dict({**values, "spec": JobSpec.from_dict(values["spec"])})


def parse_record(data: bytes) -> Record | None:
    """None for anything that is not a whole record."""
    try:
        return Record.from_dict(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Atomically. Raises OSError."""
    with atomic_path(folder / JOB_NAME) as temporary:
        temporary.write_text(json.dumps(record.to_dict(), indent=2))


def parse_progress(data: bytes) -> dict[str, Any]:
    """Empty for anything that is not a set of named values."""
    try:
        values = json.loads(data, parse_constant=lambda _: None)  # no NaN: it goes to a browser
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def parse_metrics(data: bytes) -> list[dict[str, Any]]:
    """The whole lines, each once and in order; the last may be half written."""
    lines: list[dict[str, Any]] = []
    for line in data.splitlines():
        values = parse_progress(line)
        seen = values.get("images")
        if _is_number(seen) and (not lines or seen > lines[-1]["images"]):
            lines.append(values)
    return lines


def parse_log(data: bytes) -> list[str]:
    """The last lines, as a terminal would show them: what a progress bar wrote over is gone."""
    text = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1].strip() for line in text.split("\n")]
    shown = [re.sub(r"[\x00-\x1f\x7f-\x9f]", "", line)[:300] for line in lines if line]
    return shown[-LOG_LINES:]


class FileCache:
    """Parsed files, read again only when they have changed: several browsers ask each second."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], Any]] = {}

    def read(self, path: Path, parse: Callable[[bytes], T], *, last: int = 0) -> T:
        """What ``parse`` makes of a file, or of its ``last`` bytes; of b"" if it is not there."""
        try:
            stat = path.stat()
            key = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            known = self._known.get(path)
            if known is not None and known[0] == key:
                return known[1]
            with path.open("rb") as file:
                file.seek(max(0, stat.st_size - last) if last else 0)
                parsed = parse(file.read())
        except OSError:
            self._known.pop(path, None)
            return parse(b"")
        if len(self._known) > 1000:  # folders that were deleted since
            self._known.clear()
        self._known[path] = key, parsed
        return parsed


def samples(folder: Path) -> list[Path]:
    """The grids of the fixed seeds: the base model's first, then by images seen."""
    stems = _stems(folder / SAMPLES_NAME, r"(base|\d{9})\.png")
    stems.sort(key=lambda stem: (stem != "base", stem))
    return [folder / SAMPLES_NAME / f"{stem}.png" for stem in stems]


def steps(folder: Path) -> list[int]:
    """Images seen by the earlier weights that are kept."""
    return sorted(int(stem) for stem in _stems(folder / STEPS_NAME, r"(\d{9})\.safetensors"))


def _stems(folder: Path, pattern: str) -> list[str]:
    try:
        names = os.listdir(folder)  # a glob takes ten times as long, and this is often asked
    except OSError:
        return []
    return [found[1] for name in names if (found := re.fullmatch(pattern, name))]


def step_path(folder: Path, images: int) -> Path:
    """The weights of one of ``steps``."""
    return folder / STEPS_NAME / f"{images:09d}.safetensors"


def weights_path(folder: Path) -> Path:
    """Its latest weights whose held-out loss had not risen."""
    return folder / WEIGHTS_NAME


def base_path(folder: Path) -> Path:
    """The job's own copy of its base model, which may be renamed or deleted meanwhile."""
    return next((folder / "base").glob("[!.]*.safetensors"), folder / "base" / WEIGHTS_NAME)


def last_error(log: list[str]) -> str:
    """The sentence with which the process failed since its last start; empty if there is none."""
    last = log[-1] if log else ""
    if last.startswith("Error: "):
        return last.removeprefix("Error: ")
    if re.match(r"[\w.]*(Error|Exception)\b", last):  # the end of a traceback
        return f"The training failed: {last}"
    return ""


def ended(record: Record, progress: dict[str, Any], log: list[str]) -> Record:
    """The record of a running job whose process is gone."""
    if not is_fresh(record, progress):
        progress = {}  # of an earlier start
    said, message = progress.get("state"), str(progress.get("message") or "")
    error = last_error(log)
    if said == "finished":
        state = DONE
    elif said == "failed" or (error and said != "stopped"):
        state, message = FAILED, message if said == "failed" and message else error
    elif record.wanted == STOP:
        state, message = STOPPED, "Stopped; the model so far is kept."
    elif record.wanted == PAUSE:
        state, message = PAUSED, "Paused."
    else:
        state, message = PAUSED, INTERRUPTED
    return Record(**{**vars(record), "state": state, "message": message, "wanted": ""})


def is_fresh(record: Record, progress: dict[str, Any]) -> bool:
    """Whether the progress is that of the latest start."""
    updated = progress.get("updated")
    return _is_number(updated) and updated >= record.launched
