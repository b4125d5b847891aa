"""The Generate tab: its layout, and which action each of its events starts."""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr
from gradio.components import Component

from diffusion import SAMPLERS, SampleConfig

from ..drawing.recipe import PICTURE_STRENGTH
from ..drawing.worker import Studio
from .choice import Choice
from .editor import PictureEditor
from .examples import FIRST_SEED, Examples
from .film_actions import FilmActions
from .forms import ANY_COAT, MAX_CATS, random_seed
from .generate_actions import SAMPLER_HINTS, GenerateActions
from .shown import Controls, Drawn
from .stage import PICK, stage_html, status_html
from .wiring import start

# How events reach the server: none is an endpoint for scripts.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE = {**PRIVATE, "queue": False}
DRAWING = {**PRIVATE, "concurrency_limit": None}  # the studio bounds what waits
ON_STAGE = {**DRAWING, "trigger_mode": "multiple"}  # a newer run ends the older


class GenerateTab:
    """Builds the tab; all work is done by its ``GenerateActions`` and ``FilmActions``."""

    def __init__(self, studio: Studio, examples: Examples) -> None:
        self.actions = GenerateActions(studio, examples)
        self.film_actions = FilmActions(studio, self.actions.visits)

    def build(self, page: gr.Blocks) -> None:
        """Lay out the tab inside ``page`` and wire its events."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                self._build_stage()
            with gr.Column(scale=4, min_width=300):
                self._build_controls()
        gr.Markdown(
            "Your cats of this visit, and some examples. Click one to see it again.",
            elem_id="strip-label",
        )
        self.strip = gr.Gallery(
            label="Cats of this visit", show_label=False, elem_id="strip", height="auto",
            format="png", object_fit="contain", allow_preview=False,
            interactive=False, buttons=[],
        )  # fmt: skip
        self._build_play()
        self._wire(page)

    def _build_stage(self) -> None:
        self.stage = gr.HTML(stage_html(None, []), elem_id="stage", js_on_load=PICK)
        with gr.Row(equal_height=True):
            self.generate_button = gr.Button(
                "Generate", variant="primary", size="lg", elem_id="generate", scale=4
            )
            self.stop_button = gr.Button("Stop", size="lg", elem_id="stop", scale=1, min_width=80)
        self.status = gr.HTML(status_html(""), elem_id="status")
        self.walk = gr.Slider(
            1, 12, value=12, step=1, label="Walk through the steps", elem_id="walk",
            interactive=False,
        )  # fmt: skip

    def _build_controls(self) -> None:
        with gr.Row(equal_height=True):
            self.seed = gr.Number(
                value=FIRST_SEED, precision=0, label="Seed", elem_id="seed", scale=3, min_width=140
            )
            with gr.Column(scale=2, min_width=100, elem_id="seed-buttons"):
                self.dice = gr.Button("🎲 Random", size="sm", elem_id="dice")
                self.reuse = gr.Button("♻ Reuse", size="sm", elem_id="reuse")
        self.fresh = gr.Checkbox(True, label="New seed for each click", elem_id="fresh")
        self.coat = Choice([ANY_COAT], value=ANY_COAT, label="Coat", elem_id="coat")
        self.count = gr.Slider(1, MAX_CATS, value=1, step=1, label="How many cats", elem_id="count")
        with gr.Accordion("Advanced", open=False):
            self.steps = gr.Slider(
                1, 100, value=SampleConfig.num_steps, step=1, label="Steps", elem_id="steps"
            )
            self.sampler = Choice(
                list(SAMPLERS), value=SampleConfig.sampler, label="Sampler", elem_id="sampler"
            )
            self.hint = gr.Markdown(SAMPLER_HINTS[SampleConfig.sampler])
            self.guidance = gr.Slider(
                0, 10, value=SampleConfig.guidance, step=0.1, elem_id="guidance",
                label="Guidance (1 is off)",
            )  # fmt: skip
            self.model = Choice([], label="Model", elem_id="model")
            self.pixels = gr.Checkbox(False, label="Show sharp pixels", elem_id="pixels")
        with gr.Accordion("Save and share", open=True):
            self.scale = gr.Radio(
                [("×1", 1), ("×4", 4), ("×8", 8)], value=8, label="Download size",
                elem_id="scale",
            )  # fmt: skip
            with gr.Row():
                self.download = gr.DownloadButton(
                    "Save PNG", interactive=False, elem_id="download", min_width=80, size="sm"
                )
                self.copy = gr.Button("Copy link", elem_id="copy", min_width=80, size="sm")
                self.zip = gr.DownloadButton(
                    "Save all (zip)", interactive=False, elem_id="zip", min_width=80, size="sm"
                )

    def _build_play(self) -> None:
        with gr.Tabs(elem_id="play"):
            with gr.Tab("Animate"):
                gr.Markdown("A film of how the current cat formed out of noise.")
                with gr.Row():
                    self.film_kind = gr.Radio(
                        ["the estimate", "the noisy picture"], value="the estimate", label="Show"
                    )
                    self.film_seconds = gr.Slider(0.5, 10, value=2, step=0.5, label="Seconds")
                    self.film_speed = gr.Slider(1, 30, value=15, step=1, label="Frames per second")
                    self.film_hold = gr.Slider(
                        0, 10, value=1, step=0.5, label="Seconds on the last frame"
                    )
                self.animate_button = gr.Button("Animate", elem_id="animate")
                self.film = self._build_film("film", note="film-note")
            with gr.Tab("Morph"):
                gr.Markdown(
                    "A film that turns one cat into the next, in a loop. "
                    "Several coats are used in turn."
                )
                with gr.Row():
                    self.morph_seeds = gr.Textbox("1, 2, 3", label="Seeds", elem_id="morph-seeds")
                    self.morph_coats = Choice(
                        [ANY_COAT], multiselect=True, label="Coats (empty: the coat chosen above)",
                        elem_id="morph-coats",
                    )  # fmt: skip
                    self.morph_frames = gr.Slider(
                        2, 32, value=12, step=1, label="Frames between two cats"
                    )
                self.morph_button = gr.Button("Morph", elem_id="morph")
                self.morph_film = self._build_film("morph-film", note="morph-note")
            with gr.Tab("Variations"):
                gr.Markdown("Nine cats around the one on the stage.")
                self.vary_strength = gr.Slider(
                    0.02, 1, value=0.25, step=0.01, label="How different", elem_id="vary-strength"
                )
                self.vary_button = gr.Button("Vary", elem_id="vary")
            with gr.Tab("From a picture"):
                gr.Markdown(
                    "Upload, photograph or sketch something. It is covered "
                    "with noise and becomes a cat."
                )
                self.picture = PictureEditor(
                    type="filepath", label="Picture", elem_id="picture", canvas_size=(512, 512),
                    height=420, layers=False, format="png",
                )  # fmt: skip
                self.picture_strength = gr.Slider(
                    0.05, 1, value=PICTURE_STRENGTH, step=0.05, label="How much to change"
                )
                self.picture_button = gr.Button("Start from this picture", elem_id="from-picture")
            with gr.Tab("Repaint"):
                gr.Markdown("Paint over the part to redraw. The rest stays exactly as it is.")
                self.take = gr.Button("Use the current cat", elem_id="take")
                self.canvas = PictureEditor(
                    type="filepath", label="Picture and mask", elem_id="canvas", format="png",
                    canvas_size=(512, 512), height=420, layers=False,
                    brush=gr.Brush(default_size=60, colors=["#ff7a00"], color_mode="fixed"),
                )  # fmt: skip
                self.repaint_button = gr.Button("Repaint", elem_id="repaint")
            with gr.Tab("Restore"):
                gr.Markdown("Drop a PNG that you saved here. Its cat and its settings come back.")
                self.file = gr.File(file_types=[".png"], label="PNG", elem_id="restore", height=140)

    @staticmethod
    def _build_film(name: str, *, note: str) -> dict[str, Component]:
        """The components of one film, by their names in ``ShownFilm``."""
        line = gr.HTML(status_html(""), elem_id=note)
        film = gr.Image(
            label="Film", format="gif", interactive=False, height=300, buttons=[],
            elem_id=name, visible=False,
        )  # fmt: skip
        with gr.Row():
            gif = gr.DownloadButton("Download GIF", visible=False, elem_id=f"{name}-gif")
            mp4 = gr.DownloadButton("Download MP4", visible=False, elem_id=f"{name}-mp4")
        return {"note": line, "film": film, "gif": gif, "mp4": mp4}

    # -- wiring -------------------------------------------------------------------------------

    def _wire(self, page: gr.Blocks) -> None:
        self.paths, self.recipe = gr.State([]), gr.State(None)
        self.shown, self.linked = gr.State(None), gr.State([])
        self.settings = [
            self.seed, self.coat, self.steps, self.sampler, self.guidance, self.model,
        ]  # fmt: skip
        self.keep = [self.scale, self.paths]
        self._wire_form()
        self._wire_stage(page)
        self._wire_films()

    def _wire_form(self) -> None:
        do = self.actions
        self.dice.click(random_seed, None, self.seed, **AT_ONCE)
        for chosen in (self.seed.input, self.dice.click):  # then it is this one that is wanted
            chosen(None, None, self.fresh, js="() => false", **PRIVATE)
        self.reuse.click(_reuse_seed, self.recipe, [self.seed, self.fresh], **AT_ONCE)
        hinted = self._named("steps", "hint")
        start(self.sampler.input, do.choose_sampler, [self.sampler, self.model], hinted, **AT_ONCE)
        self.model.focus(do.list_models, None, self.model, **AT_ONCE)
        known = self._named("coat", "morph_coats", "steps", "sampler", "hint", "guidance")
        start(self.model.input, do.choose_model, [self.model, self.coat], known, **AT_ONCE)
        self.pixels.change(None, self.pixels, None, js="(on) => { catPixels(on) }", **PRIVATE)
        self.walk.input(None, self.walk, None, js="(step) => { catWalk(step) }", **PRIVATE)
        self.copy.click(None, None, None, js="() => { catLink() }", **PRIVATE)
        self.scale.change(do.rescale, [self.shown, self.scale], self.download, **AT_ONCE)
        self.take.click(do.take_cat, self.shown, self.canvas, **AT_ONCE)

    def _wire_stage(self, page: gr.Blocks) -> None:
        do, settings, keep = self.actions, self.settings, self.keep
        drawn, controls = self._named(*Drawn.__annotations__), [*Controls.__annotations__]
        restored = {**drawn, **self._named(*controls)}
        opened = self._named("count", *controls, "paths", "strip", "status", "linked")

        for button, action, inputs in (
            (self.generate_button, do.generate, [self.count]),
            (self.picture_button, do.start_from_picture, [self.picture, self.picture_strength]),
            (self.repaint_button, do.repaint, [self.canvas]),
        ):
            seeded = button.click(_new_seed, self.fresh, self.seed, **AT_ONCE)
            start(seeded.then, action, [*inputs, *settings, *keep], drawn, **ON_STAGE)
        exact = [self.count, *settings, *keep]
        start(self.seed.submit, do.generate, exact, drawn, **ON_STAGE)  # Enter: this very seed
        varied = [self.recipe, self.vary_strength, *keep]
        start(self.vary_button.click, do.vary, varied, drawn, **ON_STAGE)
        start(self.file.upload, do.restore, [self.file, *keep], restored, **ON_STAGE)
        for cats in (self.strip, self.stage):
            start(cats.select, do.restore_from_strip, keep, restored, **ON_STAGE)
        for play in (self.vary_button.click, self.picture_button.click, self.repaint_button.click,
                     self.file.upload, self.strip.select):  # fmt: skip
            play(None, None, None, js="() => { catShow() }", **PRIVATE)
        self.stop_button.click(do.visits.stop, **AT_ONCE)
        loaded = start(page.load, do.open_page, None, opened, **AT_ONCE)
        start(loaded.then, do.first_cat, [self.linked, *keep], drawn, **DRAWING)

    def _wire_films(self) -> None:
        do = self.film_actions
        pace = [self.film_kind, self.film_seconds, self.film_speed, self.film_hold]
        start(self.animate_button.click, do.animate, [self.recipe, *pace], self.film, **DRAWING)
        asked = functools.partial(gr.on, [self.morph_button.click, self.morph_seeds.submit])
        path = [self.morph_seeds, self.morph_coats, self.morph_frames, *self.settings[1:]]
        start(asked, do.morph, path, self.morph_film, **DRAWING)

    def _named(self, *names: str) -> dict[str, Component]:
        return {name: getattr(self, name) for name in names}


def _new_seed(fresh: bool) -> Any:
    return random_seed() if fresh else gr.skip()


def _reuse_seed(recipe: dict | None) -> tuple[Any, bool]:
    """The seed of the cat on the stage, to be kept for the clicks that follow."""
    return (recipe or {}).get("seed", gr.skip()), False
