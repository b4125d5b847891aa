"""Jobs of the worker: waited for, watched, and compared with drawing alone."""

from __future__ import annotations

import threading

import torch

from diffusion.sampling import draw
from studio.drawing.recipe import Recipe, build_start
from studio.drawing.worker import Studio
from studio.safety.client import current_client

PLAIN = Recipe(steps=3)


def alone(studio: Studio, recipe: Recipe) -> torch.Tensor:
    """The picture of a recipe by itself, without the worker."""
    denoiser = studio.library.get().denoiser
    return draw(denoiser, build_start(denoiser, [recipe]), recipe.config(denoiser.info.sampling))[0]


def assert_same_pixels(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the last bit of a sum: batch sizes choose different kernels."""
    difference = (actual.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01


def watch_in_thread(studio: Studio, job) -> threading.Thread:
    thread = threading.Thread(target=lambda: list(studio.watch(job)))
    thread.start()
    return thread


def ask_as(client: str, studio: Studio, recipes, **options):
    """Submit recipes for a client of that name."""
    token = current_client.set(client)
    try:
        return studio.submit(recipes, **options)
    finally:
        current_client.reset(token)


def finish(*jobs) -> None:
    for job in jobs:
        job.wait(20)
        assert job.done
