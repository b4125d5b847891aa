"""A training as the owner sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from diffusion.config import FinetuneConfig
from diffusion.training.run_folder import (
    METRICS_NAME,
    PROGRESS_NAME,
    MetricsLine,
    RunProgress,
    RunState,
    grids,
    steps,
    weights_path,
)

from . import process
from .records import DAMAGED, Records
from .training_folder import ENDINGS, Record, TrainingSpec, TrainingState, Wanted, is_fresh

QUIET_SECONDS = 120.0  # without news of a running training until the page says so
UNKNOWN = TrainingSpec(name="damaged training", config=FinetuneConfig(label="damaged", images=1))
ENDING = {Wanted.PAUSE: "Pausing.", Wanted.STOP: "Stopping.", Wanted.CANCEL: "Deleting."}


class Phase(str, Enum):
    """What a running training does; each has a part of its bar."""

    PREPARING = "preparing"
    LEARNING = "learning"
    CHECKING = "last check"

    __str__ = str.__str__


@dataclass(frozen=True)
class TrainingView:
    """A training as it is this moment."""

    id: str
    spec: TrainingSpec
    state: TrainingState = TrainingState.QUEUED
    message: str = ""
    created: float = 0.0  # Unix seconds
    progress: RunProgress = field(default_factory=RunProgress)
    metrics: Sequence[MetricsLine] = ()
    samples: Sequence[Path] = ()  # grids of the same seeds, the base model's first
    steps: Sequence[int] = ()  # images seen by the earlier weights that can be rolled back to
    log_tail: Sequence[str] = ()
    result: str = ""  # name that its model has in the library now
    place: int = 0  # in the queue: trainings ahead of it
    can_pause: bool = False
    can_resume: bool = False
    can_stop: bool = False  # and keep what there is
    can_go_on: bool = False  # finished, but it was still getting better

    @property
    def phase(self) -> Phase:
        """What a running training does. Not known of one that has told nothing since its start."""
        if self.progress.state == RunState.PREPARING:
            return Phase.PREPARING
        return Phase.CHECKING if self.progress.fraction >= 1 else Phase.LEARNING


def view_of(
    records: Records,
    folder: Path,
    record: Record | None,
    queue: Sequence[Path],
    models: Mapping[str, str],
) -> TrainingView:
    """A look at a training's folder; None stands for a damaged record.

    ``queue`` lists the folders of those that wait; ``models`` are the owner's, by their hashes.
    """
    told, metrics = records.progress(folder), records.metrics(folder)
    damaged = [PROGRESS_NAME] * (told is None) + [METRICS_NAME] * metrics.damaged
    progress = told or RunProgress()
    parts: dict[str, Any] = {
        "id": folder.name,
        "progress": progress,
        "metrics": metrics.lines,
        "samples": grids(folder),
        "steps": steps(folder),
        "log_tail": records.log(folder),
    }
    if record is None:
        created = time.mktime(time.strptime(folder.name[:15], "%Y%m%d-%H%M%S"))
        return TrainingView(
            spec=UNKNOWN, state=TrainingState.FAILED, message=DAMAGED, created=created, **parts
        )
    state, wanted = record.state, record.wanted
    kept = state not in ENDINGS and weights_path(folder).is_file()
    message = _message(folder, record, progress)
    if damaged:
        message += f" Damaged: {' and '.join(damaged)}, so some of its figures are missing."
    if state == TrainingState.RUNNING and not is_fresh(record, progress):  # it has just started
        parts["progress"] = replace(progress, state=RunState.PREPARING, prepared=0.0)
    running, queued = state == TrainingState.RUNNING, state == TrainingState.QUEUED
    return TrainingView(
        spec=record.spec,
        state=state,
        message=message.strip(),
        created=record.created,
        result=records.result(folder, record, models),
        place=queue.index(folder) if queued else 0,
        can_pause=queued or (running and not wanted),
        can_resume=state in (TrainingState.PAUSED, TrainingState.FAILED, TrainingState.STOPPED),
        can_stop=wanted in (Wanted.NOTHING, Wanted.PAUSE) if running else kept,
        can_go_on=state == TrainingState.DONE and 0 < progress.images <= progress.best_images,
        **parts,
    )


def _message(folder: Path, record: Record, progress: RunProgress) -> str:
    if record.state != TrainingState.RUNNING:
        return record.message
    if not process.is_alive(folder):
        return "Adding the model to the library."
    if record.wanted:
        return ENDING[record.wanted]
    fresh = is_fresh(record, progress)
    quiet = time.time() - (progress.updated if fresh else record.launched)
    if quiet > QUIET_SECONDS:
        return f"The training has not reported for {quiet / 60:.0f} minutes."
    return progress.message if fresh else "Starting."
