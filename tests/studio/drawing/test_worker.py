"""The worker: pixels that depend on the recipe alone, turns, stopping, errors and memory."""

from __future__ import annotations

import dataclasses
import os
import threading
import time

import pytest
import torch
from jobs import PLAIN, alone, assert_same_pixels, finish
from PIL import Image
from studio_fixtures import TINY, save_tiny, wait_until

import studio.drawing.worker as generation
from diffusion import SAMPLERS, Denoiser, SampleConfig, __version__, device, sampling
from diffusion.sampling import draw
from studio.drawing.library import ModelLibrary
from studio.drawing.recipe import (
    Recipe,
    embed_mask,
    embed_picture,
    morph,
    of_this_version,
    variations,
)
from studio.drawing.worker import Busy, Studio

# -- pixels ------------------------------------------------------------------------------------


def sigmas_of_version_0_7(config: SampleConfig) -> torch.Tensor:
    """As a strength was understood then: the share of the steps, rounded to whole ones."""
    whole = sampling.sampling_sigmas(dataclasses.replace(config, strength=1.0))
    return whole[config.num_steps - max(1, round(config.num_steps * config.strength)) :]


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
@pytest.mark.parametrize("steps", [1, 7, 12])
def test_a_strength_of_an_older_version_draws_what_it_drew(studio, monkeypatch, sampler, steps):
    picture = embed_picture(Image.radial_gradient("L").convert("RGB"), 16)
    for strength in (0.1, 0.45, 0.6, 0.95, 1.0):
        recipe = Recipe(steps=steps, sampler=sampler, picture=picture, strength=strength)
        with monkeypatch.context() as patch:
            grid = sigmas_of_version_0_7(recipe.config(SampleConfig()))
            patch.setattr(sampling, "sampling_sigmas", lambda config, grid=grid: grid)
            before = alone(studio, recipe)
        for version in ("0.1.0", "0.7.0"):
            job = studio.draw([dataclasses.replace(recipe, version=version)])
            assert torch.equal(job.pictures[0], before)
            assert torch.equal(studio.draw(job.recipes).pictures[0], before)  # and once more
            assert job.recipes[0].version == __version__
        if strength == 0.45:
            assert not torch.equal(studio.draw([recipe]).pictures[0], before)


@pytest.mark.parametrize("version", ["", "x", "0.8.0", "0.10.0", "1.0.0", "9" * 30 + ".1"])
def test_a_strength_of_this_version_or_a_newer_one_stays(version):
    recipe = Recipe(picture="x", strength=0.6, version=version)
    assert of_this_version(recipe) == dataclasses.replace(recipe, version=__version__)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_gives_the_same_pixels_in_any_company(studio, sampler, gate):
    recipe = dataclasses.replace(PLAIN, sampler=sampler, coat="tabby", steps=4)
    recipes = [dataclasses.replace(recipe, seed=seed) for seed in range(7)]
    expected = [alone(studio, r) for r in recipes]
    assert len({bytes(p.numpy()) for p in expected}) == 7  # the seeds are told apart
    gate.close()
    blocker = studio.submit([dataclasses.replace(recipe, seed=99, steps=5)])
    wait_until(lambda: gate.batches == [1])
    jobs = [studio.submit(recipes[:1]), studio.submit(recipes[1:4]), studio.submit(recipes[4:])]
    gate.event.set()
    finish(blocker, *jobs)
    assert gate.batches == [1, 7]
    drawn = torch.cat([job.pictures for job in jobs])
    for actual, wanted in zip(drawn, expected, strict=True):
        assert_same_pixels(actual, wanted)


