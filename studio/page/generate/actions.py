"""What the Generate tab does, films aside: from the values of its form to what changes on the page.

Each action returns or yields what changes, by the names in ``Shown``; it knows no component.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from diffusion.output.pictures import from_image

from ...drawing.job import Job
from ...drawing.png_metadata import encode_png, read_recipe
from ...drawing.recipe import Recipe, consecutive, variations
from ...drawing.worker import Busy, Studio, Update
from ..examples import Examples
from ..files import png_name, save_file, save_half_a_cat, still_there
from ..forms import (
    MAX_CATS,
    current_recipe,
    number,
    random_seed,
    read_count,
    read_link,
    read_mask_layer,
    read_picture,
    read_recipe_form,
)
from ..shown import Shown
from ..stage import cats_text, progress_text, result_text, stage_html, status_html
from ..thumbs import examples_html
from ..visits import Visits
from .form_actions import FormActions, count_choice

NO_PROBLEM: Shown = {"problem": ""}  # beside a tool that has started
STRIP_LENGTH = 64  # files of this visit that are kept at hand


class GenerateActions:
    """What visitors do in the tab; the ``Studio`` does the drawing."""

    def __init__(self, studio: Studio, examples: Examples) -> None:
        self.studio, self.examples, self.visits = studio, examples, Visits(studio)
        self.form = FormActions(studio)

    # -- cats ---------------------------------------------------------------------------------

    def generate(
        self, count: Any, fresh: Any, seed: Any, coat: Any, steps: Any, sampler: Any,
        guidance: Any, model: Any, paths: list[str], request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """Cats from consecutive seeds; ``fresh`` takes a new first seed."""
        seed = random_seed() if fresh else seed
        try:
            first = read_recipe_form(seed, coat, steps, sampler, guidance, model)
            recipes = consecutive(first, read_count(count))
        except ValueError as error:
            yield _failed(error)
            return
        yield from self.show(recipes, paths, request, begun={"seed": seed})

    def vary(
        self, recipe: dict | None, strength: float, paths: list[str], request: gr.Request
    ) -> Iterator[Shown]:
        """Nine cats around the one on the stage."""
        try:
            recipes = variations(
                current_recipe(recipe),
                count=9,
                strength=number(strength, "How different"),
                first_seed=random_seed(),
            )
        except ValueError as error:
            yield _refused(error)
            return
        yield from self.show(recipes, paths, request, begun=NO_PROBLEM)

    def start_from_picture(
        self, editor: dict | None, strength: float, fresh: Any, seed: Any, coat: Any, steps: Any,
        sampler: Any, guidance: Any, model: Any, paths: list[str], request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """A cat that begins as a picture under noise."""
        seed = random_seed() if fresh else seed
        try:
            recipe = read_recipe_form(seed, coat, steps, sampler, guidance, model)
            recipe = self.begun_as_picture(recipe, editor, strength)
        except ValueError as error:
            yield _refused(error)
            return
        yield from self.show([recipe], paths, request, begun={"seed": seed, **NO_PROBLEM})

    def repaint(
        self, editor: dict | None, fresh: Any, seed: Any, coat: Any, steps: Any, sampler: Any,
        guidance: Any, model: Any, paths: list[str], request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """The painted part of a picture anew, the rest as it was."""
        seed = random_seed() if fresh else seed
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
            yield _refused(error)
            return
        yield from self.show([recipe], paths, request, begun={"seed": seed, **NO_PROBLEM})

    def restore(self, path: str | None, paths: list[str], request: gr.Request) -> Iterator[Shown]:
        """The cat of a PNG that was saved from this page, and its settings."""
        try:
            if path and not still_there([path]):
                raise ValueError(
                    "This cat is no longer stored here. Its PNG or its link brings it back."
                )
            recipe = read_recipe(path) if path else current_recipe(None)
            controls = self.form.controls(recipe)
        except ValueError as error:
            yield _refused(error)
            return
        begun: Shown = {**controls, **NO_PROBLEM}
        yield from self.show([recipe], paths, request, begun=begun)

    def restore_from_strip(
        self, paths: list[str], event: gr.SelectData, request: gr.Request
    ) -> Iterator[Shown]:
        """Cats whose recipes, a list, the browser has kept: one that was clicked, or a grid.

        The index is 1 for an example, which does not become one of the visitor's own.
        """
        try:
            recipes = [Recipe.from_dict(values) for values in event.value[:MAX_CATS]]
            controls = self.form.controls(recipes[0])
        except ValueError as error:  # its model may have gone
            yield _failed(error)
            return
        except (TypeError, IndexError, KeyError):
            yield _failed(ValueError("This cat cannot be read."))
            return
        yield from self.show(recipes, paths, request, begun={**controls}, mine=event.index != 1)

    def open_cat(self, opened: str, paths: list[str]) -> Shown:
        """One cat of the grid on the stage, whose files come first; or, at -4, all four of it."""
        index = int(opened) if re.fullmatch(r"-?[0-9]{1,3}", opened or "") else 0
        path = paths[max(index, 0)] if max(index, 0) < len(paths) else None
        try:
            if path is None or not still_there([path]):
                raise ValueError(
                    "This cat is no longer stored here. Its PNG or its link brings it back."
                )
            recipe = read_recipe(path)
            controls = self.form.controls(recipe)
        except ValueError as error:
            return _failed(error)
        status = status_html(cats_text(recipe, max(1, -index)))
        return {"status": status, "recipe": recipe.to_dict(), "shown": path, **controls}

    # -- a visit's first moments --------------------------------------------------------------

    def open_page(self, request: gr.Request, kept: str = "") -> Shown:
        """What a new visit sees: the model list, and the settings of its link, else those that its
        browser ``kept``."""
        query = dict(request.query_params) if request else {}
        linked = "seed" in query
        opened: Shown = {"linked": [], **self.form.kept(kept)}
        if linked:
            opened = {**opened, **self.form.plain(), "fresh": opened["fresh"]}
            try:
                recipes = read_link(query, self.studio.library)
                controls = self.form.controls(recipes[0])
                opened = {**opened, "count": count_choice(len(recipes)), **controls}
                opened["linked"] = [recipe.to_dict() for recipe in recipes]
            except ValueError:
                sentence = "This link contains settings that do not work here."
                opened["linked"], opened["status"] = None, status_html(sentence, error=True)
        examples: list[str] = []
        try:
            examples = self.examples.files()
        except ValueError as error:  # a full disk, say
            opened["status"] = status_html(str(error), error=True)
        opened["examples"] = examples_html(examples)
        opened["shown"] = examples[0] if examples else ""
        return opened

    def first_cat(
        self, linked: list[dict] | None, shown: str, paths: list[str], request: gr.Request
    ) -> Iterator[Shown]:
        """The cat of a link forms by itself; any other visit finds the first example there, and
        what was wrong with its link (``linked`` is None) stays below it."""
        if linked:
            yield from self.show([Recipe.from_dict(r) for r in linked], paths, request)
        elif shown:
            recipe = read_recipe(shown)
            with Image.open(shown) as image:
                stage = stage_html(from_image(image)[None], [recipe])
            example: Shown = {"stage": stage, "recipe": recipe.to_dict()}
            if linked is not None:
                text = f"{recipe.describe()} · an example"
                example["status"] = status_html(text)
            yield example

    def begun_as_picture(self, recipe: Recipe, editor: dict | None, strength: Any) -> Recipe:
        """A recipe that begins as what is in the editor. Raises ValueError."""
        picture = read_picture((editor or {}).get("composite"), self._size(recipe.model))
        share = number(strength, "How much to change")
        return dataclasses.replace(recipe, picture=picture, strength=share)

    def _size(self, model: str) -> int:
        return self.studio.library.get(model).picture_size

    # -- a drawing on the stage ---------------------------------------------------------------

    def show(
        self, recipes: Sequence[Recipe], paths: list[str], request: gr.Request, *,
        begun: Shown | None = None, mine: bool = True,
    ) -> Iterator[Shown]:  # fmt: skip
        """Draw recipes, showing them as they form; ``begun`` is shown once that is sure.

        What the visit was drawing on its stage before ends without another word. With ``mine`` the
        cats become the visitor's own.
        """
        try:
            job = self.studio.submit(recipes, record="preview")
        except (ValueError, Busy) as error:
            yield _failed(error)
            return
        with self.visits.stage_for(job, request) as (before, is_mine):
            earlier: Shown = {}
            if before is not None and before.pictures is not None:  # it forms no further
                earlier = {"stage": stage_html(before.pictures, before.recipes, stopped=True)}
            seen = 0  # steps
            try:
                for update in self.visits.watch(job, request):
                    if not is_mine():
                        return
                    if not update.done:
                        is_news = update.step != seen
                        forming = _forming(job, update, is_news=is_news)
                        yield {**earlier, **forming, **(begun or {})}
                        earlier, begun, seen = {}, None, update.step
                shown = self._finished(job, paths, mine=mine)
            except ValueError as error:
                shown = _failed(error)
            if is_mine():
                yield {**shown, **(begun or {})}

    def _finished(self, job: Job, paths: list[str], *, mine: bool = True) -> Shown:
        if job.pictures is None:
            return {"status": status_html("Stopped before the first step.")}
        text = result_text(
            job.recipes[0], len(job.recipes), job.seconds, stopped=job.stopped, note=job.note
        )
        if job.stopped:
            pngs, shown = [], save_half_a_cat(job.pictures[0])
            paths = still_there(paths)
        else:
            pngs = [
                encode_png(picture, recipe)
                for picture, recipe in zip(job.pictures, job.recipes, strict=True)
            ]
            files = [
                save_file(png, png_name(recipe))
                for png, recipe in zip(pngs, job.recipes, strict=True)
            ]
            shown, paths = files[0], [*files, *_without(paths, job.recipes)][:STRIP_LENGTH]
        stage = stage_html(
            job.pictures, job.recipes, stopped=job.stopped, frames=job.frames,
            png=next(iter(pngs), None), mine=mine,
        )  # fmt: skip
        return {
            "stage": stage,
            "status": status_html(text),
            "paths": paths,
            "recipe": job.recipes[0].to_dict(),
            "shown": shown,
        }


def _forming(job: Job, update: Update, *, is_news: bool) -> Shown:
    """How far a job is; pictures are sent once for each step."""
    forming: Shown = {"status": status_html(progress_text(update), working=True)}
    if update.pictures is not None and is_news:
        forming["stage"] = stage_html(update.pictures, job.recipes, forming=True)
    return forming


def _failed(error: Exception) -> Shown:
    return {"status": status_html(str(error), error=True)}


def _refused(error: Exception) -> Shown:
    """A tool that could not start says why beside itself, and changes nothing."""
    return {"problem": status_html(str(error), error=True)}


def _without(paths: Sequence[str], recipes: Sequence[Recipe]) -> list[str]:
    """Those files that are still there and show other cats."""
    names = {png_name(recipe) for recipe in recipes}  # so that few files need be read
    others = []
    for path in still_there(paths):
        with suppress(ValueError):  # cleared away since the last line
            if Path(path).name not in names or read_recipe(path) not in recipes:
                others.append(path)
    return others
