"""What the Explore tab and scripts may ask for, and a sentence for what they may not."""

from __future__ import annotations

import json

import pytest

from studio.drawing.recipe import Recipe, to_query
from studio.page.explore.forms import MAX_FRAMES, read_film, read_frame, read_map_form, read_moment

CATS = [{"seed": seed, "coat": ("tabby", "black")[seed % 2]} for seed in range(4)]


def on_map(**changes):
    return {"corners": CATS, "x": 0.5, "y": 0.5, **changes}


@pytest.fixture
def library(studio):
    return studio.library


def test_a_point_of_four_seeds_is_the_same_to_the_tab_and_to_a_script(library):
    by_tab = read_frame(on_map(x=0.2), library)
    by_script = read_map_form([0, 1, 2, 3], ["tabby", "black"], 0.2, 0.5, "tiny", library)
    assert by_tab == by_script
    assert by_tab.model == "tiny"
    assert len(by_tab.turns) == 3


def test_a_corner_may_be_a_link(library):
    link = f"http://cats.example/?{to_query([Recipe(seed=7, coat='tabby', model='tiny')])}"
    corners = [link, *CATS[1:]]
    cat = read_frame(on_map(corners=corners, x=0, y=0), library)
    assert (cat.seed, cat.coat, cat.model, cat.turns) == (7, "tabby", "tiny", [])


def test_a_moment_is_asked_for_by_seed(library):
    asked = {"seed": 4, "moment": 1.5, "model": "", "coat": "any"}
    cat = read_frame(asked, library)
    assert cat == read_moment(4, 1.5, "", "tiny", library)
    assert (cat.seed, cat.towards_seed, cat.towards) == (5, 6, 0.5)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ([], "JSON object"),
        (on_map(x=1.5), "must lie on the map"),
        (on_map(y=float("nan")), "must lie on the map"),
        (on_map(x="left"), "x must be a number"),
        (on_map(x=None), "x is missing"),
        (on_map(corners=CATS[:3]), "four cats"),
        (on_map(corners="cats"), "four cats"),
        (on_map(corners=[*CATS[:3], 5]), "JSON object"),
        (
            on_map(corners=[*CATS[:3], {"seed": 1, "coat": "pink"}]),
            "know the label 'pink'",
        ),
        (on_map(corners=[*CATS[:3], {"seed": -1}]), "whole number"),
        (on_map(corners=[*CATS[:3], {"model": "none"}]), "no model 'none'"),
        (on_map(corners=[*CATS[:3], {"colour": "red"}]), "does not know"),
        (on_map(corners=[*CATS[:3], "https://cats.example/"]), "no link to a cat"),
        (on_map(corners=[*CATS[:3], "http://[x?seed=1"]), "no link to a cat"),
        (on_map(corners=[*CATS[:3], f"?seed=1&coat={'x' * 5000}"]), "no link to a cat"),
        ({"seed": 1, "moment": -1}, "moment of a dream"),
        ({"seed": 1, "moment": float("inf")}, "moment of a dream"),
        ({"seed": 1.5, "moment": 0}, "The seed must be a whole number"),
        ({"moment": 0}, "The seed is missing"),
        ({"seed": 1, "moment": 0, "coat": "pink"}, "know the label 'pink'"),
        ({"seed": 1, "moment": 0, "coat": 5}, "must be a short text"),
        ({"seed": 1, "moment": 0, "model": "none"}, "no model 'none'"),
    ],
)
def test_a_mistake_is_a_sentence(library, asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_frame(asked, library)


@pytest.mark.parametrize(
    ("seeds", "coats", "sentence"),
    [
        ([1, 2, 3], None, "four seeds"),
        ("1, 2, 3, 4", None, "four seeds"),
        ([1, 2, 3, "x"], None, "The seed must be a whole number"),
        ([1, 2, 3, 4], "tabby", "coats must be a list"),
        ([1, 2, 3, 4], ["pink"], "know the label 'pink'"),
    ],
)
def test_a_mistake_of_a_script_is_a_sentence(library, seeds, coats, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_map_form(seeds, coats, 0.5, 0.5, "", library)


def test_corners_of_different_models_are_a_sentence(tiny_folder, tmp_path):
    from studio_fixtures import save_tiny

    from studio.drawing.library import ModelLibrary

    save_tiny(tmp_path / "other.safetensors", seed=1)
    library = ModelLibrary([tiny_folder, tmp_path])
    corners = [*CATS[:3], {"seed": 1, "model": "other"}]
    with pytest.raises(ValueError, match="different models: tiny, other"):
        read_frame(on_map(corners=corners), library)


def test_a_film_is_what_was_dreamt(library):
    dreamt = {"seed": 4, "moments": [0.5, 0.75, 1.0], "model": "tiny"}
    film = read_film(json.dumps(dreamt), library)
    assert film == [read_moment(4, m, "", "tiny", library) for m in dreamt["moments"]]


@pytest.mark.parametrize(
    "dreamt",
    [
        None, "", "[", "{}", "[1]", '{"seed": 1, "moments": [1]}', '{"seed": 1, "moments": 5}',
        json.dumps({"seed": 1, "moments": [0.1] * (MAX_FRAMES + 1)}),
    ],
)  # fmt: skip
def test_no_dream_is_no_film(library, dreamt):
    with pytest.raises(ValueError, match="no dream to save"):
        read_film(dreamt, library)


def test_a_dream_that_cannot_be_is_no_film(library):
    with pytest.raises(ValueError, match="moment must be a number"):
        read_film('{"seed": 1, "moments": [0.5, "x"]}', library)
