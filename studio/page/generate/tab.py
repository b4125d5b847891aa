"""The Generate tab: its layout, and which action each of its events starts.

What concerns the browser alone (its memory of cats, keys, sheets, the walk through the steps) is in
the scripts of this folder; they know the ids that are given here.
"""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr
from gradio.components import Component

from diffusion import SAMPLERS, SampleConfig

from ...drawing.recipe import step_limits
from ...drawing.worker import Studio
from ..choice import Chips, Choice
from ..examples import FIRST_SEED, Examples
from ..files import SCALES
from ..film_actions import FilmActions
from ..forms import ANY_COAT, random_seed
from ..frame import BAR, KEYS, MINE, OVER_STAGE, STRIP_HEAD, WALK
from ..shown import Controls, Drawn
from ..stage import OPEN, stage_html, status_html
from ..thumbs import Faces
from ..tools import Tools
from ..wiring import LAST, PRIVATE, start
from .actions import GenerateActions
from .form_actions import COUNTS, SAMPLER_HINTS
from .live_settings import LiveSettings
from .save_actions import SaveActions, Saved

# How events reach the server, beside what ``wiring`` names.
AT_ONCE = {**PRIVATE, "queue": False}
DRAWING = {**PRIVATE, "concurrency_limit": None}  # the studio bounds what waits
ON_STAGE = {**DRAWING, "trigger_mode": "multiple"}  # a newer run ends the older
AS_MOVED = {**DRAWING, **LAST}  # places that were passed are left out

AGAIN = """
element.addEventListener('cat-again', (event) => trigger('select', event.detail));
"""  # the strip's script: a cat whose recipe the browser knows is drawn again