def test_jobs_with_other_settings_are_not_merged(studio, gate):
    gate.close()
    blocker = studio.submit([PLAIN])
    wait_until(lambda: gate.batches == [1])
    jobs = [
        studio.submit([dataclasses.replace(PLAIN, seed=1, **changes)])
        for changes in ({}, {"steps": 4}, {"sampler": "euler"}, {"guidance": 1.0})
    ]
    recorded = studio.submit([dataclasses.replace(PLAIN, seed=1)], record="noisy")
    mate = studio.submit([dataclasses.replace(PLAIN, seed=2, coat="black")])  # coats can be mixed
    gate.event.set()
    finish(blocker, recorded, mate, *jobs)
    assert sorted(gate.batches) == [1, 1, 1, 1, 1, 2]
    for job in (*jobs, mate):
        assert_same_pixels(job.pictures[0], alone(studio, job.recipes[0]))


def test_bf16_stays_near_fp32(tiny_folder, monkeypatch):
    pictures = []
    for bf16 in (False, True):
        monkeypatch.setattr(device, "fast_bf16", lambda device, on=bf16: on)
        studio = Studio(ModelLibrary([tiny_folder]))
        pictures.append(
            studio.draw([dataclasses.replace(PLAIN, seed=s) for s in range(4)]).pictures
        )
    difference = (pictures[0].float() - pictures[1].float()).abs()
    assert difference.max() > 0  # it was really another precision
    assert difference.mean() <= 2


def test_a_model_with_a_guide_draws_every_kind_of_picture_in_company_as_alone(tmp_path):
    base = Denoiser.load(save_tiny(tmp_path / "base.safetensors"))
    config = dataclasses.replace(TINY, channels=8)
    weak = Denoiser.load(save_tiny(tmp_path / "weak.safetensors", labels=(), config=config))
    folder = tmp_path / "models"
    folder.mkdir()
    base.guided_by(weak).save(folder / "guided.safetensors")
    studio = Studio(ModelLibrary([folder]))
    picture = embed_picture(Image.new("RGB", (16, 16), "orange"), TINY.image_size)
    for kind in ({}, {"towards_seed": 9, "towards": 0.3}, {"picture": picture, "strength": 0.7}):
        recipes = [dataclasses.replace(PLAIN, coat=coat, **kind) for coat in ("", "tabby", "black")]
        drawn = studio.draw(recipes).pictures
        for actual, recipe in zip(drawn, recipes, strict=True):
            assert_same_pixels(actual, alone(studio, recipe))
        unguided = studio.draw([dataclasses.replace(r, guidance=1.0) for r in recipes]).pictures
        for one, other in zip(drawn, unguided, strict=True):
            assert not torch.equal(one, other)


def test_repaint_keeps_the_rest_exactly(studio):
    picture = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (4, 4, 12, 12))
    size = TINY.image_size
    recipe = dataclasses.replace(
        PLAIN,
        picture=embed_picture(Image.fromarray(picture.numpy()), size),
        mask=embed_mask(mask, size),
    )
    drawn = studio.draw([recipe]).pictures[0].permute(1, 2, 0)
    kept = torch.ones(16, 16, dtype=torch.bool)
    kept[4:12, 4:12] = False
    assert torch.equal(drawn[kept], picture[kept])
    assert not torch.equal(drawn[~kept], picture[~kept])


# -- mistakes and memory -----------------------------------------------------------------------


GREY = embed_picture(Image.new("RGB", (16, 16), "grey"), 16)


def test_what_cannot_be_drawn_is_refused_at_once(studio):
    for recipes, sentence in (
        ([dataclasses.replace(PLAIN, coat="pink")], "does not know the label 'pink'"),
        ([PLAIN, dataclasses.replace(PLAIN, coat="pink")], "does not know the label 'pink'"),
        (
            [dataclasses.replace(PLAIN, towards=0.5, towards_coat="pink")],
            "does not know the label 'pink'",
        ),
        ([dataclasses.replace(PLAIN, model="lion")], "There is no model 'lion'"),
        ([dataclasses.replace(PLAIN, model="../../etc/passwd")], "There is no model"),
        ([PLAIN, dataclasses.replace(PLAIN, steps=4)], "same settings"),
        ([], "Between 1 and 256"),
        ([PLAIN] * 257, "Between 1 and 256"),
        ([dataclasses.replace(PLAIN, picture="AAAA")], "damaged"),
        ([dataclasses.replace(PLAIN, picture=data) for data in (GREY, "AAAA")], "damaged"),
    ):
        with pytest.raises(ValueError, match=sentence):
            studio.submit(recipes)


