"""Settings that redraw the stage as they are moved, where a student draws: its cats are there
before the hand has moved on. With other models they wait for a click.

What moving one does is an action like those of ``GenerateActions``. It answers nothing where the
chosen model is no student, and where something is wrong, of which the click will tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...drawing.recipe import Recipe, variations
from ..forms import current_recipe, number, read_recipe_form, text
from ..shown import Shown
from .actions import GenerateActions

OTHER = 1 << 16  # turns a cat's seed into the first of those that the slider turns it towards


class LiveSettings:
    """What moving a coat or a slider does by itself."""

    def __init__(self, actions: GenerateActions) -> None:
        self.actions, self.library = actions, actions.studio.library

    def choose_coat(
        self, recipe: dict | None, coat: Any, model: Any, paths: list[str], request: gr.Request
    ) -> Iterator[Shown]:
        """The cat on the stage in another coat."""
        try:
            now = self._on_stage(recipe, model)
            form = now.seed, coat, now.steps, now.sampler, now.guidance, now.model
            chosen = read_recipe_form(*form)
        except ValueError:
            return
        recoated = dataclasses.replace(now, coat=chosen.coat, any_coat=chosen.any_coat)
        yield from self.actions.show([recoated], paths, request)

    def vary(
        self, recipe: dict | None, strength: Any, model: Any, paths: list[str], request: gr.Request
    ) -> Iterator[Shown]:
        """The same nine cats, as far from the one on the stage as the slider says."""
        try:
            now, distance = self._on_stage(recipe, model), number(strength, "How different")
            first = now.seed ^ OTHER
            if now.towards_seed == first:  # it is itself one of such nine
                now = dataclasses.replace(now, towards=0.0)
            around = variations(now, count=9, strength=distance, first_seed=first)
        except ValueError:
            return
        yield from self.actions.show(around, paths, request, mine=False)

    def change_picture(
        self, editor: dict | None, strength: Any, seed: Any, coat: Any, steps: Any, sampler: Any,
        guidance: Any, model: Any, paths: list[str], request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """The cat that the picture becomes, with as much noise as the slider says."""
        try:
            self._require_student(model)
            recipe = read_recipe_form(seed, coat, steps, sampler, guidance, model)
            begun = self.actions.begun_as_picture(recipe, editor, strength)
        except ValueError:
            return
        yield from self.actions.show([begun], paths, request, mine=False)

    def _on_stage(self, recipe: dict | None, model: Any) -> Recipe:
        """The cat there. Raises ValueError unless the chosen model drew it, and is a student."""
        now = current_recipe(recipe)
        self._require_student(model)
        if now.model != model:
            raise ValueError("Another model drew this cat.")
        return now

    def _require_student(self, model: Any) -> None:
        if not self.library.get(text(model, "The model")).info.teacher:
            raise ValueError("This model takes its time.")
