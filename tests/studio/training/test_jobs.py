"""Jobs: no state that is not true, no process that nobody knows, no work that is lost."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from studio_fixtures import save_tiny, wait_until

import studio.training.jobs as finetune_module
from studio.drawing.library import ModelLibrary
from studio.training import job_folder, job_process
from studio.training.jobs import FinetuneJobs, JobSpec, JobView

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = (sys.executable, "-S", str(ROOT / "tests" / "support" / "stand_in_finetune.py"))
SPEC = JobSpec(name="Mia", label="Mia", base="tiny", length="quick")
LONG = dataclasses.replace(SPEC, length="thorough")


class Rig:
    """Servers over one data folder."""

    def __init__(self, data_dir: Path, shipped: Path) -> None:
        self.data_dir = data_dir
        self.library = ModelLibrary([shipped, data_dir / "models"])
        self.servers: list[FinetuneJobs] = []
        self.pictures = []
        for i in range(8):
            self.pictures.append(data_dir.parent / f"squares-{i}.png")
            self.pictures[-1].write_bytes(b"square %d" % i)

    def server(self, *, start: bool = True, **options) -> FinetuneJobs:
        options = {"min_free_bytes": 0, "interval": 0.02, "command": STAND_IN, **options}
        jobs = FinetuneJobs(self.data_dir, self.library, **options)
        self.servers.append(jobs)
        if start:
            jobs.start()
        return jobs

    def crash(self, jobs: FinetuneJobs) -> None:
        """End a server as SIGKILL would: it says no word to its process, and its locks are free."""
        jobs._closing.set()
        jobs._wake.set()
        jobs._thread.join()
        os.close(jobs._leading)
        jobs._leading = None

    def record(self, id: str) -> dict:
        return json.loads((self.data_dir / "jobs" / id / "job.json").read_text())

    def alive(self) -> list[str]:
        """Jobs whose process runs, as the system itself lists processes."""
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
    monkeypatch.setattr(job_process, "_lower_priority", lambda pid: None)  # tests are in a hurry
    rig = Rig(tmp_path / "data", tiny_folder)
    yield rig
    for jobs in rig.servers:
        jobs.grace = 0.0
        jobs.close()
    for place in (tmp_path / "data" / "jobs").glob("*/job.json"):  # whatever a test has left
        values = json.loads(place.read_bytes() or b"{}") if place.stat().st_size > 9 else {}
        if job_process.is_alive(place.parent) and values.get("pid", 0) > 1:
            with suppress(ProcessLookupError):
                os.killpg(values["pid"], signal.SIGKILL)


def wait_for(jobs: FinetuneJobs, id: str, state: str) -> JobView:
    wait_until(lambda: jobs.view(id).state == state, 30)
    return jobs.view(id)


def wait_for_more(jobs: FinetuneJobs, id: str) -> None:
    """Until a job that was resumed has gone further than before."""
    before = jobs.view(id).progress["images"]
    wait_until(lambda: jobs.view(id).progress["images"] > before + 64, 30)
    assert jobs.view(id).state == "running"


def start_long(rig: Rig, jobs: FinetuneJobs, **changes) -> str:
    """A job that runs until it is told otherwise, and has saved something."""
    id = jobs.create(dataclasses.replace(LONG, **changes), rig.pictures)
    wait_until(lambda: jobs.view(id).progress.get("images", 0) > 64, 30)
    return id


# -- from start to end --------------------------------------------------------------------------


def test_a_job_runs_to_its_end_and_its_model_is_in_the_library(rig):
    jobs = rig.server()
    id = jobs.create(SPEC, rig.pictures)
    view = wait_for(jobs, id, "done")
    assert view.message == "The whole budget is spent."
    assert (view.result, view.spec, view.place) == ("mia", SPEC, 0)
    assert rig.library.get("mia").hash == rig.library.get("tiny").hash
    assert [line["images"] for line in view.metrics] == list(range(8, 65, 8))
    assert [path.name for path in view.samples] == ["base.png", "000000032.png", "000000064.png"]
    assert view.steps == [32, 64]
    assert view.log_tail[-1] == "pictures: 8"
    folder = rig.data_dir / "jobs" / id
    assert sorted(p.name for p in (folder / "images").iterdir())[::7] == ["0001.png", "0008.png"]
    assert (view.can_pause, view.can_resume, view.can_stop) == (False, False, False)
    assert jobs.views() == [view]


def test_a_process_has_the_lowest_priority():
    sleep = job_process.start_niced(["sleep", "60"], stdout=None, stderr=None)
    try:
        assert os.getpriority(os.PRIO_PROCESS, sleep.pid) == 19
        autogroup = Path(f"/proc/{sleep.pid}/autogroup")
        if autogroup.exists() and "nice" in autogroup.read_text():
            assert autogroup.read_text().endswith("nice 19\n")
    finally:
        sleep.kill()
        sleep.wait()


def test_the_process_gets_its_options_but_none_of_our_secrets(rig, monkeypatch):
    monkeypatch.setenv("ADMIN_PASSWORD", "correct horse battery")
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    jobs = rig.server()
    spec = {"label": "--out=/tmp/x", "lr": 1e-4, "batch_size": 8, "layers": "deep", "keep": 0.25}
    id = start_long(rig, jobs, **spec)
    pid = rig.record(id)["pid"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    folder = str((rig.data_dir / "jobs" / id).resolve())
    assert words[3:] == [
        "--base", f"{folder}/base/tiny.safetensors", "--data", f"{folder}/images",
        "--out", folder, "--label=--out=/tmp/x", "--length=thorough", "--layers=deep",
        "--keep=0.25", "--lr=0.0001", "--batch-size=8",
    ]  # fmt: skip
    assert os.getsid(pid) == pid
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"correct horse" not in environment
    assert b"hf_token" not in environment


def test_pause_resume_and_stop_and_keep(rig):
    jobs = rig.server()
    id = start_long(rig, jobs)
    assert jobs.view(id).can_pause
    jobs.pause(id)
    jobs.pause(id)
    paused = wait_for(jobs, id, "paused")
    assert (paused.message, paused.result, paused.can_resume) == ("Paused.", "", True)
    assert rig.alive() == []
    time.sleep(0.1)  # nothing starts it again by itself
    assert jobs.view(id) == paused
    jobs.resume(id)
    jobs.resume(id)
    wait_for_more(jobs, id)
    assert rig.alive() == [id]
    with pytest.raises(ValueError, match="Stop or pause"):
        jobs.roll_back(id, 32)
    jobs.stop_and_keep(id)
    stopped = wait_for(jobs, id, "stopped")
    assert (stopped.message, stopped.result) == (
        "Stopped; the model so far is kept.", "mia",
    )  # fmt: skip
    jobs.stop_and_keep(id)
    with pytest.raises(ValueError, match="stopped cannot be paused"):
        jobs.pause(id)
    assert jobs.view(id) == stopped
    seen = [line["images"] for line in stopped.metrics]
    assert seen == sorted(set(seen))


def test_a_stopped_job_can_go_on_and_its_model_is_replaced(rig):
    jobs = rig.server()
    id = start_long(rig, jobs)
    jobs.stop_and_keep(id)
    wait_for(jobs, id, "stopped")
    first = rig.library.paths()["mia"].stat().st_mtime_ns
    rig.servers[0].models.rename("mia", "queen")
    assert jobs.view(id).result == "queen"
    jobs.resume(id)
    wait_for_more(jobs, id)
    jobs.stop_and_keep(id)
    assert wait_for(jobs, id, "stopped").result == "queen"
    assert jobs.models.names() == ["queen"]
    assert rig.library.paths()["queen"].stat().st_mtime_ns != first


def test_a_paused_job_can_be_kept_and_a_bare_one_cannot(rig):
    jobs = rig.server()
    id = start_long(rig, jobs)
    jobs.pause(id)
    wait_for(jobs, id, "paused")
    jobs.stop_and_keep(id)
    assert (jobs.view(id).state, jobs.view(id).result) == ("stopped", "mia")
    bare = start_long(rig, jobs, label="bare")
    jobs.pause(bare)
    assert not wait_for(jobs, bare, "paused").can_stop
    with pytest.raises(ValueError, match="no model to keep yet"):
        jobs.stop_and_keep(bare)
    jobs.resume(bare)
    wait_for(jobs, bare, "running")
    jobs.stop_and_keep(bare)
    view = wait_for(jobs, bare, "stopped")
    assert (view.message, view.result) == ("Stopped before there was a model to keep.", "")


def test_rolling_back_publishes_an_earlier_state_in_place_of_the_model(rig):
    jobs = rig.server()
    id = jobs.create(SPEC, rig.pictures)
    wait_for(jobs, id, "done")
    save_tiny(rig.data_dir / "jobs" / id / "steps" / "000000032.safetensors", seed=7)
    before = rig.library.get("mia").hash
    assert jobs.roll_back(id, 32) == "mia"
    view = jobs.view(id)
    assert (view.state, view.result) == ("done", "mia")
    assert view.message == "Rolled back to the state after 32 images."
    assert jobs.models.names() == ["mia"]
    assert rig.library.get("mia").hash != before
    jobs.models.delete("mia")
    assert jobs.view(id).result == ""
    assert jobs.roll_back(id, 64) == "mia"
    for images in (33, -1, "32", None, "../000000032"):
        with pytest.raises(ValueError, match="is not kept"):
            jobs.roll_back(id, images)


def test_another_jobs_model_of_the_same_name_is_never_replaced(rig):
    jobs = rig.server()
    first = jobs.create(SPEC, rig.pictures)
    wait_for(jobs, first, "done")
    second = jobs.create(SPEC, rig.pictures)
    assert wait_for(jobs, second, "done").result == "mia-2"
    jobs.models.delete("mia")
    jobs.models.rename("mia-2", "mia")
    assert (jobs.view(first).result, jobs.view(second).result) == ("", "mia")
    assert jobs.roll_back(first, 32) == "mia-2"


# -- how it can go wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "message"),
    [("error", "The pictures are no cats."), ("say", "The loss stopped being a number."),
     ("traceback", "The training failed: RuntimeError: a bug"),
     ("broken", "The model could not be added to the library: .* not a whole safetensors .*")],
)  # fmt: skip
def test_a_failure_is_told_in_a_sentence_and_publishes_nothing(rig, label, message):
    jobs = rig.server()
    id = jobs.create(dataclasses.replace(SPEC, label=label), rig.pictures)
    view = wait_for(jobs, id, "failed")
    assert re.fullmatch(message, view.message)
    assert view.can_resume
    assert view.result == ""
    assert rig.library.names == ["tiny"]
    after = jobs.create(SPEC, rig.pictures)  # the queue goes on
    wait_for(jobs, after, "done")
    jobs.resume(id)
    wait_until(lambda: "started" in " ".join(jobs.view(id).log_tail[-2:]))
    wait_for(jobs, id, "failed")


def test_a_killed_process_is_interrupted_and_goes_on_from_what_it_saved(rig):
    jobs = rig.server()
    id = start_long(rig, jobs)
    os.kill(rig.record(id)["pid"], signal.SIGKILL)
    view = wait_for(jobs, id, "paused")
    assert view.message == "Interrupted; resume it to go on."
    assert jobs.models.names() == []
    jobs.resume(id)
    wait_for_more(jobs, id)
    seen = [line["images"] for line in jobs.view(id).metrics]
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("label", ["say", "error"])
def test_an_old_error_is_not_taken_for_the_end_of_a_later_start(rig, label):
    jobs = rig.server()
    id = jobs.create(dataclasses.replace(LONG, label=label), rig.pictures)
    wait_until(lambda: rig.record(id)["state"] == "failed")
    job = rig.data_dir / "jobs" / id / "job.json"
    job.write_text(job.read_text().replace(f'"{label}"', '"dies at once"'))
    jobs.resume(id)
    assert wait_for(jobs, id, "paused").message.startswith("Interrupted")


def test_a_process_that_does_not_listen_is_ended_by_force(rig):
    jobs = rig.server(grace=0.2)
    id = start_long(rig, jobs, label="deaf")
    jobs.pause(id)
    assert jobs.view(id).message == "Pausing."
    assert wait_for(jobs, id, "paused").message == "Paused."
    jobs.resume(id)
    wait_for(jobs, id, "running")
    jobs.stop_and_keep(id)
    assert wait_for(jobs, id, "stopped").result == "mia"


def test_only_one_signal_is_sent_since_a_second_is_final(rig, monkeypatch):
    sent: list[int] = []
    jobs = rig.server()
    id = start_long(rig, jobs, label="deaf")
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number) or kill(pid, number))
    jobs.pause(id)
    jobs.pause(id)
    jobs.stop_and_keep(id)
    with pytest.raises(ValueError, match="ending already"):
        jobs.pause(id)
    with pytest.raises(ValueError, match="not ended yet"):
        jobs.resume(id)
    assert jobs.view(id).message == "Stopping."
    assert sent == [signal.SIGTERM]


def test_cancel_leaves_nothing_in_any_state(rig):
    jobs = rig.server()
    running = start_long(rig, jobs, label="deaf")
    queued = jobs.create(LONG, rig.pictures)
    paused = jobs.create(LONG, rig.pictures)
    jobs.pause(paused)
    assert {v.id: v.state for v in jobs.views()} == {
        running: "running", queued: "queued", paused: "paused",
    }  # fmt: skip
    for id in (queued, paused, running, running):
        jobs.cancel(id)
    assert jobs.views() == []
    assert rig.alive() == []
    assert [p.name for p in jobs.folder.iterdir() if not p.name.startswith(".s")] == [".lock"]
    done = jobs.create(SPEC, rig.pictures)
    wait_for(jobs, done, "done")
    jobs.cancel(done)
    assert jobs.views() == []
    assert jobs.models.names() == ["mia"]


# -- servers that come and go -------------------------------------------------------------------


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


def test_a_process_that_is_nobodys_child_is_steered_too(tmp_path, rig):
    """The servers that started them were in a process of their own, which is really killed."""
    code = """
