"""Settings that redraw the stage as they are moved, where a student draws."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
from page_actions import request
from studio_fixtures import save_tiny

from diffusion import SampleConfig
from diffusion.sampling import MAX_SEED
from studio.drawing.library import ModelLibrary
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Studio
from studio.page.examples import Examples
from studio.page.generate.actions import GenerateActions
from studio.page.generate.live_settings import OTHER, LiveSettings

pytestmark = pytest.mark.usefixtures("upload_folder")
CAT = Recipe(seed=5, coat="tabby", steps=2, sampler="euler", guidance=1.0, model="student")


@pytest.fixture
def live(tmp_path, gate) -> LiveSettings:
    sampling = SampleConfig(sampler="euler", num_steps=2, guidance=1.0)
    save_tiny(tmp_path / "student.safetensors", sampling=sampling, teacher="0123456789ab")
    save_tiny(tmp_path / "slow.safetensors")
    studio = Studio(ModelLibrary([tmp_path]), draw=gate)
    return LiveSettings(GenerateActions(studio, Examples(studio)))


@pytest.fixture
def sketch(picture, upload_folder) -> dict:
    """What the editor holds."""
    return {"composite": shutil.copy(picture, upload_folder)}


def drawn(answers) -> Recipe:
    *_, last = answers
    return Recipe.from_dict(last["recipe"])


def test_another_coat_is_worn_by_the_cat_on_the_stage(live):
    *_, last = live.choose_coat(CAT.to_dict(), "black", "student", [], request())
    now = Recipe.from_dict(last["recipe"])
    assert (now.seed, now.coat, now.any_coat) == (5, "black", False)
    assert len(last["paths"]) == 1  # it is the visitor's
    any_coat = drawn(live.choose_coat(last["recipe"], "any", "student", [], request()))
    assert any_coat.any_coat


def test_the_slider_moves_the_same_nine_cats(live, gate):
    *_, last = live.vary(CAT.to_dict(), 0.2, "student", [], request())
    near = Recipe.from_dict(last["recipe"])
    assert (gate.batches, "data-mine" in last["stage"]) == ([9], False)
    opened = live.actions.open_cat("4", last["paths"])  # though not one's own
    assert Recipe.from_dict(opened["recipe"]).towards_seed == near.towards_seed + 4
    far = drawn(live.vary(near.to_dict(), 0.6, "student", [], request()))
    assert far == dataclasses.replace(near, towards=0.6)
    assert (near.towards, near.turned) == (0.2, "")


def test_nine_around_a_cat_that_was_turned_keep_its_turn(live):
    turned = dataclasses.replace(CAT, towards_seed=9, towards_coat="black", towards=0.5)
    near = drawn(live.vary(turned.to_dict(), 0.2, "student", [], request()))
    far = drawn(live.vary(near.to_dict(), 0.6, "student", [], request()))
    assert near.turns[0] == far.turns[0] == (9, "black", 0.5)
    assert [len(cat.turns) for cat in (near, far)] == [2, 2]


def test_a_picture_becomes_more_or_less_of_a_cat(live, sketch):
    form = 5, "tabby", 2, "euler", 1.0, "student"
    now = drawn(live.change_picture(sketch, 0.5, *form, [], request()))
    assert (now.strength, bool(now.picture), now.seed) == (0.5, True, 5)


def test_it_waits_for_a_click_where_that_would_take_time_or_something_is_wrong(live, sketch, gate):
    slow = dataclasses.replace(CAT, model="slow")
    last = dataclasses.replace(CAT, seed=MAX_SEED ^ OTHER)  # its variations would be too large
    form = "tabby", 2, "euler", 1.0
    for answers in (
        live.choose_coat(slow.to_dict(), "black", "slow", [], request()),
        live.choose_coat(slow.to_dict(), "black", "student", [], request()),
        live.choose_coat(None, "black", "student", [], request()),
        live.choose_coat(CAT.to_dict(), "black", "gone", [], request()),
        live.choose_coat(CAT.to_dict(), ["black"], "student", [], request()),
        live.vary(slow.to_dict(), 0.2, "slow", [], request()),
        live.vary(CAT.to_dict(), "far", "student", [], request()),
        live.vary({"seed": "x"}, 0.2, "student", [], request()),
        live.vary(CAT.to_dict(), 1.5, "student", [], request()),
        live.vary(last.to_dict(), 0.2, "student", [], request()),
        live.change_picture(sketch, 0.5, 5, *form, "slow", [], request()),
        live.change_picture({}, 0.5, 5, *form, "student", [], request()),
        live.change_picture(sketch, 0.5, "five", *form, "student", [], request()),
    ):
        assert list(answers) == []
    assert gate.batches == []
