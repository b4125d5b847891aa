"""The trainings of one data folder. Each is a folder, and a process while it runs."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from diffusion.checkpoint import read_checkpoint
from diffusion.config import LENGTHS, MAX_PICTURES
from diffusion.data.copies import MIN_IMAGES
from diffusion.training.run_folder import (
    STATE_NAME,
    RunProgress,
    RunState,
    step_path,
    steps,
    weights_path,
)

from .. import space
from ..disk import CAN_LOCK
from ..drawing.library import ModelLibrary
from . import process
from .estimates import Estimates
from .records import DAMAGED, Records, in_order
from .scheduler import Scheduler
from .training_folder import (
    ENDINGS,
    Record,
    TrainingSpec,
    TrainingState,
    Wanted,
    queued,
    write_record,
)
from .tuned import TunedModels
from .views import TrainingView, view_of

TRAININGS = "jobs"  # the name of their folder, from when they were called jobs
COMMAND = (sys.executable, "-m", "diffusion", "finetune")
WAITING = (TrainingState.QUEUED, TrainingState.RUNNING)


class Trainings:
    """What the owner can do with them. What is impossible raises ValueError with a sentence."""

    def __init__(
        self,
        data_dir: Path,
        library: ModelLibrary,
        *,
        max_waiting: int = 4,
        max_kept: int = 20,
        min_free_bytes: int = 2_000_000_000,
        command: Sequence[str] = COMMAND,
        grace: float = 30.0,  # seconds for a process to save and exit, before it is killed
        interval: float = 0.5,  # seconds between two looks of the scheduler
    ) -> None:
        self.library, self.models = library, TunedModels(data_dir, library)
        self.max_waiting, self.max_kept = max_waiting, max_kept
        folder = Path(data_dir) / TRAININGS
        self.records = Records(folder, self.models, min_free_bytes=min_free_bytes)
        self._estimates = Estimates(data_dir, library, command)
        self.scheduler = Scheduler(
            self.records, self._estimates, command, grace=grace, interval=interval
        )

    def start(self) -> None:
        """Start to run the trainings that wait, in the background."""
        self.scheduler.start()

    def close(self) -> None:
        """Stop running trainings. The one that runs saves and exits, and can be resumed."""
        self.scheduler.close()

    # -- what the owner does ------------------------------------------------------------------

    def require_possible(self, spec: TrainingSpec) -> Path:
        """The file of a training's base model.

        Raises ValueError if the training cannot be queued now. Needs no pictures, so it can be
        asked before they are prepared.
        """
        _require_background()
        base = self.library.paths().get(spec.base or self.library.default)
        if base is None:
            raise ValueError(f"There is no model '{spec.base[:60]}' here.")
        read_checkpoint(base)[1].require_teachable(spec.config.label)
        self.records.require_room()
        self._require_place()
        if len(self.records.folders()) - len(self.records.finished()) >= self.max_kept:
            raise ValueError(f"There are {self.max_kept} trainings already. Delete one first.")
        return base

    def create(self, spec: TrainingSpec, pictures: Sequence[Path]) -> str:
        """Queue a training on ``pictures`` (squares), which are copied; returns its id."""
        if not MIN_IMAGES <= len(pictures) <= MAX_PICTURES:
            raise ValueError(
                f"A training needs {MIN_IMAGES} to {MAX_PICTURES:,} pictures, not "
                f"{len(pictures):,}."
            )
        self.require_possible(spec)  # before a folder is made for it
        records = self.records
        with records.locked():
            base, finished = self.require_possible(spec), records.finished()
            id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
            records.build(records.path(id), replace(spec, base=base.stem), base, pictures)
            for folder in finished[: max(0, len(records.folders()) - self.max_kept)]:
                records.remove(folder)
        self.scheduler.wake.set()
        return id

    def pause(self, id: str) -> None:
        """Have a training save all and wait until it is resumed."""
        with self._changing(id) as (folder, record):
            if record.state == TrainingState.QUEUED:
                paused = replace(record, state=TrainingState.PAUSED, message="Paused.")
                write_record(folder, paused)
            elif record.state == TrainingState.RUNNING:
                if record.wanted not in (Wanted.NOTHING, Wanted.PAUSE):
                    raise ValueError("The training is already ending.")
                _ask(folder, record, Wanted.PAUSE)
            elif record.state != TrainingState.PAUSED:
                raise ValueError(f"A training that is {record.state} cannot be paused.")

    def resume(self, id: str) -> None:
        """Put a paused, failed or stopped training back in the queue. It continues from what it
        saved."""
        _require_background()
        with self._changing(id) as (folder, record):
            if record.state == TrainingState.DONE:
                raise ValueError("The training is finished. There is nothing left to resume.")
            if record.state == TrainingState.RUNNING and record.wanted:
                raise ValueError("The training is still ending. Resume it in a moment.")
            if record.state in WAITING:
                return
            self.records.require_room()
            self._require_place()
            write_record(folder, queued(record))

    def teach_longer(self, id: str) -> None:
        """Give a finished training its budget once more. It continues from what it saved, and its
        model is replaced at the end."""
        _require_background()
        with self._changing(id) as (folder, record):
            if record.state != TrainingState.DONE:
                raise ValueError("Only a finished training can be continued with more time.")
            if not (folder / STATE_NAME).is_file():
                raise ValueError("What this training would continue from is no longer here.")
            self.records.require_room()
            self._require_place()
            budget = record.spec.config
            if budget.images is not None:
                config = replace(budget, images=2 * budget.images)
            else:
                config = replace(budget, minutes=2 * (budget.minutes or 0.0))
            told = self.records.progress(folder) or RunProgress()
            told = replace(told, state=RunState.STOPPED, fraction=told.fraction / 2, message="")
            told.write(folder)  # before the run does: of the new budget it is half way
            write_record(folder, queued(replace(record, spec=replace(record.spec, config=config))))

    def stop_and_keep(self, id: str) -> None:
        """End a training; its model so far goes to the library."""
        with self._changing(id) as (folder, record):
            if record.state == TrainingState.RUNNING:
                _ask(folder, record, Wanted.STOP)
            elif record.state not in ENDINGS:
                if not weights_path(folder).is_file():
                    raise ValueError(
                        "There is no model to keep yet. Resume the training, or cancel it."
                    )
                message = "Stopped; the model so far is kept."
                stopped = replace(record, state=TrainingState.STOPPED, message=message)
                write_record(folder, self.records.published(folder, stopped))

    def cancel(self, id: str) -> None:
        """End a training at once and delete its folder. A model that it published stays."""
        folder = self.records.path(id)
        if not folder.is_dir():
            return
        with self.records.locked():
            record = self.records.read(folder)
            if process.is_alive(folder):
                if record is None:
                    raise ValueError(
                        f"{DAMAGED} Its process is still running, so wait until it has ended."
                    )
                process.require_reach(folder, record.pid)
                asked = replace(record, wanted=Wanted.CANCEL, asked=time.time())
                with suppress(OSError):  # a full disk must not keep it from being deleted
                    write_record(folder, asked)
                if not process.kill(folder, record.pid):
                    return  # it hangs in the system; the scheduler keeps trying
            self.records.remove(folder)
        self.scheduler.wake.set()

    def roll_back(self, id: str, images: int) -> str:
        """Replace a training's model by its weights after so many images; returns the model's
        name."""
        with self._changing(id) as (folder, record):
            if record.state in WAITING:
                raise ValueError("Stop or pause the training first.")
            if images not in steps(folder):
                raise ValueError(f"There is no saved state after {str(images)[:20]} images.")
            rolled = self.records.publish(folder, record, step_path(folder, images))
            message = f"Rolled back to the state after {images:,} images."
            write_record(folder, replace(rolled, message=message))
            return self.records.result(folder, rolled, self.models.by_hash())

    @contextmanager
    def _changing(self, id: str) -> Iterator[tuple[Path, Record]]:
        with self.records.changing(id) as found:
            yield found
        self.scheduler.wake.set()

    def _require_place(self) -> None:
        records = self.records.looks().values()
        if (
            sum(record is not None and record.state in WAITING for record in records)
            > self.max_waiting
        ):
            raise ValueError(
                f"{self.max_waiting} trainings are already waiting. Let one start, or cancel one."
            )

    # -- what the owner sees ------------------------------------------------------------------

    def views(self) -> list[TrainingView]:
        """The running training, those that wait, and the others, the newest first."""
        looks = self.records.looks()
        queue, models = in_order(looks), self.models.by_hash()
        # One whose record cannot be read may have been deleted since the folders were listed.
        views = [
            view_of(self.records, folder, record, queue, models)
            for folder, record in looks.items()
            if record or folder.is_dir()
        ]
        rank = {TrainingState.RUNNING: -2, TrainingState.QUEUED: -1}
        return sorted(views, key=lambda v: (rank.get(v.state, 0), v.place, -v.created))

    def view(self, id: str) -> TrainingView:
        """One training. Raises ValueError if it does not exist (any more)."""
        folder, looks = self.records.path(id), self.records.looks()
        if folder not in looks:
            raise ValueError("This training no longer exists.")
        models = self.models.by_hash()
        return view_of(self.records, folder, looks[folder], in_order(looks), models)

    def estimates(self, base: str) -> dict[str, float] | None:
        """What ``python -m diffusion finetune --estimate`` says for a base model on this machine.

        None while it is not known: it is measured when nothing trains, and meanwhile told by the
        training that runs, if that began with the same model. Empty if it cannot be measured.
        Raises ValueError for an unknown model.
        """
        if space.on_zero_gpu():
            return {}
        alive = self.records.alive()
        known = self._estimates.get(base, measure=not alive)
        for folder in alive if known is None else ():
            record, told = self.records.read(folder), self.records.progress(folder)
            same = record is not None and record.spec.base == (base or self.library.default)
            if same and told is not None and told.images_per_second > 0:
                speed = told.images_per_second
                minutes = {name: images / speed / 60 for name, images in LENGTHS.items()}
                return {"images_per_second": speed, **minutes}
        return known


def _ask(folder: Path, record: Record, wanted: Wanted) -> None:
    """Record what a running process should do, and tell it to end, once only."""
    process.require_reach(folder, record.pid)
    asked = record.asked if record.wanted else time.time()
    write_record(folder, replace(record, wanted=wanted, asked=asked, goes_on=False))
    if not (record.wanted or record.goes_on):  # a second signal would be final
        process.ask_to_end(folder, record.pid)


def _require_background() -> None:
    if space.on_zero_gpu():
        raise ValueError(
            "Nothing can be trained here: ZeroGPU allows no work in the background. Run this "
            "page on a machine of your own, or on a Space with its own hardware."
        )
    if not CAN_LOCK:
        raise ValueError(
            "Training from this page needs Linux or macOS. On this "
            "machine, use the command line instead."
        )
