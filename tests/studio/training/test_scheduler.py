"""The scheduler: one process at a time, in order, whatever servers come and go."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from studio_fixtures import wait_until
from training_rig import (
    LONG,
    ROOT,
    SPEC,
    Rig,
    changed,
    start_long,
    wait_for,
    wait_for_more,
)

from studio.training import trainings as trainings_module
from studio.training.scheduler import Scheduler


def test_a_training_that_cannot_be_started_is_not_in_the_others_way(monkeypatch):
    scheduler = Scheduler(Mock(), Mock(), [], grace=1.0, interval=1.0)
    launched = []

    def launch(folder: Path, _: object) -> None:
        if folder.name == "first":
            raise OSError("read-only")
        launched.append(folder.name)

    monkeypatch.setattr(scheduler, "_launch", launch)
    looks = {
        Path(name): SimpleNamespace(state="queued", queued=place)
        for place, name in enumerate(("first", "second", "third"))
    }
    assert [str(trouble) for trouble in scheduler._launch_first(looks)] == ["read-only"]
    assert launched == ["second"]


def test_a_new_server_adopts_the_living_process_and_sees_to_its_end(rig):
    first = rig.server()
    id = start_long(rig, first)
    pid = rig.record(id)["pid"]
    rig.crash(first)
    second = rig.server()
    view = second.view(id)
    assert (view.state, rig.record(id)["pid"], view.can_pause) == ("running", pid, True)
    second.pause(id)
    wait_for(second, id, "paused")
    second.resume(id)
    wait_for(second, id, "running")
    rig.crash(second)
    third = rig.server()
    third.stop_and_keep(id)
    assert wait_for(third, id, "stopped").result == "mia"
    assert rig.alive() == []


@pytest.mark.slow
def test_a_process_that_is_nobodys_child_is_steered_too(tmp_path, rig):
    """The servers that started them were in a process of their own, which is really killed."""
    code = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from training_rig import *
process._lower_priority = lambda pid: None
for action, label in {"pause": "deaf", "stop_and_keep": "Mia", "cancel": "deaf"}.items():
    rig = Rig(Path(sys.argv[3], action), Path(sys.argv[4]))
    print(start_long(rig, rig.server(), label=label), flush=True)
time.sleep(60)
"""
    support = ROOT / "tests" / "support"
    arguments = [*map(str, (support, ROOT, tmp_path, rig.library.places[0]))]
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as run:
        ids = [run.stdout.readline().decode().strip() for _ in range(3)]
        run.kill()
    ends = {"pause": "paused", "stop_and_keep": "stopped", "cancel": None}
    for id, (action, state) in zip(ids, ends.items(), strict=True):
        orphan = Rig(tmp_path / action, rig.library.places[0])
        assert orphan.alive() == [id]
        trainings = orphan.server(grace=0.2)
        assert trainings.view(id).state == "running"
        getattr(trainings, action)(id)
        if state is None:
            assert trainings.views() == []
        else:
            wait_for(trainings, id, state)
        assert orphan.alive() == []
        trainings.close()


def test_what_was_killed_while_no_server_ran_is_marked_at_the_start(rig):
    trainings = rig.server()
    ids = [start_long(rig, trainings)]
    os.kill(rig.record(ids[0])["pid"], signal.SIGSTOP)  # so that it cannot end before the server
    rig.crash(trainings)
    os.kill(rig.record(ids[0])["pid"], signal.SIGKILL)
    wait_until(lambda: not rig.alive())
    unstarted = rig.server(start=False)
    # Derived, not yet written. (A process loses its command line before its locks.)
    wait_until(lambda: unstarted.view(ids[0]).state == "paused")
    assert rig.record(ids[0])["state"] == "running"
    again = rig.server()
    assert rig.record(ids[0])["state"] == "paused"
    assert again.view(ids[0]) == unstarted.view(ids[0])


def test_what_finished_while_no_server_ran_is_published_at_the_start(rig):
    trainings = rig.server()
    id = trainings.create(SPEC, rig.pictures)
    wait_until(lambda: rig.record(id)["state"] == "running")
    rig.crash(trainings)
    told = rig.folder(id) / "progress.json"
    wait_until(lambda: told.exists() and json.loads(told.read_text())["state"] == "finished")
    wait_until(lambda: not rig.alive())
    assert rig.server(start=False).view(id).state == "running"  # until its model is there
    server = rig.server()  # a dead process's last thread may hold its lock for a moment more
    wait_until(lambda: server.view(id).result == "mia")


def test_closing_a_server_has_the_process_save_and_leave(rig):
    trainings = rig.server()
    id = start_long(rig, trainings)
    trainings.close()
    assert rig.alive() == []
    record = rig.record(id)
    assert (record["state"], record["message"]) == ("paused", "Interrupted. Press Resume to go on.")
    progress = json.loads((rig.folder(id) / "progress.json").read_text())
    assert progress["state"] == "stopped"
    assert int((rig.folder(id) / "state.txt").read_text()) == progress["images"]


