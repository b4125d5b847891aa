"""What visitors take with them: files of one cat, of a grid, and of all their strip."""

from __future__ import annotations

import html
import io
import json
import re
import zipfile

import numpy as np
import pytest
import torch
from page_actions import request
from PIL import Image
from studio_fixtures import pixels

from diffusion.output.pictures import from_image
from studio.drawing.png_metadata import read_recipe
from studio.drawing.recipe import Recipe
from studio.page import files
from studio.page.generate.save_actions import SaveActions

pytestmark = pytest.mark.usefixtures("upload_folder")


def test_half_a_cat_is_not_kept(actions):
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    job.stopped = True
    half = actions._finished(job, [])
    assert half["paths"] == []
    assert "stopped after" in half["status"]
    assert half["recipe"] == job.recipes[0].to_dict()  # to animate or vary it
    shown = half["shown"]
    saving = SaveActions(actions.visits)
    for path in (shown, saving.save_cat(shown, 8, False)):
        with pytest.raises(ValueError, match="no recipe"):
            read_recipe(path)
    # what is painted on and saved is what is on the stage
    assert torch.equal(pixels(shown), job.pictures[0])
    assert np.array(saving.take_cat(shown)["background"])[::32, ::32].tolist() == (
        job.pictures[0].permute(1, 2, 0).tolist()
    )


def test_a_download_has_the_size_that_was_chosen(actions):
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    shown = actions._finished(job, [])["shown"]
    saving = SaveActions(actions.visits)
    for scale in (1, 4, 8):
        path = saving.save_cat(shown, scale, True)
        large = pixels(path)
        assert large.shape == (3, 16 * scale, 16 * scale)
        assert torch.equal(large[:, ::scale, ::scale], job.pictures[0])
        assert read_recipe(path) == job.recipes[0]


def test_a_large_download_is_smooth_unless_its_pixels_are_asked_for(actions):
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    shown = actions._finished(job, [])["shown"]
    saving = SaveActions(actions.visits)
    smooth, blocks = (pixels(saving.save_cat(shown, 8, sharp)) for sharp in (False, True))
    assert smooth.shape == blocks.shape
    with Image.open(shown) as image:
        expected = from_image(image.resize((128, 128), Image.Resampling.LANCZOS))
    assert torch.equal(smooth, expected)
    assert not torch.equal(smooth, blocks)


def test_a_usual_download_has_1024_pixels_at_the_most():
    sides = {size: size * files.usual_scale(size) for size in (16, 64, 128, 256, 512, 2048)}
    assert sides == {16: 128, 64: 512, 128: 1024, 256: 1024, 512: 1024, 2048: 2048}


def test_all_cats_of_the_strip_are_saved_also_those_of_another_day(actions):
    old, new = (
        actions.studio.draw([Recipe(seed=seed, steps=2)], record="denoised") for seed in (1, 2)
    )
    paths = actions._finished(new, [])["paths"]
    asked = json.dumps([new.recipes[0].to_dict(), old.recipes[0].to_dict()])
    with zipfile.ZipFile(saved(actions, asked, paths)) as archive:
        names = archive.namelist()
        drawn = [pixels_of_bytes(archive.read(name)) for name in names]
    assert names == ["01-cat-2.png", "02-cat-1.png"]
    assert torch.equal(drawn[0], new.pictures[0])
    assert torch.equal(drawn[1], old.pictures[0])


def test_one_cat_that_cannot_be_drawn_costs_no_other(actions):
    """Though all have the same settings, and would be drawn together."""
    cats = [Recipe(seed=1, steps=2), Recipe(seed=2, steps=2, coat="gone"), Recipe(seed=3, steps=2)]
    asked = json.dumps([*(cat.to_dict() for cat in cats), {"seed": "none"}])
    with zipfile.ZipFile(saved(actions, asked)) as archive:
        assert len(archive.namelist()) == 2


def test_cats_whose_model_has_gone_are_left_out(actions):
    here, gone = Recipe(seed=1, steps=2), Recipe(seed=2, steps=2, model="mia")
    *_, last = save_all(actions, json.dumps([gone.to_dict(), here.to_dict()]))
    with zipfile.ZipFile(last["saved"]) as archive:
        assert archive.namelist() == ["01-cat-1.png"]
    assert "Saved 1 of 2 cats." in last["status"]
    (only,) = save_all(actions, json.dumps([gone.to_dict()]))
    assert only["saved"] is None
    assert "There is no model 'mia' here" in text_of(only)


def test_stop_ends_the_drawing_of_what_is_to_be_saved(actions, gate):
    """And nothing is saved; the page tells meanwhile how far it is."""
    asked = json.dumps([Recipe(seed=seed, steps=4).to_dict() for seed in range(3)])
    with gate.close():
        saving = save_all(actions, asked)
        told = next(saving)
        assert "0 of 3" in told["status"]
        assert "data-working" in told["status"]
        actions.visits.stop(request())
    *_, last = saving
    assert last["saved"] is None
    assert "Nothing was saved." in text_of(last)


@pytest.mark.parametrize("formed", [False, True])
def test_where_the_page_closes_nothing_is_saved(actions, gate, formed):
    with gate.close():
        saving = save_all(actions, json.dumps([Recipe(steps=4).to_dict()]))
        next(saving)
        (job,) = actions.visits._jobs
        job.pictures = torch.zeros(1, 3, 16, 16, dtype=torch.uint8) if formed else None
        actions.studio.close()
    *_, last = saving
    assert last["saved"] is None
    assert text_of(last) == "The server is shutting down."


@pytest.mark.parametrize("asked", ["[]", "x", "3", None, "[1]", '[{"seed": -1}]', "[" * 9999])
def test_what_cannot_be_saved_is_told(actions, asked):
    (only,) = save_all(actions, asked)
    assert only["saved"] is None
    assert "alert" in only["status"]
    assert text_of(only).endswith(".")


def test_a_sheet_shows_the_cats_side_by_side(actions):
    job = actions.studio.draw([Recipe(seed=seed, steps=2) for seed in range(4)], record="denoised")
    paths = actions._finished(job, [])["paths"]
    asked = json.dumps([recipe.to_dict() for recipe in job.recipes])
    (only,) = SaveActions(actions.visits).save_sheet(asked, paths, request())
    assert only.keys() == {"saved"}  # what stands under the stage stays
    sheet = pixels(only["saved"])
    assert sheet.shape == (3, 38, 38)  # two by two, with a margin of two pixels
    assert torch.equal(sheet[:, 2:18, 20:36], job.pictures[1])


def save_all(actions, asked, paths=()):
    return SaveActions(actions.visits).save_all(asked, list(paths), request())


def saved(actions, asked, paths=()) -> str:
    *_, last = save_all(actions, asked, paths)
    return last["saved"]


def text_of(shown) -> str:
    return html.unescape(re.sub("<.*?>", "", shown["status"]))


def pixels_of_bytes(png: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(png)) as image:
        return from_image(image)
