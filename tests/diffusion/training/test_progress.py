"""How far a run is: its learning rate, its best held-out loss and its patience."""

from dataclasses import replace

import pytest
from training_runs import config, denoising, info, load

from diffusion.training import objectives
from diffusion.training.progress import Progress, lr_factor

pytestmark = pytest.mark.usefixtures("one_sample")


def test_the_learning_rate_rises_stays_and_falls():
    flat = config(images=1000, warmup_images=100, decay_fraction=0.4, batch_size=10, holdout=0)
    factor = {images: lr_factor(Progress(images=images), flat) for images in range(0, 1000, 10)}
    assert factor[0] == 0.1  # never a step of nothing
    assert factor[40] == 0.5
    assert {factor[images] for images in range(90, 600, 10)} == {1.0}
    assert factor[800] == pytest.approx(0.5)
    assert factor[990] == pytest.approx(0.025)
    timed = config(images=None, minutes=10.0, warmup_images=0, decay_fraction=0.5)
    at = {minute: lr_factor(Progress(seconds=60.0 * minute), timed) for minute in (0, 5, 7.5, 10)}
    assert at == {0: 1.0, 5: 1.0, 7.5: 0.5, 10: 0.0}
    constant = config(images=8, warmup_images=0, decay_fraction=0.0)
    assert lr_factor(Progress(images=8), constant) == 1.0


def test_a_held_out_loss_about_as_low_as_the_lowest_is_good():
    """Few pictures are held out, and their loss wavers: only what is clearly higher has risen."""
    progress, kept = Progress(), []
    for images, loss in enumerate([0.5, 0.4, 0.405, 0.41, 0.409, 0.39, 0.399]):
        progress.images = images
        if progress.take_in(loss):
            kept.append(images)
    budget = config(images=8)
    assert kept == [0, 1, 2, 5]
    assert (progress.best_loss, progress.best_images) == (0.39, 5)
    assert (progress.last_loss, progress.risen(budget)) == (0.399, 1 / 8)
    progress.take_in(0.395)
    assert (progress.best_loss, progress.best_images, progress.risen(budget)) == (0.39, 6, 0)
    assert Progress().take_in(None)


@pytest.mark.parametrize("every", [4, 8])
def test_patience_is_a_share_of_the_budget_however_often_it_saves(
    pictures, tmp_path, monkeypatch, every
):
    losses = iter([0.5, 0.4, *[0.6] * 20])
    monkeypatch.setattr(objectives, "heldout_loss", lambda *_, **__: next(losses))
    settings = config(images=80, save_images=every, patience=0.39)
    run = denoising(settings, info(), load(pictures), tmp_path)
    assert run.train()
    assert run.progress.images == 2 * every + 32


def test_patience_is_a_share_of_the_budget_as_it_is_now(pictures, tmp_path, monkeypatch):
    """What was spent of a smaller budget counts for less of a larger one, and is not forgotten."""
    losses = iter([0.4, *[0.6] * 20])
    monkeypatch.setattr(objectives, "heldout_loss", lambda *_, **__: next(losses))
    images, settings = load(pictures), config(images=16, save_images=8, patience=0.6)
    assert denoising(settings, info(), images, tmp_path).train()
    longer = replace(settings, images=80)
    run = denoising(longer, info(), images, tmp_path)
    assert run.progress.risen(longer) == 0.1
    assert run.train()
    assert run.progress.images == 8 + 48
