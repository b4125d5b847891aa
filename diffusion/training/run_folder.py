"""What lies in the folder of a training run: every name and path, and the progress that it tells.

A module of its own, because who only reads such a folder need not wait for the trainer's imports.
"""

from __future__ import annotations

import json
import math
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from ..checkpoint import WEIGHTS_NAME, read_tensors
from ..files import atomic_path

STATE_NAME = "state.safetensors"  # all it takes to go on, but for a guide
METRICS_NAME = "metrics.jsonl"
RUN_NAME = "run.json"  # settings
PROGRESS_NAME = "progress.json"  # how far a fine-tuning is
STEPS_NAME = "steps"  # folder of earlier weights, each named after the images shown
SAMPLES_NAME = "samples"  # folder of grids, named alike
BASE_GRID = "base.png"  # among them: what the base model draws from the same seeds
SCALARS_NAME = "tensorboard"  # folder of TensorBoard's files


class RunState(str, Enum):
    """What a run says of itself."""

    PREPARING = "preparing"
    TRAINING = "training"
    STOPPED = "stopped"  # as it was asked to; it can go on
    FINISHED = "finished"
    FAILED = "failed"

    __str__ = str.__str__


@dataclass(frozen=True)
class RunProgress:
    """``progress.json``: how far a fine-tuning is, for whoever looks at its folder."""

    state: RunState = RunState.PREPARING
    message: str = ""  # a sentence for a person, or nothing
    prepared: float = 0.0  # share of the preparations that is done, 0 to 1
    images: int = 0  # images shown
    fraction: float = 0.0  # share of the budget that is spent, 0 to 1
    seconds: float = 0.0  # spent in this run, over all its sessions
    seconds_left: float | None = None
    images_per_second: float = 0.0
    loss: float | None = None  # of the last step
    heldout_loss: float | None = None  # at the last checkpoint
    best_images: int = 0  # images shown when the held-out loss was last about as low as ever
    best_heldout_loss: float | None = None
    updated: float = 0.0  # Unix seconds; 0 before anything was told

    @classmethod
    def left_by(cls, folder: Path) -> RunProgress:
        """How far the run in a folder was when it saved last: what a run that goes on begins with.
        Nothing, if it has saved nothing or its ``progress.json`` is damaged."""
        if not (folder / STATE_NAME).exists():
            return cls()
        with suppress(OSError, ValueError, LookupError, TypeError):
            told = json.loads((folder / PROGRESS_NAME).read_bytes())
            return cls(
                images=int(told["images"]),
                fraction=float(told["fraction"]),
                seconds=float(told["seconds"]),
            )
        return cls()

    def write(self, folder: Path) -> None:
        """Replace ``progress.json``. JSON has no NaN: a loss that is not finite becomes null."""
        values = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }
        with atomic_path(folder / PROGRESS_NAME) as temporary:
            temporary.write_text(json.dumps(values, allow_nan=False))


@dataclass(frozen=True)
class MetricsLine:
    """What is drawn of a line of ``metrics.jsonl``."""

    images: int  # images shown
    loss: float | None = None  # mean of late; at a checkpoint, since the one before
    heldout_loss: float | None = None  # at checkpoints


def weights_path(folder: Path) -> Path:
    """Its weights; with ``patience``, the latest whose held-out loss had not risen."""
    return folder / WEIGHTS_NAME


def step_path(folder: Path, images: int) -> Path:
    """Earlier weights, by the images that they had seen."""
    return folder / STEPS_NAME / f"{images:09d}.safetensors"


def grid_path(folder: Path, images: int) -> Path:
    """The grid of the fixed seeds, by the images that the weights had seen."""
    return folder / SAMPLES_NAME / f"{images:09d}.png"


def steps(folder: Path) -> list[int]:
    """Images seen by the earlier weights that are kept."""
    return sorted(int(stem) for stem in _stems(folder / STEPS_NAME, r"(\d{9})\.safetensors"))


def grids(folder: Path) -> list[Path]:
    """The grids of the fixed seeds: the base model's first, then by images seen."""
    seen = sorted(int(stem) for stem in _stems(folder / SAMPLES_NAME, r"(\d{9})\.png"))
    base = folder / SAMPLES_NAME / BASE_GRID
    return [base] * base.exists() + [grid_path(folder, images) for images in seen]


def whole_weights(folder: Path) -> Path | None:
    """The latest of its weights that can be read, or None."""
    earlier = [step_path(folder, images) for images in reversed(steps(folder))]
    for path in (weights_path(folder), *earlier):
        with suppress(ValueError):
            read_tensors(path)
            return path
    return None


def is_finished(folder: Path) -> bool:
    """Whether its ``progress.json`` says that all of its budget was spent."""
    try:
        return json.loads((folder / PROGRESS_NAME).read_bytes())["state"] == RunState.FINISHED
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _stems(folder: Path, pattern: str) -> list[str]:
    try:
        names = os.listdir(folder)  # a glob takes ten times as long, and this is often asked
    except OSError:
        return []
    return [found[1] for name in names if (found := re.fullmatch(pattern, name))]
