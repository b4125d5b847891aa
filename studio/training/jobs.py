"""Fine-tuning jobs: each a folder and a process; queued, started, steered and looked at here.

The truth is on disk, and whoever looks derives it anew: a refreshed page, a second device and a
second server see the same. Every change is made under one lock for the data folder; of several
servers on it one, the first, starts and ends processes.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusion.checkpoint import read_checkpoint
from diffusion.config import MAX_PICTURES
from diffusion.data import MIN_IMAGES
from diffusion.run_folder import METRICS_NAME, PROGRESS_NAME

from .. import space
from ..disk import CAN_LOCK, errors_as_sentences, hold, require_room, try_hold
from ..drawing.library import ModelLibrary
from . import job_process
from .estimates import Estimates
from .job_folder import (
    CANCEL,
    DONE,
    FAILED,
    JOB_NAME,
    LOG_BYTES,
    LOG_NAME,
    METRICS_BYTES,
    PAUSE,
    PAUSED,
    QUEUED,
    RUNNING,
    STOP,
    STOPPED,
    FileCache,
    JobSpec,
    Record,
    base_path,
    ended,
    is_fresh,
    parse_log,
    parse_metrics,
    parse_progress,
    parse_record,
    samples,
    step_path,
    steps,
    weights_path,
    write_record,
)
from .tuned import TunedModels

JOBS = "jobs"  # folder in the data folder
COMMAND = (sys.executable, "-m", "diffusion", "finetune")
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
QUIET_SECONDS = 120.0  # without news of a running job until the page says so
DAMAGED = "The record of this job is damaged; it can only be deleted."
ENDINGS = (DONE, STOPPED)  # with these a model is published


@dataclass(frozen=True)
class JobView:
    """A job as it is this moment."""

    id: str
    spec: JobSpec
    state: str  # queued, running, paused, stopped, failed or done
    message: str
    created: float  # Unix seconds
    progress: dict[str, Any]  # progress.json; empty at first
    metrics: list[dict[str, Any]]  # lines of metrics.jsonl
    samples: list[Path]  # grids of the same seeds, the base model's first
    steps: list[int]  # images seen by the earlier weights that can be rolled back to
    log_tail: list[str]
    result: str = ""  # name that its model has in the library now
    place: int = 0  # in the queue: jobs ahead of it
    can_pause: bool = False
    can_resume: bool = False
    can_stop: bool = False  # and keep what there is


class FinetuneJobs:
    """The jobs of one data folder. What its owner cannot have raises ValueError with a sentence."""

    def __init__(
        self,
        data_dir: Path,
        library: ModelLibrary,
        *,
        max_waiting: int = 4,
        max_kept: int = 20,
        min_free_bytes: int = 2_000_000_000,
        command: Sequence[str] = COMMAND,
        grace: float = 30.0,  # seconds for a process to save and leave, before it is killed
        interval: float = 0.5,  # seconds between two looks of the scheduler
    ) -> None:
        self.folder, self.library = Path(data_dir) / JOBS, library
        self.models = TunedModels(data_dir, library)
        self.max_waiting, self.max_kept, self.min_free_bytes = max_waiting, max_kept, min_free_bytes
        self.command, self.grace, self.interval = tuple(command), grace, interval
        self._files = FileCache()
        self._estimates = Estimates(data_dir, library, self.command)
        self._leading: int | None = None  # descriptor of the scheduler's lock, while it is ours
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""

    # -- what the owner does ------------------------------------------------------------------

    def require_possible(self, spec: JobSpec) -> Path:
        """The file of a job's base model. Raises ValueError if the job cannot be queued just now,
        which can be told before its pictures are prepared."""
        _require_background()
        base = self.library.paths().get(spec.base or self.library.default)
        if base is None:
            raise ValueError(f"There is no model '{spec.base[:60]}' here.")
        if spec.label in read_checkpoint(base)[1].labels:
            raise ValueError(f"{base.stem} knows the label '{spec.label}' already; choose another.")
        require_room(self.folder, self.min_free_bytes)
        self._require_place()
        if len(self._folders()) - len(self._finished()) >= self.max_kept:
            raise ValueError(f"{self.max_kept} jobs are kept here; delete one of them first.")
        return base

    def create(self, spec: JobSpec, pictures: Sequence[Path]) -> str:
        """Queue a job that learns from ``pictures`` (squares), which are copied; returns its id."""
        if not MIN_IMAGES <= len(pictures) <= MAX_PICTURES:
            raise ValueError(
                f"Between {MIN_IMAGES} and {MAX_PICTURES:,} pictures, not {len(pictures):,}."
            )
        self.require_possible(spec)  # before a folder is made for it
        with self._locked():
            base, finished = self.require_possible(spec), self._finished()
            id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
            self._build(self.folder / id, replace(spec, base=base.stem), base, pictures)
            for folder in finished[: max(0, len(self._folders()) - self.max_kept)]:
                _remove(folder)
        self._wake.set()
        return id

    def pause(self, id: str) -> None:
        """Have a job save all and wait until it is resumed."""
        with self._changing(id) as (folder, record):
            if record.state == QUEUED:
                write_record(folder, replace(record, state=PAUSED, message="Paused."))
            elif record.state == RUNNING:
                if record.wanted not in ("", PAUSE):
                    raise ValueError("The job is ending already.")
                self._ask(folder, record, PAUSE)
            elif record.state != PAUSED:
                raise ValueError(f"A job that is {record.state} cannot be paused.")

    def resume(self, id: str) -> None:
        """Queue a job again that was paused, failed, or stopped; it goes on from what it saved."""
        _require_background()
        with self._changing(id) as (folder, record):
            if record.state == DONE:
                raise ValueError("The job is done; there is nothing left to go on with.")
            if record.state == RUNNING and record.wanted:
                raise ValueError("The job has not ended yet; resume it in a moment.")
            if record.state in (QUEUED, RUNNING):
                return
            require_room(folder, self.min_free_bytes)
            self._require_place()
            write_record(folder, replace(record, state=QUEUED, queued=time.time(), message=""))

    def stop_and_keep(self, id: str) -> None:
        """End a job; its model so far goes to the library."""
        with self._changing(id) as (folder, record):
            if record.state == RUNNING:
                self._ask(folder, record, STOP)
            elif record.state not in ENDINGS:
                if not weights_path(folder).is_file():
                    raise ValueError("There is no model to keep yet; resume the job, or cancel it.")
                message = "Stopped; the model so far is kept."
                stopped = replace(record, state=STOPPED, message=message)
                write_record(folder, self._published(folder, stopped))

    def cancel(self, id: str) -> None:
        """End a job at once and delete all of it; a model that it published stays."""
        _require_id(id)
        if not (self.folder / id).is_dir():
            return
        with self._locked():
            folder = self.folder / id
            record = self._read(folder)
            if job_process.is_alive(folder):
                if record is None:
                    raise ValueError(f"{DAMAGED} Its process still runs, so not yet.")
                job_process.require_reach(folder, record.pid, record.identity)
                asked = replace(record, wanted=CANCEL, asked=time.time())
                with suppress(OSError):  # a full disk must not keep it from being deleted
                    write_record(folder, asked)
                if not job_process.kill(folder, record.pid, record.identity):
                    return  # hangs in the system; the scheduler goes on trying
            _remove(folder)
        self._wake.set()

    def roll_back(self, id: str, images: int) -> str:
        """Publish the weights that had seen so many images, in place of its model; returns the
        model's name."""
        with self._changing(id) as (folder, record):
            if record.state in (QUEUED, RUNNING):
                raise ValueError("Stop or pause the job first.")
            if images not in steps(folder):
                raise ValueError(f"The state after {str(images)[:20]} images is not kept.")
            rolled = self._publish(folder, record, step_path(folder, images))
            message = f"Rolled back to the state after {images:,} images."
            write_record(folder, replace(rolled, message=message))
            return self._result(folder, rolled)

    # -- what the owner sees ------------------------------------------------------------------

    def views(self) -> list[JobView]:
        """The running job, those that wait, and the others, the newest first."""
        looks = [(folder, self._look(folder)) for folder in self._folders()]
        queue, models = self._in_order(looks), self._models()
        # One whose record cannot be read may have been deleted since the folders were listed.
        views = [self._view(*look, queue, models) for look in looks if look[1] or look[0].is_dir()]
        rank = {RUNNING: -2, QUEUED: -1}
        return sorted(views, key=lambda v: (rank.get(v.state, 0), v.place, -v.created))

    def view(self, id: str) -> JobView:
        """One job. Raises ValueError if it is not there (any more)."""
        _require_id(id)
        folder = self.folder / id
        looks = [(other, self._look(other)) for other in self._folders()]
        if folder not in dict(looks):
            raise ValueError("This job is not there any more.")
        return self._view(folder, dict(looks)[folder], self._in_order(looks), self._models())

    def estimates(self, base: str) -> dict[str, float] | None:
        """What ``python -m diffusion finetune --estimate`` says for a base model on this machine.

        None while it is not known: it is measured when nothing trains. Empty if it cannot be
        measured. Raises ValueError for an unknown model.
        """
        if space.on_zero_gpu():
            return {}
        return self._estimates.get(base, measure=not any(self._alive()))

    # -- the scheduler ------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what is there (adopt what lives, mark what was killed), then go on in a thread.

        A data folder that cannot be used does not raise: it is looked at again and again.
        """
        self._look_round()
        self._thread = threading.Thread(target=self._work, name="finetune jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the scheduler. A running job is asked to save and leave, and can be resumed."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._estimates.give_way()
        if self._leading is None:
            return
        with suppress(ValueError), self._locked():
            for folder in self._alive():
                with suppress(ValueError):
                    self._end(folder)
        os.close(self._leading)
        self._leading = None

    def _end(self, folder: Path) -> None:
        """Bring a process to its end, by force after a while, and write down how it ended."""
        record = self._read(folder)
        if record is not None:
            if not record.wanted:  # a second signal would be final
                job_process.ask_to_end(folder, record.pid, record.identity)
            if not job_process.wait_for_end(folder, self.grace):
                job_process.kill(folder, record.pid, record.identity)
            self._settled(folder)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self.interval)
            self._wake.clear()
            if not self._closing.is_set():
                self._look_round()

    def _look_round(self) -> None:
        """One look of the scheduler, which must outlive whatever it meets."""
        try:
            self._schedule()
            self._trouble = ""
        except Exception as error:
            if repr(error) != self._trouble:  # told once, not twice a second
                self._trouble = repr(error)
                print(f"Fine-tuning jobs: {error}", file=sys.stderr)
                if not isinstance(error, ValueError):
                    traceback.print_exc()

    def _schedule(self) -> None:
        """Settle what has ended, end what overstays, and start the next job if none runs."""
        with self._locked():
            if self._leading is None:
                self._leading = try_hold(self.folder / ".scheduler")
                if self._leading is None:
                    return  # another server's task
                for leftover in self.folder.glob(".[ng]*-*"):  # .new-ID and .gone-ID
                    shutil.rmtree(leftover, ignore_errors=True)
            looks, troubles = [], []
            for folder in self._folders():
                try:
                    looks.append((folder, self._attend(folder)))
                except (ValueError, OSError) as error:  # one job's trouble is not the others'
                    troubles.append(error)
            if not any(self._alive()):
                for folder in self._in_order(looks)[:1]:
                    self._launch(folder, dict(looks)[folder])
        if troubles:
            raise troubles[0]

    def _attend(self, folder: Path) -> Record | None:
        """See to one job; returns its record as it is then."""
        record = self._settled(folder)
        if record is None or record.state != RUNNING:
            return record
        if record.wanted == CANCEL:
            if job_process.kill(folder, record.pid, record.identity, seconds=0.1):
                _remove(folder)
        elif record.wanted and time.time() - record.asked > self.grace:
            job_process.kill(folder, record.pid, record.identity, seconds=0.1)
            record = self._settled(folder)
        return record

    def _launch(self, folder: Path, record: Record) -> None:
        place = folder.resolve()
        arguments = [
            *self.command, "--base", str(base_path(place)), "--data", str(place / "images"),
            "--out", str(place), *record.spec.options(),
        ]  # fmt: skip
        launched = replace(
            record, state=RUNNING, message="", launched=time.time(), pid=0, identity="", wanted=""
        )

        def started(pid: int) -> None:
            known_as = job_process.identity(pid)
            write_record(folder, replace(launched, pid=pid, identity=known_as))

        try:
            require_room(folder, self.min_free_bytes)
            self._estimates.give_way()
            with errors_as_sentences():
                process = job_process.launch(arguments, folder, started=started)
        except ValueError as error:
            write_record(folder, replace(record, state=PAUSED, message=str(error)))
            return
        # Our own children have to be waited for; and the next job need not wait for the next look.
        threading.Thread(target=lambda: (process.wait(), self._wake.set()), daemon=True).start()

    # -- records, under the lock if they change -------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with errors_as_sentences():
            self.folder.mkdir(parents=True, exist_ok=True)
            with hold(self.folder / ".lock"):
                yield

    @contextmanager
    def _changing(self, id: str) -> Iterator[tuple[Path, Record]]:
        """The lock, and a job as it is now. Raises ValueError if there is no such job."""
        _require_id(id)
        with self._locked():
            folder = self.folder / id
            if not folder.is_dir():
                raise ValueError("This job is not there any more.")
            record = self._settled(folder)
            if record is None:
                raise ValueError(DAMAGED)
            if record.wanted == CANCEL:
                raise ValueError("The job is being deleted.")
            yield folder, record
        self._wake.set()

    def _folders(self) -> list[Path]:
        """Of all jobs, the oldest first."""
        with suppress(OSError):
            entries = [Path(entry.path) for entry in os.scandir(self.folder) if entry.is_dir()]
            return sorted(path for path in entries if ID.fullmatch(path.name))
        return []

    def _alive(self) -> list[Path]:
        """Folders whose process runs."""
        return [folder for folder in self._folders() if job_process.is_alive(folder)]

    def _finished(self) -> list[Path]:
        """Folders that may be cleared when there are too many, the oldest first: not where the
        weights of a failed one are all that there is of its model."""
        looks = [(folder, self._look(folder)) for folder in self._folders()]
        return [
            folder for folder, record in looks
            if record and (
                record.state in ENDINGS
                or (record.state == FAILED and not weights_path(folder).is_file())
            )
        ]  # fmt: skip

    def _require_place(self) -> None:
        states = [record.state for folder in self._folders() if (record := self._look(folder))]
        if sum(state in (QUEUED, RUNNING) for state in states) > self.max_waiting:
            raise ValueError(
                f"{self.max_waiting} jobs wait already; let one begin, or cancel one of them."
            )

    @staticmethod
    def _in_order(looks: Sequence[tuple[Path, Record | None]]) -> list[Path]:
        """Those that wait, the first in the queue first."""
        waiting = [(r.queued, folder) for folder, r in looks if r and r.state == QUEUED]
        return [folder for _, folder in sorted(waiting)]

    def _read(self, folder: Path) -> Record | None:
        return self._files.read(folder / JOB_NAME, parse_record)

    def _progress(self, folder: Path) -> dict[str, Any]:
        return self._files.read(folder / PROGRESS_NAME, parse_progress)

    def _log(self, folder: Path) -> list[str]:
        return self._files.read(folder / LOG_NAME, parse_log, last=LOG_BYTES)

    def _look(self, folder: Path) -> Record | None:
        """The record as it is, whatever was written last; None if it is damaged."""
        record = self._read(folder)
        if record is None or record.state != RUNNING or job_process.is_alive(folder):
            return record
        outcome = ended(record, self._progress(folder), self._log(folder))
        return record if outcome.state in ENDINGS else outcome  # those end when they are published

    def _settled(self, folder: Path) -> Record | None:
        """The same, and what has ended is written down, its model published."""
        record = self._read(folder)
        if record is None or record.state != RUNNING or job_process.is_alive(folder):
            return record
        if record.wanted == CANCEL:
            return record
        outcome = ended(record, self._progress(folder), self._log(folder))
        if outcome.state in ENDINGS:
            outcome = self._published(folder, outcome)
        write_record(folder, outcome)
        return outcome

    def _published(self, folder: Path, outcome: Record) -> Record:
        """The outcome with its model in the library, or the sentence why it is not there."""
        if not weights_path(folder).is_file():
            if outcome.state == DONE:
                return replace(outcome, state=FAILED, message="The training left no model.")
            return replace(outcome, message="Stopped before there was a model to keep.")
        try:
            return self._publish(folder, outcome, weights_path(folder))
        except ValueError as error:
            message = f"The model could not be added to the library: {error}"
            return replace(outcome, state=FAILED, message=message)

    def _publish(self, folder: Path, record: Record, weights: Path) -> Record:
        name = self.models.add(weights, record.spec.name, replacing=self._result(folder, record))
        return replace(record, model=self.models.path(name).stat().st_mtime_ns)

    def _models(self) -> dict[int, str]:
        """The owner's models by their times in ns."""
        found: dict[int, str] = {}
        for path in self.models.folder.glob("[!.]*.safetensors"):
            with suppress(OSError):
                found[path.stat().st_mtime_ns] = path.stem
        return found

    def _result(self, folder: Path, record: Record, models: dict[int, str] | None = None) -> str:
        """The job's model in the library, known by its time, whatever it is called by now."""
        models = self._models() if models is None else models
        times = [record.model]
        with suppress(OSError):  # published, but the disk was full before that was written down
            times.append(weights_path(folder).stat().st_mtime_ns)
        return next((models[time] for time in times if time in models), "")

    def _ask(self, folder: Path, record: Record, wanted: str) -> None:
        """Write down what is wanted of a running process, and tell it, once, to end."""
        job_process.require_reach(folder, record.pid, record.identity)
        asked = record.asked if record.wanted else time.time()
        write_record(folder, replace(record, wanted=wanted, asked=asked))
        if not record.wanted:  # a second signal would be final
            job_process.ask_to_end(folder, record.pid, record.identity)

    def _build(self, folder: Path, spec: JobSpec, base: Path, pictures: Sequence[Path]) -> None:
        """Make the folder of a new job; it appears whole or not at all."""
        new = self.folder / f".new-{folder.name}"
        try:
            (new / "images").mkdir(parents=True)
            for i, picture in enumerate(pictures, start=1):
                shutil.copyfile(picture, new / "images" / f"{i:04d}.png")
            (new / "base").mkdir()
            try:  # no room is taken; the library's files are replaced, never written into
                os.link(base, new / "base" / base.name)
            except OSError:
                shutil.copyfile(base, new / "base" / base.name)
            now = time.time()
            write_record(new, Record(spec, created=now, queued=now))
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _view(
        self, folder: Path, record: Record | None, queue: Sequence[Path], models: dict[int, str]
    ) -> JobView:
        progress, log = self._progress(folder), self._log(folder)
        parts: dict[str, Any] = {
            "id": folder.name,
            "progress": progress,
            "metrics": self._files.read(folder / METRICS_NAME, parse_metrics, last=METRICS_BYTES),
            "samples": samples(folder),
            "steps": steps(folder),
            "log_tail": log,
        }
        if record is None:
            spec = JobSpec(name="damaged job", label="damaged")
            created = time.mktime(time.strptime(folder.name[:15], "%Y%m%d-%H%M%S"))
            return JobView(spec=spec, state=FAILED, message=DAMAGED, created=created, **parts)
        state, wanted = record.state, record.wanted
        kept = state not in ENDINGS and weights_path(folder).is_file()
        return JobView(
            spec=record.spec,
            state=state,
            message=self._message(folder, record, progress),
            created=record.created,
            result=self._result(folder, record, models),
            place=queue.index(folder) if state == QUEUED else 0,
            can_pause=state == QUEUED or (state == RUNNING and not wanted),
            can_resume=state in (PAUSED, FAILED, STOPPED),
            can_stop=wanted in ("", PAUSE) if state == RUNNING else kept,
            **parts,
        )

    def _message(self, folder: Path, record: Record, progress: dict[str, Any]) -> str:
        if record.state != RUNNING:
            return record.message
        if not job_process.is_alive(folder):
            return "Adding the model to the library."
        if record.wanted:
            return {PAUSE: "Pausing.", STOP: "Stopping."}.get(record.wanted, "Deleting.")
        fresh = is_fresh(record, progress)
        quiet = time.time() - (progress["updated"] if fresh else record.launched)
        if quiet > QUIET_SECONDS:
            return f"No news from the training for {quiet / 60:.0f} minutes."
        return str(progress.get("message") or "") if fresh else "Starting."


def _require_background() -> None:
    if space.on_zero_gpu():
        raise ValueError(
            "Fine-tuning cannot run here: on ZeroGPU nothing may work in the background. Run this "
            "page on a machine of your own, or on a Space with its own hardware."
        )
    if not CAN_LOCK:
        raise ValueError("Fine-tuning from the page needs Linux or macOS; the shell command works.")


def _require_id(id: Any) -> None:
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise ValueError("There is no such job.")


def _remove(folder: Path) -> None:
    """Delete a job's folder; from the first moment it is not listed."""
    gone = folder.with_name(f".gone-{folder.name}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