def test_an_error_is_reported_and_the_worker_survives(tiny_folder, capsys):
    def broken(denoiser, start, config, **options):
        if 13 in start.seeds:
            raise RuntimeError("secret path /home/me")
        return draw(denoiser, start, config, **options)

    studio = Studio(ModelLibrary([tiny_folder]), draw=broken)
    with pytest.raises(ValueError, match=r"Drawing failed.*log") as caught:
        studio.draw([dataclasses.replace(PLAIN, seed=13)])
    assert "secret" not in str(caught.value)
    assert "secret path" in capsys.readouterr().err
    assert studio.draw([PLAIN]).error is None


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")]
)
def test_out_of_memory_splits_the_batch(tiny_folder, error):
    sizes = []

    def small(denoiser, start, config, **options):
        sizes.append(len(start))
        if len(start) > 3:
            raise error
        return draw(denoiser, start, config, **options)

    studio = Studio(ModelLibrary([tiny_folder]), draw=small)
    recipes = [dataclasses.replace(PLAIN, seed=s) for s in range(8)]
    job = studio.draw(recipes, record="denoised")
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert "smaller batches" in job.note
    assert len(job.frames) == 3
    assert torch.equal(job.frames[-1], job.pictures[0])
    for row in (0, 3, 7):
        assert_same_pixels(job.pictures[row], alone(studio, recipes[row]))


def test_out_of_memory_late_in_a_batch_counts_no_step_twice(tiny_folder):
    def late(denoiser, start, config, *, callback, preview):
        def second(step):
            if step.index == 2 and len(start) > 2:
                raise MemoryError
            return callback(step)

        return draw(denoiser, start, config, callback=second)

    studio = Studio(ModelLibrary([tiny_folder]), draw=late)
    job = studio.submit([dataclasses.replace(PLAIN, seed=s) for s in range(4)], record="denoised")
    updates = list(studio.watch(job))
    assert max(update.step for update in updates) == 3
    assert job.steps_taken == [3] * 4
    assert len(job.frames) == 3


def test_what_is_stopped_while_memory_runs_out_is_drawn_no_further(studio, gate):
    def short(*args, **options):
        studio.stop(job)
        raise MemoryError

    gate.draw = short
    job = studio.submit([dataclasses.replace(PLAIN, seed=s) for s in range(8)])
    finish(job)
    finished = job.finished
    gate.draw = draw
    assert studio.draw([PLAIN]).error is None  # the worker has gone on to another
    assert gate.batches == [8, 1]
    assert job.finished == finished


def test_batches_grow_again_some_time_after_memory_was_short(tiny_folder, monkeypatch):
    sizes, limit = [], 2

    def small(denoiser, start, config, **options):
        sizes.append(len(start))
        if len(start) > limit:
            raise MemoryError
        return draw(denoiser, start, config, **options)

    studio = Studio(ModelLibrary([tiny_folder]), draw=small)
    recipes = [dataclasses.replace(PLAIN, seed=s) for s in range(8)]
    studio.draw(recipes)
    limit = 16
    studio.draw(recipes)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]  # not at once: it may still be short
    sizes.clear()
    now = time.monotonic
    for later in (1, 2):
        seconds = later * (generation.RECOVERY_SECONDS + 1)
        monkeypatch.setattr(generation.time, "monotonic", lambda s=seconds: now() + s)
        studio.draw(recipes)
    assert sizes == [4, 4, 8]


def test_a_cat_of_another_version_says_so_and_becomes_one_of_this(studio):
    first = studio.draw([PLAIN])
    assert first.note == ""
    old = dataclasses.replace(first.recipes[0], version="0.1.0")
    again = studio.draw([old])
    assert again.note == "Drawn first by version 0.1.0, so it may look slightly different."
    assert again.recipes == first.recipes


