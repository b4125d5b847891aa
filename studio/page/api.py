"""The page's actions as named endpoints for scripts (``gradio_client``, curl).

Pictures come back as PNG files that carry their recipes, beside those recipes as plain values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from ..drawing.job import Job
from ..drawing.png_metadata import read_recipe
from ..drawing.recipe import (
    PICTURE_STRENGTH,
    Recipe,
    consecutive,
    embed_mask,
    embed_picture,
    variations,
)
from ..drawing.worker import ENDING, Busy, Studio
from .explore.forms import read_map_form
from .explore.stream import dream
from .files import save_png
from .films import Film, Pace, film_of, morph_of, require_steps
from .forms import (
    number,
    read_count,
    read_morph_form,
    read_picture,
    read_recipe_form,
    read_upload,
    text,
    uploaded,
    whole_number,
)


class Endpoints:
    """The functions behind the endpoints; each docstring is what ``/?view=api`` shows."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def generate(
        self, seed: int = 0, count: int = 1, coat: str = "", steps: int | None = None,
        sampler: str | None = None, guidance: float | None = None, model: str = "",
    ) -> Iterator[dict]:  # fmt: skip
        """Draw ``count`` cats (1 to 16) from consecutive seeds; a student, in its own steps."""
        first = self._recipe(seed, coat, steps, sampler, guidance, model)
        yield from self._draw(consecutive(first, read_count(count)))

    def variations(
        self, seed: int = 0, count: int = 9, strength: float = 0.25, first_seed: int = 0,
        coat: str = "", steps: int | None = None, sampler: str | None = None,
        guidance: float | None = None,
        model: str = "",
    ) -> Iterator[dict]:  # fmt: skip
        """Draw ``count`` variations of the cat of ``seed``: strength 0 is that cat, 1 another."""
        recipe = self._recipe(seed, coat, steps, sampler, guidance, model)
        recipe = recipe.with_coat(self.studio.library.get(recipe.model).info)  # all have its coat
        yield from self._draw(
            variations(
                recipe, count=read_count(count), strength=number(strength, "Strength"),
                first_seed=whole_number(first_seed, "The first seed"),
            )
        )  # fmt: skip

    def from_picture(
        self, picture: dict, strength: float = PICTURE_STRENGTH, seed: int = 0, coat: str = "",
        steps: int | None = None, sampler: str | None = None, guidance: float | None = None,
        model: str = "",
    ) -> Iterator[dict]:  # fmt: skip
        """Add noise to an uploaded picture and turn it into a cat (SDEdit).

        The strength, above 0 and at most 1, says how much, at any number of steps.
        """
        recipe = self._recipe(seed, coat, steps, sampler, guidance, model)
        embedded = read_picture(_path(picture), self._size(recipe))
        strength = number(strength, "Strength")
        yield from self._draw([dataclasses.replace(recipe, picture=embedded, strength=strength)])

    def repaint(
        self, picture: dict, mask: dict, seed: int = 0, coat: str = "", steps: int | None = None,
        sampler: str | None = None, guidance: float | None = None, model: str = "",
    ) -> Iterator[dict]:  # fmt: skip
        """Redraw the white part of ``mask``. Every other pixel of the picture stays as it is."""
        recipe = self._recipe(seed, coat, steps, sampler, guidance, model)
        size = self._size(recipe)
        shape, embedded = read_upload(
            _path(picture), lambda image: (image.info["size"], embed_picture(image, size))
        )
        painted_shape, painted = read_upload(
            _path(mask), lambda image: (image.info["size"], embed_mask(image, size)), "The mask"
        )
        if shape != painted_shape:
            raise ValueError(
                "The mask is {}x{}, but the picture is {}x{}; they must be of one size.".format(
                    *painted_shape, *shape
                )
            )
        yield from self._draw([dataclasses.replace(recipe, picture=embedded, mask=painted)])

    def restore(self, picture: dict) -> Iterator[dict]:
        """Draw again the cat of a PNG that came from here."""
        yield from self._draw([read_recipe(uploaded(_path(picture)))])

    def animate(
        self, seed: int = 0, coat: str = "", steps: int | None = None, sampler: str | None = None,
        guidance: float | None = None, model: str = "", noisy: bool = False,
        seconds: float = Pace.seconds,
        speed: float = Pace.speed, hold: float = Pace.hold,
    ) -> Iterator[dict]:  # fmt: skip
        """How a cat formed, as GIF and MP4."""
        recipe = self._recipe(seed, coat, steps, sampler, guidance, model)
        pace = Pace(seconds, speed, hold)
        require_steps()
        job = self.studio.submit([recipe], record="noisy" if noisy else "denoised")
        yield from self._watch(job)
        yield _film(film_of(job, pace))

    def morph(
        self, seeds: list[int], coats: list[str] | None = None, frames: int = 12,
        steps: int | None = None, sampler: str | None = None, guidance: float | None = None,
        model: str = "",
    ) -> Iterator[dict]:  # fmt: skip
        """A film that turns one cat into the next, in a loop, as GIF and MP4."""
        if coats is not None and not isinstance(coats, list):
            raise ValueError("The coats must be a list.")
        settings = self._settings(steps, sampler, guidance, model)
        recipes = read_morph_form(
            seeds, coats or [""], frames, *settings, model, self.studio.library
        )
        job = self.studio.submit(recipes)
        yield from self._watch(job)
        yield _film(morph_of(job))

    def explore(
        self, seeds: list[int], x: float = 0.5, y: float = 0.5, coats: list[str] | None = None,
        model: str = "", fine: bool = False,
    ) -> Iterator[dict]:  # fmt: skip
        """The cat between four: at x 0, y 0 the first, at 1, 0 the second, at 0, 1 the third.

        It is drawn quickly, in few steps; ``fine`` draws it as ``generate`` would.
        """
        recipe = read_map_form(seeds, coats, x, y, model, self.studio.library)
        yield from self._draw([recipe], live=fine is not True)

    def dream(
        self, seed: int = 0, speed: float = 0.3, coat: str = "", model: str = "",
        frames: int | None = None,
    ) -> Iterator[dict]:  # fmt: skip
        """A stream of frames from cat to cat, ``speed`` of them a second, in step with the clock.

        It goes on until its reader leaves, or for so many ``frames``.
        """
        yield from dream(self.studio, seed, speed, coat, model, frames)

    def _settings(
        self, steps: int | None, sampler: str | None, guidance: float | None, model: str
    ) -> tuple[Any, Any, Any]:
        """The sampling that was asked for, else what suits the model."""
        usual = self.studio.library.get(text(model, "The model")).info.sampling
        return (
            usual.num_steps if steps is None else steps,
            usual.sampler if sampler is None else sampler,
            usual.guidance if guidance is None else guidance,
        )

    def _recipe(
        self, seed: int, coat: str, steps: int | None, sampler: str | None,
        guidance: float | None, model: str,
    ) -> Recipe:  # fmt: skip
        settings = self._settings(steps, sampler, guidance, model)
        return read_recipe_form(seed, coat, *settings, model)

    def _draw(self, recipes: list[Recipe], *, live: bool = False) -> Iterator[dict]:
        job = self.studio.submit(recipes, live=live)
        yield from self._watch(job)
        if job.stopped or job.pictures is None:  # half-formed cats are nobody's answer
            raise Busy(ENDING)
        files = [
            _file(save_png(picture, recipe))
            for picture, recipe in zip(job.pictures, job.recipes, strict=True)
        ]
        yield {
            "done": True,
            "pictures": files,
            "recipes": [recipe.to_dict() for recipe in job.recipes],
            "seconds": round(job.seconds, 3),
            "note": job.note,
        }

    def _watch(self, job: Job) -> Iterator[dict]:
        """Progress; a script that goes away is noticed here, and its job stopped."""
        for update in self.studio.watch(job):
            if not update.done:
                yield {"done": False, "step": update.step, "of": update.total}

    def _size(self, recipe: Recipe) -> int:
        return self.studio.library.get(recipe.model).picture_size


def add_endpoints(studio: Studio) -> None:
    """Add the endpoints to the Blocks that is being built; the ``Studio`` bounds what waits."""
    endpoints = Endpoints(studio)
    for name in (
        "generate", "animate", "morph", "variations", "from_picture", "repaint", "restore",
        "explore", "dream",
    ):  # fmt: skip
        gr.api(getattr(endpoints, name), api_name=name, concurrency_limit=None)


def _path(value: Any) -> str | None:
    """Path that a file input names; ``read_upload`` checks that it was uploaded."""
    return value.get("path") if isinstance(value, dict) else None


def _file(path: str) -> dict:
    return FileData(path=path).model_dump()


def _film(film: Film) -> dict:
    return {"done": True, "gif": _file(film.gif), "mp4": _file(film.mp4)}
