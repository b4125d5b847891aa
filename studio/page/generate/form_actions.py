"""What the form of the Generate tab shows: for a model, for a recipe, for one who comes back.

Each action returns what changes, by the names in ``Shown``; it knows no component.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from diffusion.checkpoint import CheckpointInfo

from ...drawing.recipe import Recipe, plain_recipe, step_limits, usual_steps
from ...drawing.worker import Studio
from ..examples import FIRST_SEED
from ..files import SCALES, usual_scale
from ..forms import ANY_COAT, read_count, read_recipe_form, text, whole_number
from ..shown import Controls, Shown

COUNTS = (1, 4, 9, 16)  # cats at once: squares
MAX_KEPT = 10_000  # characters of settings that a browser kept
SAMPLER_HINTS = {
    "dpmpp_2m": "DPM-Solver++(2M): best for few steps. The default.",
    "fitted": "Fitted: for a cat in 4 to 8 steps. Up to 6, nothing else is as good.",
    "euler": "Euler: simple and robust; needs more steps.",
    "heun": "Heun: accurate from 18 steps on; each step takes twice as long.",
    "ddim": "DDIM: deterministic. Here it is the same as Euler.",
    "ddpm": "DDPM: the original method; adds noise at each step and needs hundreds of "
    "steps, up to 1,000.",
}


def sampling_hint(sampler: str, info: CheckpointInfo) -> str:
    """A word on the sampler; or why there is nothing to choose."""
    if info.teacher:
        return "This model was taught to draw in these steps, and in no others."
    return SAMPLER_HINTS[sampler]


def guidance_label(info: CheckpointInfo) -> str:
    """What guidance does to the cats of a model."""
    if info.guide:
        return "Guidance: clearer cats and coats, less variety (1 is off)"
    if info.labels:
        return "Guidance: a clearer coat, but slower; no effect on any coat (1 is off)"
    return "Guidance: has no effect with this model"


def count_choice(count: int) -> Any:
    """The choice of how many cats, where a link may ask for a number in between."""
    return gr.update(choices=sorted({*COUNTS, count}), value=count)


def steps_choice(sampler: str, value: int, info: CheckpointInfo) -> Any:
    """The number of steps, within what a sampler takes."""
    least, most = step_limits(sampler)
    free = not info.teacher
    return gr.update(minimum=least, maximum=most, value=value, interactive=free)


def sampling_controls(info: CheckpointInfo, recipe: Recipe) -> Controls:
    """Steps, sampler and guidance of a recipe that ``info``'s model draws."""
    recipe, free = recipe.as_taught(info), not info.teacher
    guidance = gr.update(value=recipe.guidance, label=guidance_label(info), interactive=free)
    return {
        "steps": steps_choice(recipe.sampler, recipe.steps, info),
        "sampler": gr.update(value=recipe.sampler, interactive=free),
        "guidance": guidance,
        "hint": sampling_hint(recipe.sampler, info),
    }


def _steps_within(sampler: str, steps: Any, usual: int) -> int:
    """A number of steps that a browser kept, perhaps for another sampler than the one it kept
    later: the usual number where this one does not take it."""
    least, most = step_limits(sampler)
    try:
        number = whole_number(steps, "The number of steps")
    except ValueError:
        return usual
    return number if least <= number <= most else usual


class FormActions:
    """The values of the form, and what there is to choose from."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def choose_sampler(self, sampler: str, model: str) -> Shown:
        """The step range and hint that belong to a sampler."""
        sampler = text(sampler, "The sampler")
        info = self.studio.library.get(text(model, "The model")).info
        steps = steps_choice(sampler, usual_steps(sampler, info), info)
        return {"steps": steps, "hint": sampling_hint(sampler, info)}

    def list_models(self) -> Any:
        """The models that are there by now: one can appear while the page is open."""
        return gr.update(choices=self.studio.library.choices)

    def choose_model(self, model: str, coat: str) -> Shown:
        """The coats that a model knows, one that is its own being what it was chosen for; and the
        sampling and the size of downloads that suit it."""
        coats, own = self.coats(model), self._own_coats(model)
        coat = own[-1] if own else coat if coat in coats else ANY_COAT
        loaded = self.studio.library.get(model)
        return {
            "coat": gr.update(choices=coats, value=coat),
            "morph_coats": gr.update(choices=coats, value=[]),
            "scale": usual_scale(loaded.picture_size),
            **sampling_controls(loaded.info, plain_recipe(loaded.info.sampling)),
        }

    def plain(self) -> Shown:
        """The form as a first visit finds it."""
        model = self.studio.library.get("")
        first = plain_recipe(model.info.sampling, seed=FIRST_SEED, coat=model.info.taught_label)
        controls = self.controls(first)
        scale = usual_scale(model.picture_size)
        return {"count": count_choice(1), "scale": scale, "fresh": True, **controls}

    def kept(self, values: Any) -> Shown:
        """The form with what a visitor changed and a browser kept, a JSON object; the plain form
        where that no longer works here."""
        try:
            if not isinstance(values, str) or len(values) > MAX_KEPT:
                raise ValueError
            kept = json.loads(values)
            names = self.studio.library.names
            model = self.studio.library.get(kept["model"] if kept.get("model") in names else "")
            sampler = kept.get("sampler", model.info.sampling.sampler)
            usual = usual_steps(text(sampler, "The sampler"), model.info)
            seed, coat = kept.get("seed"), kept.get("coat")  # a seed that is to stay
            if coat not in self.coats(model.name):  # it was another model's
                coat = model.info.taught_label or ANY_COAT
            recipe = read_recipe_form(
                FIRST_SEED if seed is None else seed, coat,
                _steps_within(sampler, kept.get("steps"), usual), sampler,
                kept.get("guidance", model.info.sampling.guidance), model.name,
            )  # fmt: skip
            shown: Shown = {**self.plain(), **self.controls(recipe), "fresh": seed is None}
            shown["count"] = count_choice(read_count(kept.get("count", 1)))
            scale = kept.get("scale")
            shown["scale"] = scale if scale in SCALES else usual_scale(model.picture_size)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self.plain()
        return shown

    def controls(self, recipe: Recipe) -> Controls:
        """The form as it stands for a recipe.

        Raises ValueError for a model or coat that is not here, while the form has its own values.
        """
        model = self.studio.library.get(recipe.model)
        model.info.label_index(recipe.coat)
        coats = self.coats(model.name)
        return {
            "seed": recipe.seed,
            "coat": gr.update(
                choices=coats, value=ANY_COAT if recipe.any_coat else recipe.coat or ANY_COAT
            ),
            "model": gr.update(choices=self.studio.library.choices, value=model.name),
            "morph_coats": gr.update(choices=coats),
            **sampling_controls(model.info, recipe),
        }

    def coats(self, model: str) -> list[str]:
        """What there is to choose from: any coat, then the model's own ones, then the others."""
        labels, own = self.studio.library.get(model).info.labels, self._own_coats(model)
        return [ANY_COAT, *own, *(label for label in labels if label not in own)]

    def _own_coats(self, model: str) -> list[str]:
        """Labels of a model that the default model lacks: somebody's own cats."""
        usual = self.studio.library.get("").info.labels
        return [label for label in self.studio.library.get(model).info.labels if label not in usual]
