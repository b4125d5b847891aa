"""Servers over one data folder, whose trainings are done by a stand-in in milliseconds."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from studio_fixtures import wait_until

from diffusion.config import LENGTHS, FinetuneConfig
from studio.drawing.library import ModelLibrary
from studio.training import process
from studio.training.training_folder import TrainingSpec
from studio.training.trainings import Trainings
from studio.training.views import TrainingView

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = (sys.executable, "-S", str(ROOT / "tests" / "support" / "stand_in_finetune.py"))


def changed(spec: TrainingSpec, **changes: Any) -> TrainingSpec:
    """The same with other values, of its own or of its config."""
    own = {name: changes.pop(name) for name in ("name", "base") if name in changes}
    return dataclasses.replace(spec, **own, config=dataclasses.replace(spec.config, **changes))


SPEC = TrainingSpec("Mia", FinetuneConfig("Mia", images=LENGTHS["quick"]), base="tiny")
LONG = changed(SPEC, images=LENGTHS["thorough"])


class Rig:
    """Servers over one data folder."""

    def __init__(self, data_dir: Path, shipped: Path) -> None:
        self.data_dir = data_dir
        self.library = ModelLibrary([shipped, data_dir / "models"])
        self.servers: list[Trainings] = []
        self.pictures = []
        for i in range(8):
            self.pictures.append(data_dir.parent / f"squares-{i}.png")
            self.pictures[-1].write_bytes(b"square %d" % i)

    def server(self, *, start: bool = True, **options) -> Trainings:
        options = {"min_free_bytes": 0, "interval": 0.02, "command": STAND_IN, **options}
        trainings = Trainings(self.data_dir, self.library, **options)
        self.servers.append(trainings)
        if start:
            trainings.start()
        return trainings

    def crash(self, trainings: Trainings) -> None:
        """End a server as SIGKILL would: it says no word to its process, and its locks are free."""
        scheduler = trainings.scheduler
        scheduler._closing.set()
        scheduler.wake.set()
        scheduler._thread.join()
        os.close(scheduler._leading)
        scheduler._leading = None

    def folder(self, id: str) -> Path:
        return self.data_dir / "jobs" / id

    def record(self, id: str) -> dict:
        return json.loads((self.folder(id) / "job.json").read_text())

    def alive(self) -> list[str]:
        """Trainings whose process runs, as the system itself lists processes."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
                dead = (place / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            except OSError:
                continue
            if STAND_IN[-1].encode() in words and b"--out" in words and not dead:
                out = Path(os.fsdecode(words[words.index(b"--out") + 1]))
                if out.parent == self.data_dir.resolve() / "jobs":
                    found.append(out.name)
        return found


@pytest.fixture
def rig(tmp_path, tiny_folder, monkeypatch) -> Iterator[Rig]:
    monkeypatch.setattr(process, "_lower_priority", lambda pid: None)  # tests are in a hurry
    rig = Rig(tmp_path / "data", tiny_folder)
    yield rig
    for trainings in rig.servers:
        trainings.scheduler.grace = 0.0
        trainings.close()
    for place in (tmp_path / "data" / "jobs").glob("*/job.json"):  # whatever a test has left
        values = json.loads(place.read_bytes() or b"{}") if place.stat().st_size > 9 else {}
        if process.is_alive(place.parent) and values.get("pid", 0) > 1:
            with suppress(ProcessLookupError):
                os.killpg(values["pid"], signal.SIGKILL)


def wait_for(trainings: Trainings, id: str, state: str) -> TrainingView:
    wait_until(lambda: trainings.view(id).state == state, 30)
    return trainings.view(id)


def wait_for_more(trainings: Trainings, id: str) -> None:
    """Until a training that was resumed has gone further than before."""
    before = trainings.view(id).progress.images
    wait_until(lambda: trainings.view(id).progress.images > before + 64, 30)
    assert trainings.view(id).state == "running"


def start_long(rig: Rig, trainings: Trainings, **changes) -> str:
    """A training that runs until it is told otherwise, and has saved something."""
    id = trainings.create(changed(LONG, **changes), rig.pictures)
    wait_until(lambda: trainings.view(id).progress.images > 64, 30)
    return id


def call_by_hand(trainings: Trainings, name: str, new: str) -> None:
    """Give a model's file another name, as somebody does in a terminal."""
    path = trainings.models.path(name)
    path.rename(path.with_stem(new))