def test_not_enough_memory_for_one_is_a_sentence(studio, gate):
    def none(*args, **options):
        raise MemoryError

    gate.draw = none
    with pytest.raises(ValueError, match="not enough memory"):
        studio.draw([PLAIN])
    gate.draw = draw
    assert studio.draw([PLAIN]).error is None


# -- models ------------------------------------------------------------------------------------


def test_a_model_is_loaded_once(tiny_folder, monkeypatch):
    import studio.drawing.library as library

    loads = []
    load = library._load
    monkeypatch.setattr(library, "_load", lambda *args: loads.append(args) or load(*args))
    studio = Studio(ModelLibrary([tiny_folder]))
    for seed in range(3):
        studio.draw([dataclasses.replace(PLAIN, seed=seed)])
    assert len(loads) == 1


def test_a_replaced_file_is_read_again_and_said(tmp_path):
    path = save_tiny(tmp_path / "tiny.safetensors")
    studio = Studio(ModelLibrary([tmp_path]))
    before = studio.draw([PLAIN])
    time.sleep(0.01)
    save_tiny(path, seed=1)
    after = studio.draw(before.recipes)
    assert not torch.equal(before.pictures, after.pictures)
    assert "has changed since" in after.note
    assert after.recipes[0].model_hash != before.recipes[0].model_hash
    assert studio.draw(after.recipes).note == ""


def test_a_job_is_drawn_by_the_weights_that_it_names(tmp_path, gate):
    """The file is replaced after a job was accepted: its recipe and its pixels belong together."""
    path = save_tiny(tmp_path / "tiny.safetensors")
    studio = Studio(ModelLibrary([tmp_path]), draw=gate)
    old = alone(studio, PLAIN)
    gate.close()
    blocker = studio.submit([dataclasses.replace(PLAIN, steps=1)])
    wait_until(lambda: gate.steps == 1)
    waits = studio.submit([PLAIN])
    time.sleep(0.01)
    save_tiny(path, seed=1)
    newer = studio.submit([PLAIN])
    gate.event.set()
    finish(blocker, waits, newer)
    assert waits.recipes[0].model_hash != newer.recipes[0].model_hash
    assert_same_pixels(waits.pictures[0], old)
    assert_same_pixels(newer.pictures[0], alone(studio, PLAIN))
    assert gate.batches == [1, 1, 1]
    os.unlink(path)
    with pytest.raises(ValueError, match="no model"):
        studio.draw([PLAIN])


def test_variations_and_morphs_end_at_their_seeds(studio):
    first, second = PLAIN, dataclasses.replace(PLAIN, seed=5, coat="tabby")
    path = studio.draw(morph([first, second], frames=3))
    assert_same_pixels(path.pictures[0], alone(studio, first))
    assert_same_pixels(path.pictures[3], alone(studio, second))
    near = studio.draw(variations(first, count=2, strength=0.0, first_seed=7)).pictures
    assert_same_pixels(near[0], alone(studio, first))
    far = studio.draw(variations(first, count=2, strength=1.0, first_seed=5)).pictures
    assert_same_pixels(far[0], alone(studio, dataclasses.replace(first, seed=5)))


def test_a_studio_that_closes_ends_its_worker_within_a_step(studio, gate):
    gate.close()
    drawn, waits = studio.submit([PLAIN]), studio.submit([dataclasses.replace(PLAIN, steps=2)])
    wait_until(lambda: gate.steps == 1)
    closing = threading.Thread(target=studio.close)
    closing.start()
    wait_until(lambda: drawn.stopped and waits.stopped)
    assert closing.is_alive()
    gate.event.set()
    closing.join(10)
    assert not studio._worker.is_alive()
    assert gate.steps == 1
    assert drawn.done
    assert drawn.error is None  # what has formed is shown
    with pytest.raises(Busy, match="shutting down"):
        list(studio.watch(waits))
    with pytest.raises(Busy, match="shutting down"):
        studio.submit([PLAIN])


def test_a_studio_that_never_drew_closes(studio):
    studio.close()
    with pytest.raises(Busy, match="shutting down"):
        studio.submit([PLAIN])
