"""What lies in the folder of a training, and how to read it cheaply and while it changes.

``job.json`` is the studio's; the rest is written by ``python -m diffusion finetune``. All of it may
have been damaged, so it is read through a schema: a word never stands where a number belongs.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from diffusion.checkpoint import WEIGHTS_NAME
from diffusion.config import LENGTHS, Config, FinetuneConfig
from diffusion.files import atomic_path
from diffusion.training.run_folder import MetricsLine, RunProgress, RunState

from .tuned import slug

T = TypeVar("T")

RECORD_NAME = "job.json"
LOG_NAME = "log.txt"
IMAGES_NAME = "images"  # folder of the squares to learn from
INTERRUPTED = "Interrupted. Press Resume to go on."
LOG_LINES = 12
LOG_BYTES, METRICS_BYTES = 8_000, 1_000_000  # of the end of a file
STARTED = "-- "  # begins the line of the log that the studio writes ahead of each start
MAX_DIGITS = 18  # of a whole number: what is longer is no count of anything


class TrainingState(str, Enum):
    """Where a training stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # with the model that there was
    FAILED = "failed"
    DONE = "done"

    __str__ = str.__str__


ENDINGS = (TrainingState.DONE, TrainingState.STOPPED)  # with these a model is published


class Wanted(str, Enum):
    """What the owner has asked of a running training."""

    NOTHING = ""
    PAUSE = "pause"
    STOP = "stop"
    CANCEL = "cancel"

    __str__ = str.__str__


@dataclass(frozen=True)
class TrainingSpec(Config):
    """What the owner asks for. Raises ValueError with a sentence if that is not possible."""

    name: str  # of the model to be; a safe file name is made of it
    config: FinetuneConfig
    base: str = ""  # name in the model library; empty is the default

    def __post_init__(self) -> None:
        slug(self.name)

    @property
    def length(self) -> str:
        """The name of its budget: quick, balanced, thorough; else the budget itself."""
        images, minutes = self.config.images, self.config.minutes
        if images is None:
            return f"{minutes:g} minutes"
        names = {images: name for name, images in LENGTHS.items()}
        return names.get(images, f"{images:,} images")

    def options(self) -> list[str]:
        """As the command line takes them; one argument each, so that no label reads as another."""
        values = {name: value for name, value in vars(self.config).items() if value is not None}
        return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


@dataclass(frozen=True)
class Record(Config):
    """``job.json``: what cannot be seen from the rest of the folder."""

    spec: TrainingSpec
    created: float  # times are in Unix seconds
    state: TrainingState = TrainingState.QUEUED
    message: str = ""
    queued: float = 0.0  # when it was put into the queue
    launched: float = 0.0  # when its process was started last
    pid: int = 0  # that process
    wanted: Wanted = Wanted.NOTHING
    asked: float = 0.0  # when
    goes_on: bool = False  # its server ended, and the next one puts it back in the queue
    model: str = ""  # hash of the model that it gave to the library


_RECORD = TypeAdapter(Record)
_PROGRESS = TypeAdapter(RunProgress)
_LINE = TypeAdapter(MetricsLine)


@dataclass(frozen=True)
class Metrics:
    """What could be read of ``metrics.jsonl``."""

    lines: tuple[MetricsLine, ...] = ()  # each once and in order
    damaged: bool = False  # whether lines had to be left out


def parse_json(data: bytes) -> Any:
    """Any value of JSON; NaN, which is none, is read as null. Raises ValueError."""
    try:
        return json.loads(
            data, parse_constant=lambda _: None, parse_float=_finite, parse_int=_whole
        )
    except RecursionError:
        raise ValueError("This is nested too deeply.") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("This number is too large.")
    return number


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS + 1:  # a sign, and 19 digits that were a time in ns
        raise ValueError("This number is too large.")
    return int(text)


def parse_record(data: bytes) -> Record | None:
    """None for anything that is not a whole record."""
    try:
        return _RECORD.validate_python(_of_before(parse_json(data)))
    except (ValueError, TypeError, KeyError):
        return None


def _of_before(values: dict[str, Any]) -> dict[str, Any]:
    """A record with what older versions wrote: the settings beside the name, one of three lengths,
    and the model by its time of change in ns."""
    spec = values["spec"]
    if "config" not in spec:
        config = {name: spec[name] for name in ("label", "layers", "keep")}
        config |= {name: spec[name] for name in ("lr", "batch_size") if spec[name] is not None}
        config["images"] = LENGTHS[spec["length"]]
        spec = {"name": spec["name"], "base": spec["base"], "config": config}
    return {**values, "spec": spec, "model": str(values.get("model") or "")}


def write_record(folder: Path, record: Record) -> None:
    """Atomically. Raises OSError."""
    with atomic_path(folder / RECORD_NAME) as temporary:
        temporary.write_text(json.dumps(record.to_dict(), indent=2))


def parse_progress(data: bytes) -> RunProgress | None:
    """None if it is damaged; the state of a run that has told nothing yet if it is empty."""
    try:
        return _PROGRESS.validate_python(parse_json(data)) if data else RunProgress()
    except ValueError:
        return None


def parse_metrics(data: bytes) -> Metrics:
    """All but the lines that are damaged; of the first and the last only a part may be here."""
    lines: list[MetricsLine] = []
    damaged, texts = False, data.splitlines()
    for i, text in enumerate(texts):
        try:
            line = _LINE.validate_python(parse_json(text))
        except ValidationError:
            damaged = True
        except ValueError:
            damaged |= 0 < i < len(texts) - 1
        else:
            if not lines or line.images > lines[-1].images:
                lines.append(line)
    return Metrics(tuple(lines), damaged)


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


def base_path(folder: Path) -> Path:
    """The training's own copy of its base model, which may be renamed or deleted meanwhile."""
    return next((folder / "base").glob("[!.]*.safetensors"), folder / "base" / WEIGHTS_NAME)


def last_error(log: list[str]) -> str:
    """The sentence with which the process failed since its last start; empty if there is none."""
    last = log[-1] if log else ""
    if last.startswith("Error: "):
        return last.removeprefix("Error: ")
    if re.match(r"[\w.]*(Error|Exception)\b", last):  # the end of a traceback
        return f"The training failed: {last}"
    return ""


def queued(record: Record) -> Record:
    """The record of a training that is put into the queue again."""
    return replace(
        record, state=TrainingState.QUEUED, queued=time.time(), message="", goes_on=False
    )


def ended(record: Record, progress: RunProgress, log: list[str]) -> Record:
    """The record of a running training whose process is gone."""
    if not is_fresh(record, progress):
        progress = RunProgress()  # the file is of an earlier start
    said, message, error = progress.state, progress.message, last_error(log)
    if said == RunState.FINISHED:
        state = TrainingState.DONE
    elif said == RunState.FAILED or (error and said != RunState.STOPPED):
        state = TrainingState.FAILED
        message = message if said == RunState.FAILED and message else error
    elif record.wanted == Wanted.STOP:
        state, message = TrainingState.STOPPED, "Stopped; the model so far is kept."
    elif record.wanted == Wanted.PAUSE:
        state, message = TrainingState.PAUSED, "Paused."
    else:
        state, message = TrainingState.PAUSED, INTERRUPTED
    return replace(record, state=state, message=message, wanted=Wanted.NOTHING)


def is_fresh(record: Record, progress: RunProgress) -> bool:
    """Whether the progress is that of the latest start."""
    return progress.updated > 0 and progress.updated >= record.launched
