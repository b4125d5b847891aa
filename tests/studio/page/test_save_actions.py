"""What visitors take with them: files of one cat, of a grid, and of all their strip."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from studio_fixtures import pixels

from diffusion.pictures import from_image
from studio.drawing.png_metadata import read_recipe
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Busy
from studio.page import files
from studio.page.save_actions import SaveActions

pytestmark = pytest.mark.usefixtures("upload_folder")


def test_half_a_cat_is_not_kept(actions):
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    job.stopped = True
    half = actions._finished(job, [])
    assert half["paths"] == []
    assert "stopped after" in half["status"]
    assert half["recipe"] == job.recipes[0].to_dict()  # to animate or vary it
    shown = half["shown"]
    saving = SaveActions(actions.studio)
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
    saving = SaveActions(actions.studio)
    for scale in (1, 4, 8):
        path = saving.save_cat(shown, scale, True)
        large = pixels(path)
        assert large.shape == (3, 16 * scale, 16 * scale)
        assert torch.equal(large[:, ::scale, ::scale], job.pictures[0])
        assert read_recipe(path) == job.recipes[0]


def test_a_large_download_is_smooth_unless_its_pixels_are_asked_for(actions):
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    shown = actions._finished(job, [])["shown"]
    saving = SaveActions(actions.studio)
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
    with zipfile.ZipFile(SaveActions(actions.studio).save_all(asked, paths)) as archive:
        names = archive.namelist()
        drawn = [pixels_of_bytes(archive.read(name)) for name in names]
    assert names == ["01-cat-2.png", "02-cat-1.png"]
    assert torch.equal(drawn[0], new.pictures[0])
    assert torch.equal(drawn[1], old.pictures[0])


def test_one_cat_that_cannot_be_drawn_costs_no_other(actions):
    """Though all have the same settings, and would be drawn together."""
    cats = [Recipe(seed=1, steps=2), Recipe(seed=2, steps=2, coat="gone"), Recipe(seed=3, steps=2)]
    asked = json.dumps([*(cat.to_dict() for cat in cats), {"seed": "none"}])
    with zipfile.ZipFile(SaveActions(actions.studio).save_all(asked, [])) as archive:
        assert len(archive.namelist()) == 2


def test_cats_whose_model_has_gone_are_left_out(actions):
    here, gone = Recipe(seed=1, steps=2), Recipe(seed=2, steps=2, model="mia")
    saving = SaveActions(actions.studio)
    with zipfile.ZipFile(
        saving.save_all(json.dumps([gone.to_dict(), here.to_dict()]), [])
    ) as archive:
        assert archive.namelist() == ["01-cat-1.png"]
    with pytest.raises(ValueError, match="There is no model 'mia' here"):
        saving.save_all(json.dumps([gone.to_dict()]), [])


def test_half_a_cat_is_not_saved_as_a_whole_one(actions, monkeypatch):
    job = actions.studio.draw([Recipe(steps=2)])
    job.stopped = True  # as where the page closes
    monkeypatch.setattr(actions.studio, "draw", lambda _: job)
    with pytest.raises(Busy, match="shutting down"):
        SaveActions(actions.studio).save_all(json.dumps([Recipe(steps=2).to_dict()]), [])


@pytest.mark.parametrize("asked", ["[]", "x", "3", None, "[1]", '[{"seed": -1}]', "[" * 9999])
def test_what_cannot_be_saved_is_told(actions, asked):
    with pytest.raises(ValueError, match=r"\.$"):
        SaveActions(actions.studio).save_all(asked, [])


def test_a_sheet_shows_the_cats_side_by_side(actions):
    job = actions.studio.draw([Recipe(seed=seed, steps=2) for seed in range(4)], record="denoised")
    paths = actions._finished(job, [])["paths"]
    asked = json.dumps([recipe.to_dict() for recipe in job.recipes])
    sheet = pixels(SaveActions(actions.studio).save_sheet(asked, paths))
    assert sheet.shape == (3, 38, 38)  # two by two, with a margin of two pixels
    assert torch.equal(sheet[:, 2:18, 20:36], job.pictures[1])


def pixels_of_bytes(png: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(png)) as image:
        return from_image(image)
