"""A run's folder: names in one place, and progress that every reader of JSON takes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest

from diffusion.training.run_folder import (
    PROGRESS_NAME,
    STATE_NAME,
    RunProgress,
    RunState,
    grid_path,
    grids,
    step_path,
    steps,
)


def strict(text: str) -> dict:
    """As a browser reads JSON: NaN and Infinity are none."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_progress_is_valid_json_whatever_the_loss_is(tmp_path, loss):
    RunProgress(loss=loss, heldout_loss=0.5).write(tmp_path)
    told = strict((tmp_path / PROGRESS_NAME).read_text())
    assert (told["loss"], told["heldout_loss"]) == (None, 0.5)


def test_progress_comes_back_as_it_was_written(tmp_path):
    told = RunProgress(RunState.TRAINING, "On its way.", images=64, fraction=0.25, updated=1.5)
    told.write(tmp_path)
    replace(told, images=128).write(tmp_path)  # in place of the first
    values = strict((tmp_path / PROGRESS_NAME).read_text())
    assert values == {**asdict(told), "images": 128}
    assert values["state"] == "training"
    assert [path.name for path in tmp_path.iterdir()] == [PROGRESS_NAME]


def test_steps_and_grids_are_found_by_the_images_they_saw(tmp_path):
    assert (steps(tmp_path), grids(tmp_path)) == ([], [])
    for images in (1024, 8, 512):
        for path in (step_path(tmp_path, images), grid_path(tmp_path, images)):
            path.parent.mkdir(exist_ok=True)
            path.touch()
    for stray in ("steps/x.safetensors", "steps/.000000016-ab.safetensors", "samples/16.png"):
        (tmp_path / stray).touch()
    assert steps(tmp_path) == [8, 512, 1024]
    assert grids(tmp_path) == [grid_path(tmp_path, images) for images in (8, 512, 1024)]
    (tmp_path / "samples" / "base.png").touch()
    assert [path.name for path in grids(tmp_path)][:2] == ["base.png", "000000008.png"]


def test_a_run_that_goes_on_begins_with_what_it_told(tmp_path):
    told = RunProgress(state=RunState.STOPPED, images=64, fraction=0.25, seconds=9.0, loss=0.1)
    told.write(tmp_path)
    assert RunProgress.left_by(tmp_path) == RunProgress()  # it has saved nothing
    (tmp_path / STATE_NAME).touch()
    assert RunProgress.left_by(tmp_path) == RunProgress(images=64, fraction=0.25, seconds=9.0)
    for damaged in ("", "[]", '{"images": "many"}', '{"images": 1}'):
        (tmp_path / PROGRESS_NAME).write_text(damaged)
        assert RunProgress.left_by(tmp_path) == RunProgress()
