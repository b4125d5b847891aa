"""Models with a codec on the page: previews, films and what stops have the size of pictures."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import LATENT, SMALL, latent_denoiser, upscaled_denoiser
from PIL import Image
from studio_fixtures import wait_until

from diffusion.output.animate import noisy_x0
from diffusion.sampling import draw
from studio.drawing.library import ModelLibrary
from studio.drawing.recipe import Recipe, build_start, embed_mask, embed_picture
from studio.drawing.worker import Studio

PLAIN = Recipe(steps=4, seed=3)


@pytest.fixture(scope="module", params=["latents", "upscaled"])
def library(tmp_path_factory, request) -> ModelLibrary:
    folder, path = tmp_path_factory.mktemp("models"), f"{request.param}.safetensors"
    make, shape = {"latents": (latent_denoiser, LATENT), "upscaled": (upscaled_denoiser, SMALL)}[
        request.param
    ]
    make(dataclasses.replace(shape, num_classes=2)).save(folder / path)
    return ModelLibrary([folder])


@pytest.fixture
def coded(library, gate) -> Studio:
    """A studio over a model with a codec, whose pictures have 16 pixels."""
    return Studio(library, draw=gate)


def steps_of(studio: Studio, recipe: Recipe) -> tuple[torch.Tensor, list]:
    """A recipe's picture, drawn without the worker, and the sampler's steps."""
    denoiser, steps = studio.library.get().denoiser, []
    start, config = build_start(denoiser, [recipe]), recipe.config(denoiser.info.sampling)
    return draw(denoiser, start, config, callback=steps.append)[0], steps


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the last bit of a sum."""
    assert actual.shape == expected.shape
    assert (actual.int() - expected.int()).abs().max() <= 1


def test_previews_have_the_size_of_pictures(coded, gate):
    gate.close()
    job = coded.submit([PLAIN])
    updates = coded.watch(job)
    wait_until(lambda: gate.steps == 1)
    assert next(updates).pictures is None
    shown = []

    def watched(denoiser, start, config, *, callback, preview):
        def after(step):
            stop = callback(step)
            shown.append((job.pictures[0].clone(), denoiser.codec.preview(step.denoised)[0]))
            return stop

        return draw(denoiser, start, config, callback=after)

    gate.draw = watched
    gate.event.set()
    *_, last = updates
    job = coded.submit([PLAIN])
    *_, again = coded.watch(job)
    assert len(shown) == 4
    for picture, preview in shown:
        assert picture.shape == (3, 16, 16)
        assert torch.equal(picture, preview)
    assert_near(last.pictures[0], steps_of(coded, PLAIN)[0])
    assert_near(again.pictures[0], last.pictures[0])


def test_a_stopped_picture_is_decoded(coded, gate):
    gate.close()
    job = coded.submit([dataclasses.replace(PLAIN, steps=50)])
    wait_until(lambda: gate.steps == 1)
    coded.stop(job)
    gate.event.set()
    job.wait(10)
    assert (job.done, job.stopped, gate.steps) == (True, True, 1)
    codec = coded.library.get().denoiser.codec
    _, steps = steps_of(coded, job.recipes[0])
    assert_near(job.pictures[0], codec.decode(steps[0].denoised)[0])
    assert not torch.equal(job.pictures[0], codec.preview(steps[0].denoised)[0])


@pytest.mark.parametrize("record", ["denoised", "noisy"])
def test_films_are_decoded(coded, record):
    job = coded.draw([PLAIN, dataclasses.replace(PLAIN, seed=8)], record=record)
    codec = coded.library.get().denoiser.codec
    _, steps = steps_of(coded, PLAIN)
    assert len(job.frames) == len(steps) == 4
    for frame, step in zip(job.frames, steps, strict=True):
        x0 = noisy_x0(step) if record == "noisy" else step.denoised
        assert_near(frame, codec.decode(x0)[0])
    if record == "denoised":
        assert_near(job.frames[-1], job.pictures[0])


def test_what_was_watched_is_kept_at_no_cost_and_ends_with_the_picture(coded):
    job = coded.draw([PLAIN, dataclasses.replace(PLAIN, seed=8)], record="preview")
    codec = coded.library.get().denoiser.codec
    _, steps = steps_of(coded, PLAIN)
    assert len(job.frames) == len(steps) == 4
    for frame, step in zip(job.frames[:-1], steps, strict=False):
        assert_near(frame, codec.preview(step.denoised)[0])
    assert torch.equal(job.frames[-1], job.pictures[0])


def test_a_part_is_repainted_and_the_rest_kept_exactly(coded):
    picture = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (3, 5, 11, 14))  # not on the borders of latents
    recipe = dataclasses.replace(
        PLAIN,
        picture=embed_picture(Image.fromarray(picture.numpy()), 16),
        mask=embed_mask(mask, 16),
    )
    drawn = coded.draw([recipe]).pictures[0].permute(1, 2, 0)
    kept = torch.ones(16, 16, dtype=torch.bool)
    kept[5:14, 3:11] = False
    assert torch.equal(drawn[kept], picture[kept])
    assert (drawn[~kept] != picture[~kept]).float().mean() > 0.5


def test_a_picture_to_start_from_has_the_size_of_pictures(coded):
    orange = Image.new("RGB", (40, 30), "orange")
    recipe = dataclasses.replace(PLAIN, picture=embed_picture(orange, 16), strength=0.5)
    assert coded.draw([recipe]).pictures.shape == (1, 3, 16, 16)
    small = dataclasses.replace(recipe, picture=embed_picture(orange, 4))  # as the network's x0
    with pytest.raises(ValueError, match="not 16x16"):
        coded.submit([small])
