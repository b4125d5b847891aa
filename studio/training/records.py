"""The trainings of a data folder as they stand on disk: found, read, changed under one lock.

The truth is on disk, and whoever looks derives it anew: a refreshed page, a second device and a
second server see the same.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusion.training.run_folder import METRICS_NAME, PROGRESS_NAME, RunProgress, weights_path

from ..disk import errors_as_sentences, hold, require_room
from ..drawing.library import model_hash
from . import process
from .training_folder import (
    ENDINGS,
    IMAGES_NAME,
    LOG_BYTES,
    LOG_NAME,
    METRICS_BYTES,
    RECORD_NAME,
    FileCache,
    Metrics,
    Record,
    TrainingSpec,
    TrainingState,
    Wanted,
    ended,
    parse_log,
    parse_metrics,
    parse_progress,
    parse_record,
    write_record,
)
from .tuned import TunedModels

ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
DAMAGED = "The record of this training is damaged; it can only be deleted."
Looks = Mapping[Path, Record | None]  # by the trainings' folders


class Records:
    """The folders of all trainings, and which models came of them."""

    def __init__(self, folder: Path, models: TunedModels, *, min_free_bytes: int) -> None:
        self.folder, self.models, self.min_free_bytes = folder, models, min_free_bytes
        self._files = FileCache()

    def require_room(self) -> None:
        """Raises ValueError if too little is free on the disk."""
        require_room(self.folder, self.min_free_bytes)

    # -- found and read -----------------------------------------------------------------------

    def path(self, id: Any) -> Path:
        """Where a training lies. Raises ValueError for what cannot be an id."""
        if not isinstance(id, str) or not ID.fullmatch(id):
            raise ValueError("There is no such training.")
        return self.folder / id

    def folders(self) -> list[Path]:
        """Of all trainings, the oldest first."""
        with suppress(OSError):
            entries = [Path(entry.path) for entry in os.scandir(self.folder) if entry.is_dir()]
            return sorted(path for path in entries if ID.fullmatch(path.name))
        return []

    def alive(self) -> list[Path]:
        """Folders whose process runs."""
        return [folder for folder in self.folders() if process.is_alive(folder)]

    def read(self, folder: Path) -> Record | None:
        """The record as it was written last; None if it is damaged."""
        return self._files.read(folder / RECORD_NAME, parse_record)

    def progress(self, folder: Path) -> RunProgress | None:
        """What the run has told of itself; None if that is damaged."""
        return self._files.read(folder / PROGRESS_NAME, parse_progress)

    def metrics(self, folder: Path) -> Metrics:
        """The latest lines of its metrics."""
        return self._files.read(folder / METRICS_NAME, parse_metrics, last=METRICS_BYTES)

    def log(self, folder: Path) -> list[str]:
        """The last lines of its log."""
        return self._files.read(folder / LOG_NAME, parse_log, last=LOG_BYTES)

    def look(self, folder: Path) -> Record | None:
        """The record as it is, whatever was written last; None if it is damaged."""
        record = self.read(folder)
        if record is None or record.state != TrainingState.RUNNING or process.is_alive(folder):
            return record
        outcome = self._outcome(folder, record)
        return record if outcome.state in ENDINGS else outcome  # those end when they are published

    def looks(self) -> dict[Path, Record | None]:
        """A look at each, the oldest first."""
        return {folder: self.look(folder) for folder in self.folders()}

    def finished(self) -> list[Path]:
        """Folders that may be cleared when there are too many, the oldest first: not where the
        weights of a failed one are all that there is of its model."""
        return [
            folder for folder, record in self.looks().items()
            if record and (
                record.state in ENDINGS
                or (record.state == TrainingState.FAILED and not weights_path(folder).is_file())
            )
        ]  # fmt: skip

    def _outcome(self, folder: Path, record: Record) -> Record:
        return ended(record, self.progress(folder) or RunProgress(), self.log(folder))

    # -- changed under the lock ---------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block nobody else changes anything. Raises ValueError if that cannot be."""
        with errors_as_sentences():
            self.folder.mkdir(parents=True, exist_ok=True)
            with hold(self.folder / ".lock"):
                yield

    @contextmanager
    def changing(self, id: str) -> Iterator[tuple[Path, Record]]:
        """The lock, and a training as it is now. Raises ValueError if there is no such training."""
        folder = self.path(id)
        with self.locked():
            if not folder.is_dir():
                raise ValueError("This training no longer exists.")
            record = self.settled(folder)
            if record is None:
                raise ValueError(DAMAGED)
            if record.wanted == Wanted.CANCEL:
                raise ValueError("The training is being deleted.")
            yield folder, record

    def settled(self, folder: Path) -> Record | None:
        """As ``look``, and what has ended is written down, its model published."""
        record = self.read(folder)
        if record is None or record.state != TrainingState.RUNNING or process.is_alive(folder):
            return record
        if record.wanted == Wanted.CANCEL:
            return record
        outcome = self._outcome(folder, record)
        if outcome.state in ENDINGS:
            outcome = self.published(folder, outcome)
        write_record(folder, outcome)
        return outcome

    def build(self, folder: Path, spec: TrainingSpec, base: Path, pictures: Sequence[Path]) -> None:
        """Make the folder of a new training; it appears whole or not at all."""
        new = self.folder / f".new-{folder.name}"
        try:
            (new / IMAGES_NAME).mkdir(parents=True)
            for i, picture in enumerate(pictures, start=1):
                shutil.copyfile(picture, new / IMAGES_NAME / f"{i:04d}.png")
            (new / "base").mkdir()
            shutil.copyfile(base, new / "base" / base.name)  # a link would change with the file
            now = time.time()
            write_record(new, Record(spec, created=now, queued=now))
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def remove(self, folder: Path) -> None:
        """Delete a training's folder; from the first moment it is not listed."""
        gone = folder.with_name(f".gone-{folder.name}")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def clear_leftovers(self) -> None:
        """Remove what a server left that died while it made or deleted a folder."""
        for leftover in self.folder.glob(".[ng]*-*"):  # .new-ID and .gone-ID
            shutil.rmtree(leftover, ignore_errors=True)

    # -- the models that came of them ---------------------------------------------------------

    def published(self, folder: Path, outcome: Record) -> Record:
        """The outcome with its model in the library, or the sentence why it is not there."""
        if not weights_path(folder).is_file():
            if outcome.state == TrainingState.DONE:
                message = "The training ended without a model."
                return replace(outcome, state=TrainingState.FAILED, message=message)
            return replace(outcome, message="Stopped before there was a model to keep.")
        try:
            return self.publish(folder, outcome, weights_path(folder))
        except ValueError as error:
            message = f"The model could not be added to the library: {error}"
            return replace(outcome, state=TrainingState.FAILED, message=message)

    def publish(self, folder: Path, record: Record, weights: Path) -> Record:
        """Add weights to the library, in place of the training's earlier model if it is there."""
        replacing = self.result(folder, record, self.models.by_hash())
        name = self.models.add(
            weights, record.spec.name, replacing=replacing,
            base=record.spec.base, photos=len([*(folder / IMAGES_NAME).glob("*.png")]),
        )  # fmt: skip
        return replace(record, model=model_hash(self.models.path(name)))

    def result(self, folder: Path, record: Record, models: Mapping[str, str]) -> str:
        """The training's model, whatever it is called by now; empty if there is none.

        ``models`` are the owner's models ``by_hash``.
        """
        if record.model in models or record.state in (TrainingState.QUEUED, TrainingState.RUNNING):
            return models.get(record.model, "")
        with suppress(OSError):  # published, but the disk was full before that was written down
            return models.get(model_hash(weights_path(folder)), "")
        return ""


def in_order(looks: Looks) -> list[Path]:
    """Those that wait, the first in the queue first."""
    waiting = [(r.queued, path) for path, r in looks.items() if r and r.state == "queued"]
    return [path for _, path in sorted(waiting)]
