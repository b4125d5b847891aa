"""What stands on disk: published once, known again, whole whatever a disk refuses."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import time

import pytest
from studio_fixtures import save_tiny, wait_until
from training_rig import LONG, SPEC, call_by_hand, changed, start_long, wait_for

from diffusion.training.run_folder import weights_path
from studio.drawing.library import model_hash
from studio.training import process, records
from studio.training import trainings as trainings_module


def test_rolling_back_publishes_an_earlier_state_in_place_of_the_model(rig):
    trainings = rig.server()
    id = trainings.create(SPEC, rig.pictures)
    wait_for(trainings, id, "done")
    save_tiny(rig.folder(id) / "steps" / "000000032.safetensors", seed=7)
    before = rig.library.get("mia").hash
    assert trainings.roll_back(id, 32) == "mia"
    view = trainings.view(id)
    assert (view.state, view.result) == ("done", "mia")
    assert view.message == "Rolled back to the state after 32 images."
    assert trainings.models.names() == ["mia"]
    assert rig.library.get("mia").hash != before
    trainings.models.delete("mia")
    assert trainings.view(id).result == ""
    assert trainings.roll_back(id, 64) == "mia"
    for images in (33, -1, "32", None, "../000000032"):
        with pytest.raises(ValueError, match="no saved state after"):
            trainings.roll_back(id, images)


def test_another_trainings_model_of_the_same_name_is_never_replaced(rig):
    trainings = rig.server()
    first = trainings.create(SPEC, rig.pictures)
    wait_for(trainings, first, "done")
    second = trainings.create(SPEC, rig.pictures)
    assert wait_for(trainings, second, "done").result == "mia-2"
    trainings.models.delete("mia")
    call_by_hand(trainings, "mia-2", "mia")
    assert (trainings.view(first).result, trainings.view(second).result) == ("", "mia")
    assert trainings.roll_back(first, 32) == "mia-2"


def test_a_data_folder_restored_by_cp_keeps_its_links(rig):
    """What is copied gets new times: a training still knows its model, whatever it is called."""
    trainings = rig.server()
    done, stopped = trainings.create(SPEC, rig.pictures), start_long(rig, trainings, name="Leo")
    wait_for(trainings, done, "done")
    trainings.stop_and_keep(stopped)
    wait_for(trainings, stopped, "stopped")
    trainings.roll_back(done, 32)
    call_by_hand(trainings, "mia", "queen")
    trainings.close()
    shutil.copytree(rig.data_dir, rig.data_dir.with_name("backup"), copy_function=shutil.copyfile)
    shutil.rmtree(rig.data_dir)
    shutil.copytree(rig.data_dir.with_name("backup"), rig.data_dir, copy_function=shutil.copyfile)
    restored = rig.server()
    assert [restored.view(id).result for id in (done, stopped)] == ["queen", "leo"]
    assert restored.roll_back(done, 64) == "queen"
    assert restored.roll_back(done, 32) == "queen"
    assert restored.models.names() == ["leo", "queen"]  # no twin


def test_the_model_of_a_training_of_an_older_version_is_known_by_its_time(rig):
    trainings = rig.server()
    id = trainings.create(SPEC, rig.pictures)
    wait_for(trainings, id, "done")
    trainings.roll_back(id, 32)
    path = rig.folder(id) / "job.json"
    path.write_text(
        json.dumps({**rig.record(id), "model": trainings.models.path("mia").stat().st_mtime_ns})
    )
    assert trainings.view(id).result == "mia"
    assert trainings.roll_back(id, 64) == "mia"
    assert trainings.models.names() == ["mia"]
    assert rig.record(id)["model"] == model_hash(trainings.models.path("mia"))


def test_a_training_whose_model_was_never_published_makes_no_room(rig, monkeypatch):
    trainings = rig.server(max_kept=3)
    id = trainings.create(SPEC, rig.pictures)
    wait_for(trainings, id, "done")
    (folder,) = trainings.records.finished()
    look = trainings.records.look
    failed = lambda folder: dataclasses.replace(look(folder), state="failed")  # noqa: E731
    monkeypatch.setattr(trainings.records, "look", failed)
    assert trainings.records.finished() == []
    weights_path(folder).unlink()
    assert trainings.records.finished() == [folder]


def test_names_in_any_script_become_safe_files(rig):
    trainings = rig.server()
    for name, result in {
        "../x": "x",
        "CON": "con-cat",
        "三毛猫": "三毛猫",
        "tiny": "tiny-2",
    }.items():
        id = trainings.create(changed(SPEC, name=name), rig.pictures)
        assert wait_for(trainings, id, "done").result == result
    assert {path.parent for path in rig.library.paths().values()} == {
        rig.library.places[0], rig.data_dir / "models",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written to"),
     (errno.EACCES, "cannot be written to"), (errno.EIO, "cannot be used: ")],
)  # fmt: skip
def test_a_disk_that_refuses_is_a_sentence_and_changes_nothing(rig, monkeypatch, number, sentence):
    trainings = rig.server(start=False)
    id = trainings.create(SPEC, rig.pictures)
    before = trainings.views()

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(ValueError, match=sentence):
        trainings.create(SPEC, rig.pictures)
    monkeypatch.setattr(trainings_module, "write_record", refuse)
    with pytest.raises(ValueError, match=sentence):
        trainings.pause(id)
    assert trainings.views() == before
    assert len([p for p in trainings.records.folder.iterdir() if p.is_dir()]) == 1
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=sentence):
        trainings.cancel(id)


def test_a_data_folder_that_cannot_be_made_is_a_sentence_and_start_does_not_raise(rig, capsys):
    rig.data_dir.write_text("a file where the folder should be")
    trainings = rig.server()
    assert trainings.views() == []
    with pytest.raises(ValueError, match="data folder"):
        trainings.create(SPEC, rig.pictures)
    time.sleep(0.1)
    assert capsys.readouterr().err.count("data folder") == 1  # said once, not at every look
    rig.data_dir.unlink()
    wait_for(trainings, trainings.create(SPEC, rig.pictures), "done")


def test_a_model_that_cannot_be_copied_fails_the_training_and_can_be_kept_later(rig, monkeypatch):
    trainings = rig.server()
    id = start_long(rig, trainings)
    copy = shutil.copyfile

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(shutil, "copyfile", refuse)
    trainings.stop_and_keep(id)
    assert "disk is full" in wait_for(trainings, id, "failed").message
    assert rig.library.names == ["tiny"]
    monkeypatch.setattr(shutil, "copyfile", copy)
    trainings.stop_and_keep(id)
    assert (trainings.view(id).state, trainings.view(id).result) == ("stopped", "mia")


def test_a_model_is_published_once_though_that_could_not_be_written_down(rig, monkeypatch):
    trainings = rig.server(start=False)
    id = trainings.create(SPEC, rig.pictures)
    trainings.scheduler.schedule()
    wait_until(lambda: not process.is_alive(trainings.records.folder / id))
    write, failures = records.write_record, [1, 1]

    def fail_twice(folder, record):
        if failures:
            failures.pop()
            raise OSError(errno.ENOSPC, "no")
        write(folder, record)

    monkeypatch.setattr(records, "write_record", fail_twice)
    trainings.start()
    assert wait_for(trainings, id, "done").result == "mia"
    assert not failures
    assert trainings.models.names() == ["mia"]


def test_a_server_that_died_while_making_or_deleting_a_training_leaves_nothing(rig):
    trainings = rig.server(start=False)
    id = trainings.create(LONG, rig.pictures)
    for name in (f".new-{id}", f".gone-{id}"):
        (trainings.records.folder / name / "images").mkdir(parents=True)
    assert len(trainings.views()) == 1
    trainings.start()
    assert not list(trainings.records.folder.glob(".[ng]*-*"))
