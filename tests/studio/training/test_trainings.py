"""Trainings: no state that is not true, no process that nobody knows, no work that is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import replace

import pytest
from studio_fixtures import save_tiny, wait_until
from training_rig import (
    LONG,
    SPEC,
    call_by_hand,
    changed,
    start_long,
    wait_for,
    wait_for_more,
)

from diffusion.config import LENGTHS
from diffusion.training.run_folder import RunProgress, weights_path
from studio.drawing.library import model_hash
from studio.training import views
from studio.training.training_folder import base_path, write_record


def test_a_training_runs_to_its_end_and_its_model_is_in_the_library(rig):
    trainings = rig.server()
    id = trainings.create(SPEC, rig.pictures)
    view = wait_for(trainings, id, "done")
    assert view.message == "The whole budget is spent."
    assert (view.result, view.spec, view.place) == ("mia", SPEC, 0)
    assert rig.library.get("mia").hash == model_hash(weights_path(rig.folder(id)))
    assert [line.images for line in view.metrics] == list(range(8, 65, 8))
    assert [path.name for path in view.samples] == ["base.png", "000000032.png", "000000064.png"]
    assert view.steps == [32, 64]
    assert view.log_tail[-1] == "pictures: 8"
    folder = rig.folder(id)
    assert sorted(p.name for p in (folder / "images").iterdir())[::7] == ["0001.png", "0008.png"]
    assert (view.can_pause, view.can_resume, view.can_stop) == (False, False, False)
    assert trainings.views() == [view]


def test_pause_resume_and_stop_and_keep(rig):
    trainings = rig.server()
    id = start_long(rig, trainings)
    assert trainings.view(id).can_pause
    trainings.pause(id)
    trainings.pause(id)
    paused = wait_for(trainings, id, "paused")
    assert (paused.message, paused.result, paused.can_resume) == ("Paused.", "", True)
    assert rig.alive() == []
    time.sleep(0.1)  # nothing starts it again by itself
    assert trainings.view(id) == paused
    trainings.resume(id)
    trainings.resume(id)
    wait_for_more(trainings, id)
    assert rig.alive() == [id]
    with pytest.raises(ValueError, match="Stop or pause"):
        trainings.roll_back(id, 32)
    trainings.stop_and_keep(id)
    stopped = wait_for(trainings, id, "stopped")
    assert (stopped.message, stopped.result) == (
        "Stopped; the model so far is kept.", "mia",
    )  # fmt: skip
    trainings.stop_and_keep(id)
    with pytest.raises(ValueError, match="stopped cannot be paused"):
        trainings.pause(id)
    assert trainings.view(id) == stopped
    seen = [line.images for line in stopped.metrics]
    assert seen == sorted(set(seen))


def test_a_stopped_training_can_go_on_and_its_model_is_replaced(rig):
    trainings = rig.server()
    id = start_long(rig, trainings)
    trainings.stop_and_keep(id)
    wait_for(trainings, id, "stopped")
    first = rig.library.paths()["mia"].stat().st_mtime_ns
    call_by_hand(trainings, "mia", "queen")
    assert trainings.view(id).result == "queen"
    trainings.resume(id)
    wait_for_more(trainings, id)
    trainings.stop_and_keep(id)
    assert wait_for(trainings, id, "stopped").result == "queen"
    assert trainings.models.names() == ["queen"]
    assert rig.library.paths()["queen"].stat().st_mtime_ns != first


def test_a_finished_training_goes_on_with_twice_its_budget(rig):
    trainings = rig.server()
    id = trainings.create(SPEC, rig.pictures)
    done = wait_for(trainings, id, "done")
    assert done.can_go_on
    before = rig.library.get("mia").hash
    record = trainings.records.read(rig.folder(id))  # as a server leaves it that ended meanwhile
    write_record(rig.folder(id), replace(record, goes_on=True))
    trainings.teach_longer(id)
    assert not trainings.records.read(rig.folder(id)).goes_on
    with pytest.raises(ValueError, match="Only a finished training"):
        trainings.teach_longer(id)
    wait_for_more(trainings, id)
    view = trainings.view(id)
    assert view.spec.config.images == 2 * SPEC.config.images
    assert not view.can_go_on
    trainings.stop_and_keep(id)
    assert wait_for(trainings, id, "stopped").result == "mia"
    assert rig.library.get("mia").hash != before
    assert trainings.models.cards()[0].photos == len(rig.pictures)


def test_a_training_keeps_its_base_when_another_file_is_copied_over_it(rig):
    trainings = rig.server()
    id = start_long(rig, trainings)
    own = base_path(rig.folder(id))
    before = own.read_bytes()
    path = rig.library.paths()[trainings.view(id).spec.base]
    try:
        path.write_bytes(b"another")  # as cp does
        assert own.read_bytes() == before
    finally:
        path.write_bytes(before)


def test_a_training_that_has_learned_all_does_not_offer_to_go_on(rig):
    trainings = rig.server()
    id = trainings.create(SPEC, rig.pictures)
    wait_for(trainings, id, "done")
    path = rig.folder(id) / "progress.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "best_images": told["images"] - 8}))
    assert not trainings.view(id).can_go_on


def test_a_paused_training_can_be_kept_and_a_bare_one_cannot(rig):
    trainings = rig.server()
    id = start_long(rig, trainings)
    trainings.pause(id)
    wait_for(trainings, id, "paused")
    trainings.stop_and_keep(id)
    assert (trainings.view(id).state, trainings.view(id).result) == ("stopped", "mia")
    bare = start_long(rig, trainings, label="bare")
    trainings.pause(bare)
    assert not wait_for(trainings, bare, "paused").can_stop
    with pytest.raises(ValueError, match="no model to keep yet"):
        trainings.stop_and_keep(bare)
    trainings.resume(bare)
    wait_for(trainings, bare, "running")
    trainings.stop_and_keep(bare)
    view = wait_for(trainings, bare, "stopped")
    assert (view.message, view.result) == ("Stopped before there was a model to keep.", "")


@pytest.mark.parametrize(
    ("label", "message"),
    [("error", "The pictures are no cats."), ("say", "The loss stopped being a number."),
     ("traceback", "The training failed: RuntimeError: a bug"),
     ("broken", "The model could not be added to the library: .* not a complete safetensors .*")],
)  # fmt: skip
def test_a_failure_is_told_in_a_sentence_and_publishes_nothing(rig, label, message):
    trainings = rig.server()
    id = trainings.create(changed(SPEC, label=label), rig.pictures)
    view = wait_for(trainings, id, "failed")
    assert re.fullmatch(message, view.message)
    assert view.can_resume
    assert view.result == ""
    assert rig.library.names == ["tiny"]
    after = trainings.create(SPEC, rig.pictures)  # the queue goes on
    wait_for(trainings, after, "done")
    trainings.resume(id)
    wait_until(lambda: "started" in " ".join(trainings.view(id).log_tail[-2:]))
    wait_for(trainings, id, "failed")


def test_a_killed_process_is_interrupted_and_goes_on_from_what_it_saved(rig):
    trainings = rig.server()
    id = start_long(rig, trainings)
    os.kill(rig.record(id)["pid"], signal.SIGKILL)
    view = wait_for(trainings, id, "paused")
    assert view.message == "Interrupted. Press Resume to go on."
    assert trainings.models.names() == []
    trainings.resume(id)
    wait_for_more(trainings, id)
    seen = [line.images for line in trainings.view(id).metrics]
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("label", ["say", "error"])
def test_an_old_error_is_not_taken_for_the_end_of_a_later_start(rig, label):
    trainings = rig.server()
    id = trainings.create(changed(LONG, label=label), rig.pictures)
    wait_until(lambda: rig.record(id)["state"] == "failed")
    record = rig.folder(id) / "job.json"
    record.write_text(record.read_text().replace(f'"{label}"', '"dies at once"'))
    trainings.resume(id)
    assert wait_for(trainings, id, "paused").message.startswith("Interrupted")


def test_a_process_that_does_not_listen_is_ended_by_force(rig):
    trainings = rig.server(grace=0.2)
    id = start_long(rig, trainings, label="deaf")
    trainings.pause(id)
    assert trainings.view(id).message == "Pausing."
    assert wait_for(trainings, id, "paused").message == "Paused."
    trainings.resume(id)
    wait_for(trainings, id, "running")
    trainings.stop_and_keep(id)
    assert wait_for(trainings, id, "stopped").result == "mia"


def test_only_one_signal_is_sent_since_a_second_is_final(rig, monkeypatch):
    sent: list[int] = []
    trainings = rig.server()
    id = start_long(rig, trainings, label="deaf")
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number) or kill(pid, number))
    trainings.pause(id)
    trainings.pause(id)
    trainings.stop_and_keep(id)
    with pytest.raises(ValueError, match="already ending"):
        trainings.pause(id)
    with pytest.raises(ValueError, match="still ending"):
        trainings.resume(id)
    assert trainings.view(id).message == "Stopping."
    assert sent == [signal.SIGTERM]


def test_cancel_leaves_nothing_in_any_state(rig):
    trainings = rig.server()
    running = start_long(rig, trainings, label="deaf")
    queued = trainings.create(LONG, rig.pictures)
    paused = trainings.create(LONG, rig.pictures)
    trainings.pause(paused)
    assert {v.id: v.state for v in trainings.views()} == {
        running: "running", queued: "queued", paused: "paused",
    }  # fmt: skip
    for id in (queued, paused, running, running):
        trainings.cancel(id)
    assert trainings.views() == []
    assert rig.alive() == []
    assert [p.name for p in trainings.records.folder.iterdir() if not p.name.startswith(".s")] == [
        ".lock"
    ]
    done = trainings.create(SPEC, rig.pictures)
    wait_for(trainings, done, "done")
    trainings.cancel(done)
    assert trainings.views() == []
    assert trainings.models.names() == ["mia"]


@pytest.mark.parametrize(
    ("changes", "pictures", "sentence"),
    [({"base": "lion"}, 8, "There is no model 'lion'"), ({"base": "../tiny"}, 8, "is no model"),
     ({"label": "tabby"}, 8, "already has a label 'tabby'"),
     ({}, 7, "needs 8 to 2,000 pictures, not 7"),
     ({}, 2001, "not 2,001")],
)  # fmt: skip
def test_a_training_that_cannot_be_is_refused_and_leaves_nothing(rig, changes, pictures, sentence):
    trainings = rig.server(start=False)
    with pytest.raises(ValueError, match=sentence):
        trainings.create(changed(SPEC, **changes), (rig.pictures * 300)[:pictures])
    assert not rig.data_dir.exists()


def test_an_empty_base_is_the_default_of_now(rig):
    trainings = rig.server(start=False)
    id = trainings.create(changed(SPEC, base=""), rig.pictures)
    assert trainings.view(id).spec.base == "tiny"


def test_a_training_outlives_its_base_model(rig):
    trainings = rig.server()
    save_tiny(rig.data_dir / "models" / "base.safetensors", seed=4)
    id = start_long(rig, trainings, base="base")
    trainings.pause(id)
    wait_for(trainings, id, "paused")
    trainings.models.delete("base")
    trainings.resume(id)
    wait_for(trainings, id, "running")
    trainings.stop_and_keep(id)
    assert wait_for(trainings, id, "stopped").result == "mia"


def test_on_zero_gpu_a_training_is_refused(rig, monkeypatch):
    trainings = rig.server(start=False)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    with pytest.raises(ValueError, match="Nothing can be trained here: ZeroGPU"):
        trainings.create(SPEC, rig.pictures)
    assert trainings.estimates("tiny") == {}
    assert trainings.views() == []


@pytest.mark.parametrize("id", ["", "..", "../..", "x", None, 7, "20260101-000000-abcdef"])
def test_only_ids_of_trainings(rig, id):
    trainings = rig.server(start=False)
    for action in (trainings.view, trainings.pause, trainings.resume, trainings.stop_and_keep):
        with pytest.raises(ValueError, match=r"no such training|no longer exists"):
            action(id)
    if id != "20260101-000000-abcdef":
        with pytest.raises(ValueError, match="no such training"):
            trainings.cancel(id)


def test_a_running_training_without_news_says_so(rig, monkeypatch):
    trainings = rig.server()
    id = start_long(rig, trainings)
    assert trainings.view(id).message == "On its way."
    os.kill(rig.record(id)["pid"], signal.SIGSTOP)
    monkeypatch.setattr(views, "QUIET_SECONDS", -1.0)
    assert trainings.view(id).message.startswith("The training has not reported for")


def test_too_little_room_is_a_sentence_at_creation_and_at_the_start(rig):
    trainings = rig.server(start=False)
    id = trainings.create(SPEC, rig.pictures)
    trainings.records.min_free_bytes = 10**18
    with pytest.raises(ValueError, match="GB are free"):
        trainings.create(SPEC, rig.pictures)
    assert len(trainings.views()) == 1
    trainings.start()
    view = wait_for(trainings, id, "paused")
    assert "GB are free" in view.message
    with pytest.raises(ValueError, match="GB are free"):
        trainings.resume(id)
    trainings.records.min_free_bytes = 0
    trainings.resume(id)
    wait_for(trainings, id, "done")


def test_while_a_training_runs_it_tells_how_long_others_would_take(rig, monkeypatch):
    trainings = rig.server(start=False)
    folder = rig.folder(trainings.create(SPEC, rig.pictures))
    monkeypatch.setattr(trainings.records, "alive", lambda: [folder])
    assert trainings.estimates("tiny") is None
    RunProgress(images_per_second=50.0).write(folder)
    told = trainings.estimates("tiny")
    assert told["quick"] == pytest.approx(LENGTHS["quick"] / 50 / 60)
    assert trainings.estimates("") == told
