"""What the Generate tab does, films aside: from the values of its form to what changes on the page.

Each action returns or yields what changes, by the names in ``Shown``; it knows no component.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from PIL import Image

from diffusion.checkpoint import CheckpointInfo
from diffusion.pictures import from_image

from ..drawing.png_metadata import read_recipe
from ..drawing.recipe import Recipe, consecutive, max_steps, plain_recipe, variations
from ..drawing.worker import Busy, Job, Studio, Update
from .examples import FIRST_SEED, Examples
from .files import enlarge, save_half_a_cat, save_png, save_zip, still_there
from .forms import (
    ANY_COAT,
    current_recipe,
    number,
    random_seed,
    read_count,
    read_link,
    read_mask_layer,
    read_picture,
    read_recipe_form,
    text,
)
from .shown import Controls, Shown
from .stage import progress_text, result_text, stage_html, status_html
from .visits import Visits

STRIP_LENGTH = 24  # cats of this visit that are kept at hand
SAMPLER_HINTS = {
    "dpmpp_2m": "DPM-Solver++(2M): best for few steps. The default.",
    "euler": "Euler: simple and robust; needs more steps.",
    "heun": "Heun: accurate from 18 steps on; each step takes twice as long.",
    "ddim": "DDIM: deterministic. Here it is the same as Euler.",
    "ddpm": "DDPM: the original method; adds noise at each step and needs hundreds of "
    "steps, up to 1,000.",
}


def guidance_label(info: CheckpointInfo) -> str:
    """What guidance does to the cats of a model."""
    if info.guide:
        return "Guidance: clearer cats and coats, less variety (1 is off)"
    if info.labels:
        return "Guidance: a clearer coat, but slower; no effect on any coat (1 is off)"
    return "Guidance: has no effect with this model"


class GenerateActions:
    """What visitors do in the tab; the ``Studio`` does the drawing."""

    def __init__(self, studio: Studio, examples: Examples) -> None:
        self.studio, self.examples, self.visits = studio, examples, Visits(studio)

    # -- cats ---------------------------------------------------------------------------------

    def generate(
        self, count: Any, seed: Any, coat: Any, steps: Any, sampler: Any, guidance: Any, model: Any,
        scale: int, strip: list[str], request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """Cats from consecutive seeds."""
        try:
            first = read_recipe_form(seed, coat, steps, sampler, guidance, model)
            recipes = consecutive(first, read_count(count))
        except ValueError as error:
            yield _failed(error)
            return
        yield from self._draw(recipes, scale, strip, request)

    def vary(
        self, recipe: dict | None, strength: float, scale: int, strip: list[str],
        request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """Nine cats around the one on the stage."""
        try:
            recipes = variations(
                current_recipe(recipe),
                count=9,
                strength=number(strength, "How different"),
                first_seed=random_seed(),
            )
        except ValueError as error:
            yield _failed(error)
            return
        yield from self._draw(recipes, scale, strip, request)

    def start_from_picture(
        self, editor: dict | None, strength: float, seed: Any, coat: Any, steps: Any, sampler: Any,
        guidance: Any, model: Any, scale: int, strip: list[str], request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """A cat that begins as a picture under noise."""
        try:
            recipe = read_recipe_form(seed, coat, steps, sampler, guidance, model)
            embedded = read_picture((editor or {}).get("composite"), self._size(recipe.model))
            strength = number(strength, "How much to change")
            recipe = dataclasses.replace(recipe, picture=embedded, strength=strength)
        except ValueError as error:
            yield _failed(error)
            return
        yield from self._draw([recipe], scale, strip, request)

    def repaint(
        self, editor: dict | None, seed: Any, coat: Any, steps: Any, sampler: Any, guidance: Any,
        model: Any, scale: int, strip: list[str], request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """The painted part of a picture anew, the rest as it was."""
        try:
            recipe = read_recipe_form(seed, coat, steps, sampler, guidance, model)
            size = self._size(recipe.model)
            layers = (editor or {}).get("layers") or [None]
            recipe = dataclasses.replace(
                recipe,
                picture=read_picture((editor or {}).get("background"), size),
                mask=read_mask_layer(layers[0], size),
            )
        except ValueError as error:
            yield _failed(error)
            return
        yield from self._draw([recipe], scale, strip, request)

    def restore(
        self, path: str | None, scale: int, strip: list[str], request: gr.Request
    ) -> Iterator[Shown]:
        """The cat of a PNG that was saved from this page, and its settings."""
        try:
            if path and not still_there([path]):
                raise ValueError(
                    "This cat is no longer stored here. Its PNG or its link brings it back."
                )
            recipe = read_recipe(path) if path else current_recipe(None)
            controls = self._controls(recipe)
        except ValueError as error:
            yield _failed(error)
            return
        for drawn in self._draw([recipe], scale, strip, request):
            yield {**drawn, **controls}

    def restore_from_strip(
        self, scale: int, strip: list[str], event: gr.SelectData, request: gr.Request
    ) -> Iterator[Shown]:
        """The cat that was clicked in the strip; or on the stage, whose cats come first there."""
        index = event.index if isinstance(event.index, int) else -1
        path = strip[index] if 0 <= index < len(strip) else None
        yield from self.restore(path, scale, strip, request)

    # -- a visit's first moments --------------------------------------------------------------

    def open_page(self, request: gr.Request) -> Shown:
        """What a new visit sees: the model list, and the settings of its link."""
        query = dict(request.query_params) if request else {}
        info = self.studio.library.get("").info
        first = plain_recipe(info.sampling, seed=FIRST_SEED, coat=info.taught_label)
        opened: Shown = {"count": 1, "linked": [], **self._controls(first)}
        if "seed" in query:
            try:
                recipes = read_link(query, self.studio.library.names)
                linked = [recipe.to_dict() for recipe in recipes]
                controls = self._controls(recipes[0])
                opened = {"count": len(recipes), "linked": linked, **controls}
            except ValueError:
                sentence = "This link contains settings that do not work here."
                opened["linked"], opened["status"] = None, status_html(sentence, error=True)
        strip = []
        try:
            strip = self.examples.files()
        except ValueError as error:  # a full disk, say
            opened["status"] = status_html(str(error), error=True)
        opened["paths"] = opened["strip"] = strip
        return opened

    def first_cat(
        self, linked: list[dict] | None, scale: int, strip: list[str], request: gr.Request
    ) -> Iterator[Shown]:
        """The cat of a link forms by itself; any other visit finds the first example there, and
        what was wrong with its link (``linked`` is None) stays below it."""
        if linked:
            yield from self._draw([Recipe.from_dict(r) for r in linked], scale, strip, request)
        elif strip:
            recipe = read_recipe(strip[0])
            with Image.open(strip[0]) as image:
                stage = stage_html(from_image(image)[None], [recipe])
            example: Shown = {
                "stage": stage,
                "recipe": recipe.to_dict(),
                "shown": strip[0],
                "download": gr.update(value=enlarge(strip[0], scale), interactive=True),
            }
            if linked is not None:
                text = f"{recipe.describe()} · an example; click Generate to make your own"
                example["status"] = status_html(text)
            yield example

    # -- the form -----------------------------------------------------------------------------

    def rescale(self, shown: str | None, scale: int) -> Any:
        """The download in another size."""
        if shown is None or not still_there([shown]):
            return gr.skip()
        return gr.update(value=enlarge(shown, scale))

    def take_cat(self, shown: str | None) -> Any:
        """The cat on the stage as the picture to paint on, large enough for a brush."""
        if shown is None or not still_there([shown]):
            return gr.skip()
        with Image.open(shown) as image:
            large = image.convert("RGB").resize((512, 512), Image.Resampling.NEAREST)
        return {"background": large, "layers": [], "composite": None}

    def choose_sampler(self, sampler: str, model: str) -> Shown:
        """The step range and hint that belong to a sampler."""
        sampler = text(sampler, "The sampler")
        most = max_steps(sampler)
        usual = self.studio.library.get(text(model, "The model")).info.sampling.num_steps
        value = most if sampler == "ddpm" else usual
        steps = gr.update(maximum=most, value=value)
        return {"steps": steps, "hint": SAMPLER_HINTS.get(sampler, "")}

    def list_models(self) -> Any:
        """The models that are there by now: one can appear while the page is open."""
        return gr.update(choices=self.studio.library.choices)

    def choose_model(self, model: str, coat: str) -> Shown:
        """The coats that a model knows, one that is its own being what it was chosen for; and the
        sampling that suits it."""
        coats = self._coats(model)
        own = [name for name in coats if name not in self._coats("")]
        coat = own[-1] if own else coat if coat in coats else ANY_COAT
        info = self.studio.library.get(model).info
        usual = info.sampling
        return {
            "coat": gr.update(choices=coats, value=coat),
            "morph_coats": gr.update(choices=coats, value=[]),
            "steps": gr.update(maximum=max_steps(usual.sampler), value=usual.num_steps),
            "sampler": usual.sampler,
            "hint": SAMPLER_HINTS[usual.sampler],
            "guidance": gr.update(value=usual.guidance, label=guidance_label(info)),
        }

    def _controls(self, recipe: Recipe) -> Controls:
        """The form as it stands for a recipe.

        Raises ValueError for a model or coat that is not here, while the form has its own values.
        """
        model = self.studio.library.get(recipe.model)
        model.info.label_index(recipe.coat)
        coats = self._coats(model.name)
        return {
            "seed": recipe.seed,
            "coat": gr.update(
                choices=coats, value=ANY_COAT if recipe.any_coat else recipe.coat or ANY_COAT
            ),
            "steps": gr.update(maximum=max_steps(recipe.sampler), value=recipe.steps),
            "sampler": recipe.sampler,
            "guidance": gr.update(value=recipe.guidance, label=guidance_label(model.info)),
            "model": gr.update(choices=self.studio.library.choices, value=model.name),
            "hint": SAMPLER_HINTS[recipe.sampler],
            "morph_coats": gr.update(choices=coats),
        }

    def _coats(self, model: str) -> list[str]:
        return [ANY_COAT, *self.studio.library.get(model).info.labels]

    def _size(self, model: str) -> int:
        return self.studio.library.get(model).picture_size

    # -- a drawing on the stage ---------------------------------------------------------------

    def _draw(
        self, recipes: Sequence[Recipe], scale: int, strip: list[str], request: gr.Request
    ) -> Iterator[Shown]:
        """Draw recipes, showing them as they form.

        What the visit was drawing on its stage before ends without another word.
        """
        try:
            job = self.studio.submit(recipes, record="denoised")
        except (ValueError, Busy) as error:
            yield _failed(error)
            return
        with self.visits.stage_for(job, request) as (before, is_mine):
            if before is not None and before.pictures is not None:  # it forms no further
                yield {"stage": stage_html(before.pictures, before.recipes, stopped=True)}
            try:
                for update in self.visits.watch(job, request):
                    if not is_mine():
                        return
                    if not update.done:
                        yield _forming(job, update)
                shown = self._finished(job, scale, strip)
            except ValueError as error:
                shown = _failed(error)
            if is_mine():
                yield shown

    def _finished(self, job: Job, scale: int, strip: list[str]) -> Shown:
        if job.pictures is None:
            return {"status": status_html("Stopped before the first step.")}
        text = result_text(
            job.recipes[0], len(job.recipes), job.seconds, stopped=job.stopped, note=job.note
        )
        steps = len(job.frames)
        if job.stopped:
            shown, strip = save_half_a_cat(job.pictures[0]), still_there(strip)
        else:
            files = [
                save_png(picture, recipe)
                for picture, recipe in zip(job.pictures, job.recipes, strict=True)
            ]
            shown = files[0]
            strip = [*files, *_without(strip, job.recipes)][:STRIP_LENGTH]
        return {
            "stage": stage_html(job.pictures, job.recipes, stopped=job.stopped, frames=job.frames),
            "status": status_html(text),
            "paths": strip,
            "strip": strip,
            "recipe": job.recipes[0].to_dict(),
            "shown": shown,
            "download": gr.update(value=enlarge(shown, scale), interactive=True),
            "zip": gr.update(value=save_zip(strip), interactive=bool(strip)),
            "walk": gr.update(maximum=max(steps, 2), value=steps, interactive=steps > 1),
        }


def _forming(job: Job, update: Update) -> Shown:
    forming: Shown = {"status": status_html(progress_text(update))}
    if update.pictures is not None:
        forming["stage"] = stage_html(update.pictures, job.recipes, forming=True)
    return forming


def _failed(error: Exception) -> Shown:
    return {"status": status_html(str(error), error=True)}


def _without(strip: Sequence[str], recipes: Sequence[Recipe]) -> list[str]:
    """Those files of a strip that are still there and show other cats."""
    others = []
    for path in still_there(strip):
        with suppress(ValueError):  # cleared away since the last line
            if read_recipe(path) not in recipes:
                others.append(path)
    return others
