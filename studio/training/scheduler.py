"""Starts the trainings that wait, one after the other, and sees to their end.

Of several servers on one data folder one, the first, starts and ends processes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from typing import cast

from ..disk import errors_as_sentences, try_hold
from . import process
from .estimates import Estimates
from .records import Looks, Records, in_order
from .training_folder import (
    IMAGES_NAME,
    Record,
    TrainingState,
    Wanted,
    base_path,
    queued,
    write_record,
)

LEAVE_SECONDS = 3.0  # that a server which ends waits for its trainings to save


class Scheduler:
    """A thread that looks at the trainings again and again, and at once when it is woken."""

    def __init__(
        self,
        records: Records,
        estimates: Estimates,
        command: Sequence[str],
        *,
        grace: float,  # seconds for a process to save and leave, before it is killed
        interval: float,  # seconds between two looks
    ) -> None:
        self.records, self.estimates, self.command = records, estimates, tuple(command)
        self.grace, self.interval = grace, interval
        self.wake = threading.Event()
        self._leading: int | None = None  # descriptor of the scheduler's lock, while it is ours
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def start(self) -> None:
        """Take up what is there (adopt what lives, mark what was killed), then go on in a thread.

        A data folder that cannot be used does not raise: it is looked at again and again.
        """
        self._look_round()
        self._thread = threading.Thread(target=self._work, name="trainings", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Running trainings are asked to save and leave, and go on when the next
        server starts; one that needs longer than ``LEAVE_SECONDS`` is left to it, and found again.
        """
        self._closing.set()
        self.wake.set()
        if self._thread is not None:
            self._thread.join()
        self.estimates.give_way()
        if self._leading is None:
            return
        with suppress(ValueError), self.records.locked():
            alive = self.records.alive()
            for folder in alive:
                with suppress(ValueError):
                    self._ask_to_end(folder)
            end = time.monotonic() + LEAVE_SECONDS
            for folder in alive:
                if process.wait_for_end(folder, end - time.monotonic()):
                    with suppress(ValueError):
                        self.records.settled(folder)
        os.close(self._leading)
        self._leading = None

    def _ask_to_end(self, folder: Path) -> None:
        record = self.records.read(folder)
        asked = record is None or record.wanted or record.goes_on
        if record is not None and not asked:  # a second signal would be final
            with suppress(OSError):  # on a full disk it waits for the owner instead
                write_record(folder, replace(record, goes_on=True))
            process.ask_to_end(folder, record.pid)

    def _work(self) -> None:
        while not self._closing.is_set():
            self.wake.wait(self.interval)
            self.wake.clear()
            if not self._closing.is_set():
                self._look_round()

    def _look_round(self) -> None:
        """One look, which must outlive whatever it meets."""
        try:
            self.schedule()
            self._trouble = ""
        except Exception as error:
            if repr(error) != self._trouble:  # told once, not twice a second
                self._trouble = repr(error)
                print(f"Trainings: {error}", file=sys.stderr)
                if not isinstance(error, ValueError):
                    traceback.print_exc()

    def schedule(self) -> None:
        """Settle what has ended, end what overstays, and start the next training if none runs."""
        records = self.records
        with records.locked():
            if self._leading is None:
                self._leading = try_hold(records.folder / ".scheduler")
                if self._leading is None:
                    return  # another server's task
                records.clear_leftovers()
            looks: dict[Path, Record | None] = {}
            troubles: list[ValueError | OSError] = []
            for folder in records.folders():
                try:
                    looks[folder] = self._attend(folder)
                except (ValueError, OSError) as error:  # one training's trouble is not the others'
                    troubles.append(error)
            if not records.alive():
                troubles += self._launch_first(looks)
        if troubles:
            raise troubles[0]

    def _attend(self, folder: Path) -> Record | None:
        """See to one training; returns its record as it is then."""
        record = self.records.settled(folder)
        if record is not None and record.state == TrainingState.PAUSED and record.goes_on:
            record = queued(record)
            write_record(folder, record)
        if record is None or record.state != TrainingState.RUNNING:
            return record
        if record.wanted == Wanted.CANCEL:
            if process.kill(folder, record.pid, seconds=0.1):
                self.records.remove(folder)
        elif record.wanted and time.time() - record.asked > self.grace:
            process.kill(folder, record.pid, seconds=0.1)
            record = self.records.settled(folder)
        return record

    def _launch_first(self, looks: Looks) -> list[ValueError | OSError]:
        """Start the first of those that wait which can be started; what stood in others' way."""
        troubles: list[ValueError | OSError] = []
        for folder in in_order(looks):
            try:
                self._launch(folder, cast(Record, looks[folder]))  # a damaged one never waits
                break
            except (ValueError, OSError) as error:
                troubles.append(error)
        return troubles

    def _launch(self, folder: Path, record: Record) -> None:
        place = folder.resolve()
        command = [
            *self.command, "--base", str(base_path(place)), "--data", str(place / IMAGES_NAME),
            "--keep-both",  # they were chosen as they were uploaded
            *record.spec.options(),
        ]  # fmt: skip
        launched = replace(
            record, state=TrainingState.RUNNING, message="", launched=time.time(),
            wanted=Wanted.NOTHING,
        )  # fmt: skip
        started = lambda pid: write_record(folder, replace(launched, pid=pid))  # noqa: E731
        try:
            self.records.require_room()
            self.estimates.give_way()
            with errors_as_sentences():
                child = process.launch(command, folder, started=started)
        except ValueError as error:
            write_record(folder, replace(record, state=TrainingState.PAUSED, message=str(error)))
            return
        # Our own children have to be waited for; and the next training need not wait for a look.
        threading.Thread(target=self._wake_after, args=[child], daemon=True).start()

    def _wake_after(self, child: Popen[bytes]) -> None:
        child.wait()
        self.wake.set()