def test_what_a_server_interrupted_goes_on_with_the_next_one(rig):
    first = rig.server()
    id = start_long(rig, first)
    first.close()
    second = rig.server()
    wait_for_more(second, id)
    second.close()
    unstarted = rig.server(start=False)
    unstarted.resume(id)
    unstarted.pause(id)  # now it is the owner who wants it so
    third = rig.server()
    third.scheduler.schedule()
    assert third.view(id).state == "paused"


def test_the_owner_can_pause_what_still_saves_for_a_server_that_ended(rig):
    first = rig.server()
    id = start_long(rig, first, label="deaf")
    first.close()
    assert rig.record(id)["goes_on"]
    heir = rig.server(grace=0.2)
    heir.pause(id)
    assert wait_for(heir, id, "paused").message == "Paused."
    heir.scheduler.schedule()
    assert heir.view(id).state == "paused"


def test_a_server_ends_soon_and_the_next_one_finds_a_training_that_still_saves(rig):
    trainings = rig.server(grace=30.0)
    id = start_long(rig, trainings, label="deaf")
    started = time.monotonic()
    trainings.close()
    assert time.monotonic() - started < 5
    assert rig.alive() == [id]
    heir = rig.server()
    assert heir.view(id).state == "running"
    heir.cancel(id)
    assert rig.alive() == []


def test_one_server_schedules_and_the_others_steer(rig):
    first, second = rig.server(start=False), rig.server(start=False)
    first.scheduler.schedule()
    id = second.create(LONG, rig.pictures)
    second.scheduler.schedule()
    assert first.view(id).state == "queued"
    first.scheduler.schedule()
    assert second.view(id).state == "running"
    second.cancel(id)
    assert first.views() == []


def test_the_queue_is_bounded_in_order_and_a_resumed_training_goes_to_its_end(rig):
    trainings = rig.server(max_waiting=2)
    first = start_long(rig, trainings)
    second, third = (trainings.create(LONG, rig.pictures) for _ in range(2))
    assert [(v.id, v.place) for v in trainings.views()] == [(first, 0), (second, 0), (third, 1)]
    with pytest.raises(ValueError, match="2 trainings are already waiting"):
        trainings.create(LONG, rig.pictures)
    trainings.pause(second)
    trainings.resume(second)
    assert [v.id for v in trainings.views()] == [first, third, second]
    trainings.cancel(first)
    wait_for(trainings, third, "running")
    assert trainings.view(second).state == "queued"
    trainings.pause(second)
    trainings.create(LONG, rig.pictures)
    trainings.create(LONG, rig.pictures)
    with pytest.raises(ValueError, match="2 trainings are already waiting"):
        trainings.resume(second)
    assert trainings.view(second).state == "paused"


def test_the_oldest_finished_trainings_make_room_and_their_models_stay(rig, monkeypatch):
    numbers = itertools.count()  # several of one second are in order too
    monkeypatch.setattr(trainings_module.secrets, "token_hex", lambda _: f"{next(numbers):06x}")
    trainings = rig.server(max_kept=3, max_waiting=9)
    ids = [trainings.create(changed(SPEC, name=f"m{i}"), rig.pictures) for i in range(3)]
    for id in ids:
        wait_for(trainings, id, "done")
    fourth = trainings.create(LONG, rig.pictures)
    assert {view.id for view in trainings.views()} == {*ids[1:], fourth}
    assert trainings.models.names() == ["m0", "m1", "m2"]
    for _ in range(2):
        trainings.create(LONG, rig.pictures)
    with pytest.raises(ValueError, match="There are 3 trainings already"):
        trainings.create(LONG, rig.pictures)
    assert len(trainings.views()) == 3


def test_of_several_servers_and_threads_only_one_process_comes(rig):
    servers = [rig.server() for _ in range(3)]
    barrier = threading.Barrier(6)
    most: list[int] = []

    def press(trainings):
        barrier.wait()
        with suppress(ValueError):  # one too many
            trainings.create(LONG, rig.pictures)

    threads = [threading.Thread(target=press, args=(servers[i % 3],)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(rig.alive()) == 1)
    for _ in range(10):
        most.append(len(rig.alive()))
        time.sleep(0.01)
    assert set(most) == {1}
    states = sorted(view.state for view in servers[2].views())
    assert states == ["queued"] * 4 + ["running"]
    servers[1].close()
    servers[2].close()  # not the one that schedules: the process stays
    assert len(rig.alive()) == 1
    running = servers[0].views()[0].id
    rig.crash(servers[0])
    heir = rig.server()
    heir.cancel(running)
    wait_until(lambda: len(rig.alive()) == 1)
    assert rig.alive() != [running]