class GenerateTab:
    """Builds the tab; all work is done by its actions."""

    def __init__(self, studio: Studio, examples: Examples) -> None:
        self.actions = GenerateActions(studio, examples)
        self.form = self.actions.form
        self.film_actions = FilmActions(studio, self.actions.visits)
        self.save_actions = SaveActions(self.actions.visits)
        self.faces_of = Faces(studio)

    def build(self, page: gr.Blocks) -> None:
        """Lay out the tab inside ``page`` and wire its events."""
        self.model = Choice([], label="Model", elem_id="model")
        with gr.Row(equal_height=False, elem_id="desk"):
            with gr.Column(scale=6, min_width=320, elem_id="left"):
                self._build_stage()
            with gr.Column(scale=5, min_width=300, elem_id="settings"):
                self._build_controls()
        gr.HTML(STRIP_HEAD, elem_id="strip-head")
        with gr.Row(elem_id="strip"):
            self.strip = gr.HTML(MINE, elem_id="mine", js_on_load=AGAIN)
            self.examples = gr.HTML("", elem_id="examples")
        self.tools = Tools()
        gr.HTML(KEYS, elem_id="help")
        self._wire(page)

    def _build_stage(self) -> None:
        with gr.Column(elem_id="easel"):
            self.stage = gr.HTML(stage_html(None, []), elem_id="stage", js_on_load=OPEN)
            gr.HTML(OVER_STAGE, elem_id="over-stage")
            with gr.Row(elem_id="actions"):
                options: dict[str, Any] = {"size": "sm", "min_width": 44}
                self.save_action = gr.Button("Save", elem_id="save", **options)
                gr.Button("Share", elem_id="share", **options)
                self.animate_action = gr.Button("Animate", elem_id="animate-it", **options)
                self.vary_action = gr.Button("Vary", elem_id="vary", **options)
                gr.Button("Repaint", elem_id="repaint-it", **options)
                gr.Button("Explore", elem_id="explore", **options)
                gr.Button("More", elem_id="more", **options)  # on a phone
        with gr.Row(equal_height=True, elem_id="go"):
            self.generate_button = gr.Button(
                "Generate", variant="primary", size="lg", elem_id="generate", scale=4
            )
            self.stop_button = gr.Button("Stop", size="lg", elem_id="stop", scale=1, min_width=80)
            gr.HTML(BAR, elem_id="bar")
        self.status = gr.HTML(status_html(""), elem_id="status")
        gr.HTML(WALK, elem_id="walk")

    def _build_controls(self) -> None:
        self.coat = Chips([ANY_COAT], value=ANY_COAT, label="Coat", elem_id="coat")
        self.faces = gr.HTML("", elem_id="faces")
        self.count = Chips(list(COUNTS), value=1, label="How many cats", elem_id="count")
        with gr.Row(equal_height=True, elem_id="seed-line"):
            self.seed = gr.Number(
                value=FIRST_SEED, precision=0, label="Seed", elem_id="seed", scale=3, min_width=120
            )
            self.fresh = gr.Checkbox(
                True, label="New seed for each click", elem_id="fresh", min_width=44
            )
            self.dice = gr.Button("Random", size="sm", elem_id="dice", min_width=90)
            self.reuse = gr.Button("Reuse", size="sm", elem_id="reuse", min_width=90)
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            self.steps = gr.Slider(  # Gradio checks within this; the page narrows it as it opens
                1, step_limits("ddpm")[1], value=SampleConfig.num_steps, step=1, label="Steps",
                elem_id="steps",
            )  # fmt: skip
            self.sampler = Choice(
                list(SAMPLERS), value=SampleConfig.sampler, label="Sampler", elem_id="sampler"
            )
            self.hint = gr.Markdown(SAMPLER_HINTS[SampleConfig.sampler])
            self.guidance = gr.Slider(
                0, 10, value=SampleConfig.guidance, step=0.1, elem_id="guidance",
                label="Guidance (1 is off)",
            )  # fmt: skip
        with gr.Accordion("Downloads", open=False, elem_id="saving"):
            with gr.Row(equal_height=True):
                self.scale = Chips(
                    [(f"×{scale}", scale) for scale in SCALES], value=SCALES[-1],
                    label="Download size", elem_id="scale",
                )  # fmt: skip
                self.pixels = gr.Checkbox(False, label="Show sharp pixels", elem_id="pixels")
            with gr.Row():
                self.download = gr.Button("Save this cat", elem_id="download", size="sm")
                self.sheet = gr.Button("Save the sheet", elem_id="sheet", size="sm")
                self.zip = gr.Button("Save all (zip)", elem_id="zip", size="sm")
        self.reset = gr.Button("Reset settings", elem_id="reset", size="sm")

    # -- wiring -------------------------------------------------------------------------------

    def _wire(self, page: gr.Blocks) -> None:
        self.paths, self.recipe = gr.State([]), gr.State(None)
        self.shown, self.linked = gr.State(""), gr.State([])
        self.as_it_is = gr.State(False)  # instead of a new seed
        self.carried = gr.Textbox("", visible=False)  # what the browser knows, as JSON
        self.saved = gr.File(visible=False)
        self.morph_coats = self.tools.morph_coats
        self.settings = [
            self.seed, self.coat, self.steps, self.sampler, self.guidance, self.model,
        ]  # fmt: skip
        self._wire_form(page)
        self._wire_stage()
        self._wire_opening(page)
        self._wire_saving()
        self._wire_films()

    def _wire_form(self, page: gr.Blocks) -> None:
        do = self.form
        self.dice.click(random_seed, None, self.seed, **AT_ONCE)
        for chosen in (self.seed.input, self.dice.click):  # then it is this one that is wanted
            chosen(None, None, self.fresh, js="() => false", **PRIVATE)
        self.reuse.click(_reuse_seed, self.recipe, [self.seed, self.fresh], **AT_ONCE)
        hinted = self._named("steps", "hint")
        sampler = [self.sampler, self.model]
        start(self.sampler.input, do.choose_sampler, sampler, hinted, **AT_ONCE, **LAST)
        self.model.focus(do.list_models, None, self.model, **AT_ONCE)
        known = self._named(
            "coat", "morph_coats", "steps", "sampler", "hint", "guidance", "scale"
        )  # fmt: skip
        model = [self.model, self.coat]
        chosen = start(self.model.input, do.choose_model, model, known, **AT_ONCE, **LAST)
        chosen.then(self.faces_of.style, self.model, self.faces, **AT_ONCE)
        self.pixels.change(None, self.pixels, None, js="(on) => { cats.pixels(on) }", **PRIVATE)
        for name in ("coat", "count", "steps", "sampler", "guidance", "scale"):
            component = getattr(self, name)
            keep = f"(value) => {{ cats.keepSetting('{name}', value) }}"
            component.input(None, component, None, js=keep, **PRIVATE)
        keep = "(fresh, seed) => { cats.keepSeed(fresh, seed) }"
        lock = [self.fresh, self.seed]
        gr.on([self.fresh.change, self.seed.change], None, lock, None, js=keep, **PRIVATE)
        keep = "(model) => { cats.keepModel(model) }"
        self.model.input(None, self.model, None, js=keep, **PRIVATE)
        shown = [self.coat.change, self.count.change]  # on the bar of a phone
        gr.on(shown, None, None, None, js="() => { cats.label() }", **PRIVATE)
        plain = self._named("count", "scale", "fresh", *Controls.__annotations__)
        start(self.reset.click, do.plain, None, plain, **AT_ONCE)
        self.reset.click(None, None, None, js="() => { cats.forgetSettings() }", **PRIVATE)

    def _wire_stage(self) -> None:
        do, tools = self.actions, self.tools
        drawn = self._named(*Drawn.__annotations__)
        restored = {**drawn, **self._named(*Controls.__annotations__)}
        seeded = [self.fresh, *self.settings, self.paths]
        start(self.generate_button.click, do.generate, [self.count, *seeded], drawn, **ON_STAGE)
        exact = [self.count, self.as_it_is, *self.settings, self.paths]
        start(self.seed.submit, do.generate, exact, drawn, **ON_STAGE)  # Enter: this very seed
        for button, action, inputs, note in (
            (tools.picture_button, do.start_from_picture,
             [tools.picture, tools.picture_strength, *seeded], tools.picture_note),
            (tools.repaint_button, do.repaint, [tools.canvas, *seeded], tools.repaint_note),
        ):  # fmt: skip
            start(button.click, action, inputs, {**drawn, "problem": note}, **ON_STAGE)
        vary = functools.partial(gr.on, [self.vary_action.click, tools.vary_again.click])
        around = [self.recipe, tools.vary_strength, self.paths]
        start(vary, do.vary, around, {**drawn, "problem": tools.vary_note}, **ON_STAGE)
        told = {**restored, "problem": tools.restore_note}
        start(tools.file.upload, do.restore, [tools.file, self.paths], told, **ON_STAGE)
        start(self.strip.select, do.restore_from_strip, [self.paths], restored, **ON_STAGE)
        start(
            self.stage.select, do.open_cat, [self.carried, self.paths], restored,
            js="() => [cats.openIndex(), null]", **AT_ONCE, **LAST,
        )  # fmt: skip
        self._wire_live(drawn)
        self.stop_button.click(do.visits.stop, **AT_ONCE)
        tools.take.click(self.save_actions.take_cat, self.shown, tools.canvas, **AT_ONCE)

    def _wire_live(self, drawn: dict[str, Component]) -> None:
        do, tools = LiveSettings(self.actions), self.tools
        around = [self.recipe, tools.vary_strength, self.model, self.paths]
        recoated = [self.recipe, self.coat, self.model, self.paths]
        begun = [tools.picture, tools.picture_strength, *self.settings, self.paths]
        start(self.coat.input, do.choose_coat, recoated, drawn, **AS_MOVED)
        start(tools.vary_strength.input, do.vary, around, drawn, **AS_MOVED)
        start(tools.picture_strength.input, do.change_picture, begun, drawn, **AS_MOVED)

    def _wire_opening(self, page: gr.Blocks) -> None:
        do = self.actions
        opened = self._named(
            "count",
            "scale",
            "fresh",
            *Controls.__annotations__,
            "examples",
            "shown",
            "status",
            "linked",
        )
        loaded = start(
            page.load, do.open_page, [self.carried], opened, js="() => [cats.settings()]", **AT_ONCE
        )
        drawn = self._named(*Drawn.__annotations__)
        first = [self.linked, self.shown, self.paths]
        shown = start(loaded.then, do.first_cat, first, drawn, **DRAWING)
        shown.then(self.faces_of.style, self.model, self.faces, **AT_ONCE)

    def _wire_saving(self) -> None:
        do = self.save_actions
        carried = [self.carried, self.paths]
        one = functools.partial(gr.on, [self.save_action.click, self.download.click])
        shown = [self.shown, self.scale, self.pixels]
        saved = self._named(*Saved.__annotations__)
        for done in (
            one(do.save_cat, shown, self.saved, **AT_ONCE),
            start(self.sheet.click, do.save_sheet, carried, saved,
                  js="() => [cats.onStage(), null]", **DRAWING),
            start(self.zip.click, do.save_all, carried, saved,
                  js="() => [cats.inStrip(), null]", **DRAWING),
        ):  # fmt: skip
            done.success(None, self.saved, None, js="(file) => { cats.save(file) }", **PRIVATE)

    def _wire_films(self) -> None:
        do, tools = self.film_actions, self.tools
        pace = [tools.film_kind, tools.film_seconds, tools.film_speed, tools.film_hold]
        animate = functools.partial(gr.on, [self.animate_action.click, tools.animate_button.click])
        start(animate, do.animate, [self.recipe, *pace], tools.film, **AS_MOVED)
        asked = functools.partial(gr.on, [tools.morph_button.click, tools.morph_seeds.submit])
        path = [tools.morph_seeds, tools.morph_coats, tools.morph_frames, *self.settings[1:]]
        start(asked, do.morph, path, tools.morph_film, **AS_MOVED)

    def _named(self, *names: str) -> dict[str, Component]:
        return {name: getattr(self, name) for name in names}


def _reuse_seed(recipe: dict | None) -> tuple[Any, bool]:
    """The seed of the cat on the stage, to be kept for the clicks that follow."""
    return (recipe or {}).get("seed", gr.skip()), False