import sys, time
sys.path[:0] = sys.argv[1:4]
from test_jobs import *
job_process._lower_priority = lambda pid: None
for action, label in {"pause": "deaf", "stop_and_keep": "Mia", "cancel": "deaf"}.items():
    rig = Rig(Path(sys.argv[4], action), Path(sys.argv[5]))
    print(start_long(rig, rig.server(), label=label), flush=True)
time.sleep(60)
"""
    here, support = Path(__file__).parent, ROOT / "tests" / "support"
    arguments = [*map(str, (here, support, ROOT, tmp_path, rig.library.places[0]))]
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as run:
        ids = [run.stdout.readline().decode().strip() for _ in range(3)]
        run.kill()
    ends = {"pause": "paused", "stop_and_keep": "stopped", "cancel": None}
    for id, (action, state) in zip(ids, ends.items(), strict=True):
        orphan = Rig(tmp_path / action, rig.library.places[0])
        assert orphan.alive() == [id]
        jobs = orphan.server(grace=0.2)
        assert jobs.view(id).state == "running"
        getattr(jobs, action)(id)
        if state is None:
            assert jobs.views() == []
        else:
            wait_for(jobs, id, state)
        assert orphan.alive() == []
        jobs.close()


def test_what_was_killed_while_no_server_ran_is_marked_at_the_start(rig):
    jobs = rig.server()
    ids = [start_long(rig, jobs)]
    os.kill(rig.record(ids[0])["pid"], signal.SIGSTOP)  # so that it cannot end before the server
    rig.crash(jobs)
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
    jobs = rig.server()
    id = jobs.create(dataclasses.replace(SPEC, length="quick"), rig.pictures)
    wait_until(lambda: rig.record(id)["state"] == "running")
    rig.crash(jobs)
    told = rig.data_dir / "jobs" / id / "progress.json"
    wait_until(lambda: told.exists() and json.loads(told.read_text())["state"] == "finished")
    wait_until(lambda: not rig.alive())
    assert rig.server(start=False).view(id).state == "running"  # until its model is there
    assert rig.server().view(id).result == "mia"


def test_another_process_with_its_number_is_not_taken_for_it(rig):
    jobs = rig.server()
    id = start_long(rig, jobs)
    rig.crash(jobs)
    os.kill(rig.record(id)["pid"], signal.SIGKILL)
    wait_until(lambda: not rig.alive())
    with subprocess.Popen(["sleep", "9"], start_new_session=True) as stranger:
        job = rig.data_dir / "jobs" / id / "job.json"
        job.write_text(json.dumps({**rig.record(id), "pid": stranger.pid}))
        jobs = rig.server()
        assert jobs.view(id).state == "paused"
        # Even where the lock is held, so that ours lives somewhere, the stranger is left alone.
        job.write_text(json.dumps({**rig.record(id), "state": "running"}))
        lock = finetune_module.try_hold(job.with_name(job_process.LOCK_NAME))
        for action in (jobs.pause, jobs.stop_and_keep, jobs.cancel):
            with pytest.raises(ValueError, match="cannot reach"):
                action(id)
            assert rig.record(id)["wanted"] == ""
        os.close(lock)
        assert stranger.poll() is None
        stranger.kill()


def test_closing_a_server_has_the_process_save_and_leave(rig):
    jobs = rig.server()
    id = start_long(rig, jobs)
    jobs.close()
    assert rig.alive() == []
    record = rig.record(id)
    assert (record["state"], record["message"]) == ("paused", "Interrupted; resume it to go on.")
    progress = json.loads((rig.data_dir / "jobs" / id / "progress.json").read_text())
    assert progress["state"] == "stopped"
    assert int((rig.data_dir / "jobs" / id / "state.txt").read_text()) == progress["images"]


def test_one_server_schedules_and_the_others_steer(rig):
    first, second = rig.server(start=False), rig.server(start=False)
    first._schedule()
    id = second.create(LONG, rig.pictures)
    second._schedule()
    assert first.view(id).state == "queued"
    first._schedule()
    assert second.view(id).state == "running"
    second.cancel(id)
    assert first.views() == []


def test_of_several_servers_and_threads_only_one_process_comes(rig):
    servers = [rig.server() for _ in range(3)]
    barrier = threading.Barrier(6)
    most: list[int] = []

    def press(jobs):
        barrier.wait()
        with suppress(ValueError):  # one too many
            jobs.create(LONG, rig.pictures)

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


# -- the queue ----------------------------------------------------------------------------------


def test_the_queue_is_bounded_in_order_and_a_resumed_job_goes_to_its_end(rig):
    jobs = rig.server(max_waiting=2)
    first = start_long(rig, jobs)
    second, third = (jobs.create(LONG, rig.pictures) for _ in range(2))
    assert [(v.id, v.place) for v in jobs.views()] == [(first, 0), (second, 0), (third, 1)]
    with pytest.raises(ValueError, match="2 jobs wait already"):
        jobs.create(LONG, rig.pictures)
    jobs.pause(second)
    jobs.resume(second)
    assert [v.id for v in jobs.views()] == [first, third, second]
    jobs.cancel(first)
    wait_for(jobs, third, "running")
    assert jobs.view(second).state == "queued"
    jobs.pause(second)
    jobs.create(LONG, rig.pictures)
    jobs.create(LONG, rig.pictures)
    with pytest.raises(ValueError, match="2 jobs wait already"):
        jobs.resume(second)
    assert jobs.view(second).state == "paused"


def test_the_oldest_finished_jobs_make_room_and_their_models_stay(rig, monkeypatch):
    numbers = itertools.count()  # several of one second are in order too
    monkeypatch.setattr(finetune_module.secrets, "token_hex", lambda _: f"{next(numbers):06x}")
    jobs = rig.server(max_kept=3, max_waiting=9)
    ids = [jobs.create(dataclasses.replace(SPEC, name=f"m{i}"), rig.pictures) for i in range(3)]
    for id in ids:
        wait_for(jobs, id, "done")
    fourth = jobs.create(LONG, rig.pictures)
    assert {view.id for view in jobs.views()} == {*ids[1:], fourth}
    assert jobs.models.names() == ["m0", "m1", "m2"]
    for _ in range(2):
        jobs.create(LONG, rig.pictures)
    with pytest.raises(ValueError, match="3 jobs are kept here"):
        jobs.create(LONG, rig.pictures)
    assert len(jobs.views()) == 3


def test_a_training_whose_model_was_never_published_makes_no_room(rig, monkeypatch):
    jobs = rig.server(max_kept=3)
    id = jobs.create(SPEC, rig.pictures)
    wait_for(jobs, id, "done")
    (folder,) = jobs._finished()
    look = jobs._look
    failed = lambda folder: dataclasses.replace(look(folder), state="failed")  # noqa: E731
    monkeypatch.setattr(jobs, "_look", failed)
    assert jobs._finished() == []
    job_folder.weights_path(folder).unlink()
    assert jobs._finished() == [folder]


# -- what people and disks do -------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"name": ""}, {"name": "x" * 200}, {"name": None}, {"name": "🐱"}, {"label": ""},
     {"label": "x" * 41}, {"label": "a\nb"}, {"label": " Mia"}, {"label": 7}, {"base": None},
     {"length": "long"}, {"length": None}, {"layers": "--out"}, {"layers": ["all"]}, {"lr": 0},
     {"lr": float("nan")}, {"lr": "1e-4"}, {"lr": True}, {"batch_size": 0}, {"batch_size": 1.5},
     {"batch_size": 1e9}, {"batch_size": "8"}, {"keep": -0.1}, {"keep": 0.8}, {"keep": None},
     {"keep": float("inf")}],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_a_sentence(changes):
    with pytest.raises(ValueError, match=r"\.$"):
        dataclasses.replace(SPEC, **changes)


def test_names_in_any_script_become_safe_files(rig):
    jobs = rig.server()
    for name, result in {
        "../x": "x",
        "CON": "con-cat",
        "三毛猫": "三毛猫",
        "tiny": "tiny-2",
    }.items():
        id = jobs.create(dataclasses.replace(SPEC, name=name), rig.pictures)
        assert wait_for(jobs, id, "done").result == result
    assert {path.parent for path in rig.library.paths().values()} == {
        rig.library.places[0], rig.data_dir / "models",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "pictures", "sentence"),
    [({"base": "lion"}, 8, "There is no model 'lion'"), ({"base": "../tiny"}, 8, "is no model"),
     ({"label": "tabby"}, 8, "knows the label 'tabby' already"), ({}, 7, "Between 8 and 2,000"),
     ({}, 2001, "not 2,001")],
)  # fmt: skip
def test_a_job_that_cannot_be_is_refused_and_leaves_nothing(rig, changes, pictures, sentence):
    jobs = rig.server(start=False)
    with pytest.raises(ValueError, match=sentence):
        jobs.create(dataclasses.replace(SPEC, **changes), (rig.pictures * 300)[:pictures])
    assert not rig.data_dir.exists()


def test_an_empty_base_is_the_default_of_now(rig):
    jobs = rig.server(start=False)
    id = jobs.create(dataclasses.replace(SPEC, base=""), rig.pictures)
    assert jobs.view(id).spec.base == "tiny"


def test_a_job_outlives_its_base_model(rig):
    jobs = rig.server()
    save_tiny(rig.data_dir / "models" / "base.safetensors", seed=4)
    id = start_long(rig, jobs, base="base")
    jobs.pause(id)
    wait_for(jobs, id, "paused")
    jobs.models.delete("base")
    jobs.resume(id)
    wait_for(jobs, id, "running")
    jobs.stop_and_keep(id)
    assert wait_for(jobs, id, "stopped").result == "mia"


def test_on_zero_gpu_a_job_is_refused(rig, monkeypatch):
    jobs = rig.server(start=False)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    with pytest.raises(ValueError, match="cannot run here: on ZeroGPU"):
        jobs.create(SPEC, rig.pictures)
    assert jobs.estimates("tiny") == {}
    assert jobs.views() == []


@pytest.mark.parametrize("id", ["", "..", "../..", "x", None, 7, "20260101-000000-abcdef"])
def test_only_ids_of_jobs(rig, id):
    jobs = rig.server(start=False)
    for action in (jobs.view, jobs.pause, jobs.resume, jobs.stop_and_keep):
        with pytest.raises(ValueError, match=r"no such job|not there any more"):
            action(id)
    if id != "20260101-000000-abcdef":
        with pytest.raises(ValueError, match="no such job"):
            jobs.cancel(id)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"spec": {}}', b"[" * 100_000, None, "state", "pid"]
)
def test_a_damaged_record_is_shown_as_failed_and_breaks_nothing(rig, damage):
    jobs = rig.server(start=False)
    id = jobs.create(SPEC, rig.pictures)
    job = jobs.folder / id / "job.json"
    if damage is None:
        job.unlink()
    elif isinstance(damage, str):
        job.write_text(json.dumps({**rig.record(id), damage: "nonsense"}))
    else:
        job.write_bytes(damage)
    other = jobs.create(SPEC, rig.pictures)
    (jobs.folder / "notes.txt").write_text("a stray file")
    (jobs.folder / "lost+found").mkdir()
    jobs.start()
    wait_for(jobs, other, "done")
    view = jobs.view(id)
    assert (view.state, view.can_resume, view.can_pause, view.can_stop) == (
        "failed", False, False, False,
    )  # fmt: skip
    assert "damaged" in view.message
    with pytest.raises(ValueError, match="damaged"):
        jobs.resume(id)
    jobs.cancel(id)
    assert [view.id for view in jobs.views()] == [other]


def test_half_written_and_strange_files_of_the_process_do_no_harm(rig):
    jobs = rig.server(start=False)
    id = jobs.create(SPEC, rig.pictures)
    folder = jobs.folder / id
    lines = ['{"images": 8, "loss": NaN}', "7", '"x"', "", '{"images": 8}', "{",
             '{"images": 16, "loss": 1.5}', '{"images": 24, "lo']  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "progress.json").write_text("[1")
    bar = b"Caf\xc3\xa9\n  1%|#\r  2%|##\r\n\x1b[31mred\n" + b"x" * 5000
    (folder / "log.txt").write_bytes(b"old\n" * 9000 + bar)
    for name in ("samples/000000008.png", "samples/.000000009-ab.png", "samples/x.png",
                 "steps/.000000008-ab.safetensors", "steps/000000016.safetensors"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    view = jobs.view(id)
    assert view.metrics == [{"images": 8, "loss": None}, {"images": 16, "loss": 1.5}]
    assert view.progress == {}
    assert view.log_tail[-4:] == ["Café", "2%|##", "[31mred", "x" * 300]
    assert len(view.log_tail) == 12
    assert [path.name for path in view.samples] == ["000000008.png"]
    assert view.steps == [16]


def test_a_view_reads_only_what_has_changed(rig, monkeypatch):
    jobs = rig.server(start=False)
    id = jobs.create(SPEC, rig.pictures)
    folder = jobs.folder / id
    (folder / "metrics.jsonl").write_text('{"images": 8}\n')
    opened: list[str] = []
    open_path = Path.open
    jobs.views()
    monkeypatch.setattr(
        Path, "open", lambda path, *a, **k: opened.append(path.name) or open_path(path, *a, **k)
    )
    jobs.views()
    assert opened == []
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"images": 16}\n')
    opened.clear()
    assert len(jobs.view(id).metrics) == 2
    assert opened == ["metrics.jsonl"]


def test_only_the_end_of_long_metrics_is_read(rig):
    jobs = rig.server(start=False)
    id = jobs.create(SPEC, rig.pictures)
    lines = "".join(f'{{"images": {i}, "more": "{"x" * 80}"}}\n' for i in range(20_000))
    (jobs.folder / id / "metrics.jsonl").write_text(lines)
    metrics = jobs.view(id).metrics
    assert 5_000 < len(metrics) < 11_000
    assert metrics[-1]["images"] == 19_999


def test_a_running_job_without_news_says_so(rig, monkeypatch):
    jobs = rig.server()
    id = start_long(rig, jobs)
    assert jobs.view(id).message == "On its way."
    os.kill(rig.record(id)["pid"], signal.SIGSTOP)
    monkeypatch.setattr(finetune_module, "QUIET_SECONDS", -1.0)
    assert jobs.view(id).message.startswith("No news from the training for")


def test_too_little_room_is_a_sentence_at_creation_and_at_the_start(rig):
    jobs = rig.server(start=False)
    id = jobs.create(SPEC, rig.pictures)
    jobs.min_free_bytes = 10**18
    with pytest.raises(ValueError, match="GB are free"):
        jobs.create(SPEC, rig.pictures)
    assert len(jobs.views()) == 1
    jobs.start()
    view = wait_for(jobs, id, "paused")
    assert "GB are free" in view.message
    with pytest.raises(ValueError, match="GB are free"):
        jobs.resume(id)
    jobs.min_free_bytes = 0
    jobs.resume(id)
    wait_for(jobs, id, "done")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written to"),
     (errno.EACCES, "cannot be written to"), (errno.EIO, "cannot be used: ")],
)  # fmt: skip
def test_a_disk_that_refuses_is_a_sentence_and_changes_nothing(rig, monkeypatch, number, sentence):
    jobs = rig.server(start=False)
    id = jobs.create(SPEC, rig.pictures)
    before = jobs.views()

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(ValueError, match=sentence):
        jobs.create(SPEC, rig.pictures)
    monkeypatch.setattr(finetune_module, "write_record", refuse)
    with pytest.raises(ValueError, match=sentence):
        jobs.pause(id)
    assert jobs.views() == before
    assert len([p for p in jobs.folder.iterdir() if p.is_dir()]) == 1
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=sentence):
        jobs.cancel(id)


def test_a_data_folder_that_cannot_be_made_is_a_sentence_and_start_does_not_raise(rig, capsys):
    rig.data_dir.write_text("a file where the folder should be")
    jobs = rig.server()
    assert jobs.views() == []
    with pytest.raises(ValueError, match="data folder"):
        jobs.create(SPEC, rig.pictures)
    time.sleep(0.1)
    assert capsys.readouterr().err.count("data folder") == 1  # said once, not at every look
    rig.data_dir.unlink()
    wait_for(jobs, jobs.create(SPEC, rig.pictures), "done")


def test_a_model_that_cannot_be_copied_fails_the_job_and_can_be_kept_later(rig, monkeypatch):
    jobs = rig.server()
    id = start_long(rig, jobs)
    copy = shutil.copyfile

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(shutil, "copyfile", refuse)
    jobs.stop_and_keep(id)
    assert "disk is full" in wait_for(jobs, id, "failed").message
    assert rig.library.names == ["tiny"]
    monkeypatch.setattr(shutil, "copyfile", copy)
    jobs.stop_and_keep(id)
    assert (jobs.view(id).state, jobs.view(id).result) == ("stopped", "mia")


def test_a_model_is_published_once_though_that_could_not_be_written_down(rig, monkeypatch):
    jobs = rig.server(start=False)
    id = jobs.create(SPEC, rig.pictures)
    jobs._schedule()
    wait_until(lambda: not job_process.is_alive(jobs.folder / id))
    write, failures = finetune_module.write_record, [1, 1]

    def fail_twice(folder, record):
        if failures:
            failures.pop()
            raise OSError(errno.ENOSPC, "no")
        write(folder, record)

    monkeypatch.setattr(finetune_module, "write_record", fail_twice)
    jobs.start()
    assert wait_for(jobs, id, "done").result == "mia"
    assert not failures
    assert jobs.models.names() == ["mia"]


def test_a_server_that_died_while_making_or_deleting_a_job_leaves_nothing(rig):
    jobs = rig.server(start=False)
    id = jobs.create(LONG, rig.pictures)
    for name in (f".new-{id}", f".gone-{id}"):
        (jobs.folder / name / "images").mkdir(parents=True)
    assert len(jobs.views()) == 1
    jobs.start()
    assert not list(jobs.folder.glob(".[ng]*-*"))


# -- estimates ----------------------------------------------------------------------------------


def test_the_speed_is_measured_once_per_base_model_and_remembered(rig):
    jobs = rig.server(start=False)
    assert jobs.estimates("tiny") is None
    wait_until(lambda: jobs.estimates("tiny") is not None)
    expected = {"images_per_second": 40.0, "quick": 1.5, "balanced": 4.0, "thorough": 10.0}
    assert jobs.estimates("tiny") == jobs.estimates("") == expected
    wait_until((rig.data_dir / "speed.json").exists)
    hash = rig.library.get("tiny").hash
    assert json.loads((rig.data_dir / "speed.json").read_text()) == {hash: expected}
    assert rig.server(start=False, command=["false"]).estimates("tiny") == expected
    with pytest.raises(ValueError, match="There is no model"):
        jobs.estimates("lion")


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 7}', "\0"])
def test_a_damaged_speed_file_is_measured_anew(rig, content):
    rig.data_dir.mkdir()
    (rig.data_dir / "speed.json").write_text(content)
    jobs = rig.server(start=False)
    assert jobs.estimates("tiny") is None
    wait_until(lambda: jobs.estimates("tiny") is not None)


def test_what_cannot_be_measured_is_said_and_not_tried_again_and_again(rig, monkeypatch):
    monkeypatch.setenv("STAND_IN_ESTIMATE", "broken")
    jobs = rig.server(start=False)
    wait_until(lambda: jobs.estimates("tiny") == {})
    missing = rig.server(start=False, command=["/nowhere/python"])
    assert missing.estimates("tiny") is None
    assert missing.estimates("tiny") == {}


def test_a_measurement_gives_way_to_a_training_and_none_begins_beside_one(rig, monkeypatch):
    monkeypatch.setenv("STAND_IN_ESTIMATE", "slow")
    jobs = rig.server()
    assert jobs.estimates("tiny") is None
    measuring = jobs._estimates._measuring
    id = start_long(rig, jobs)
    assert measuring.wait(5) == -signal.SIGKILL
    wait_until(lambda: jobs._estimates._measuring is None)
    assert jobs.estimates("tiny") is None
    assert jobs._estimates._measuring is None
    jobs.cancel(id)
    assert jobs.estimates("tiny") is None
    assert jobs._estimates._measuring is not None
