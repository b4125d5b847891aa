"""Small pictures: the examples as buttons, and a face for each coat, whatever its name."""

from __future__ import annotations

import html
import json
import re

import pytest
import torch
from studio_fixtures import LABELS, pixels, save_tiny

from studio.drawing.library import ModelLibrary
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Busy, Studio
from studio.page.files import save_png
from studio.page.thumbs import THUMB_SIDE, Faces, examples_html, faces_style

pytestmark = pytest.mark.usefixtures("upload_folder")
EVIL = 'a"]{}</style><script>'


def test_an_example_is_a_button_with_its_recipe():
    picture = torch.full((3, 16, 16), 200, dtype=torch.uint8)
    recipe = Recipe(seed=3, coat=EVIL, model="tiny")
    button = examples_html([save_png(picture, recipe)])
    known = re.search(r'data-recipe="([^"]*)"', button).group(1)
    assert json.loads(html.unescape(known)) == recipe.to_dict()
    assert "<script>" not in button
    shown = pixels(re.search(r'src="([^"]*)"', button).group(1))
    assert shown.shape == (3, THUMB_SIDE, THUMB_SIDE)
    assert (shown.int() - 200).abs().max() <= 2


def test_each_coat_has_a_face_drawn_once(studio, gate):
    faces = Faces(studio)
    style = faces.style("")
    assert style.count("background-image") == len(LABELS)
    for coat in LABELS:
        assert f'input[value="{coat}"]' in style
    assert faces.style("tiny") == style
    assert gate.batches == [len(LABELS)]


def test_a_model_without_coats_has_no_faces(tmp_path):
    save_tiny(tmp_path / "plain.safetensors", labels=())
    assert Faces(Studio(ModelLibrary([tmp_path]))).style("") == "<style></style>"


def test_where_too_many_wait_the_next_visit_tries_again(studio, monkeypatch):
    faces, draw = Faces(studio), studio.draw

    def busy(recipes):
        raise Busy("Too many.")

    monkeypatch.setattr(studio, "draw", busy)
    assert faces.style("") == ""
    monkeypatch.setattr(studio, "draw", draw)
    assert "background-image" in faces.style("")


def test_no_name_of_a_coat_leaves_its_rule():
    style = faces_style({EVIL: torch.zeros((3, 16, 16), dtype=torch.uint8)})
    assert style.count("<") == 2  # of the style itself
    assert style.count('"') == 2
