"""The Generate tab: layout, and thin handlers that have names."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import gradio as gr
from PIL import Image

from diffusion import SAMPLERS, SampleConfig
from diffusion.checkpoint import CheckpointInfo
from diffusion.pictures import from_image

from ..drawing.png_metadata import read_recipe
from ..drawing.recipe import Recipe, consecutive, max_steps, variations
from ..drawing.worker import Busy, Job, Studio, Update
from .choice import Choice
from .editor import PictureEditor
from .examples import FIRST_SEED, Examples
from .files import enlarge, save_half_a_cat, save_png, save_zip, still_there
from .films import Film, Pace, film_of, morph_of, require_steps
from .forms import (
    ANY_COAT,
    MAX_CATS,
    number,
    random_seed,
    read_count,
    read_link,
    read_mask_layer,
    read_morph_form,
    read_picture,
    read_recipe_form,
    text,
)
from .stage import PICK, progress_text, result_text, stage_html, status_html

STRIP_LENGTH = 24  # cats of this visit that are kept at hand
SAMPLER_HINTS = {
    "dpmpp_2m": "DPM-Solver++(2M): best for few steps. The default.",
    "euler": "Euler: plain and forgiving; first order.",
    "heun": "Heun: two evaluations a step, accurate at 18 steps and more.",
    "ddim": "DDIM: deterministic, along the same path as Euler.",
    "ddpm": "DDPM: the original, adds noise at each step; wants hundreds of steps, up to 1,000.",
}


def guidance_label(info: CheckpointInfo) -> str:
    """What guidance does to the cats of a model."""
    if info.guide:
        return "Guidance: clearer cats and coats, less variety (1 is off)"
    if info.labels:
        return "Guidance: a clearer coat, but slower; nothing for any coat (1 is off)"
    return "Guidance: this model has nothing to be guided by"


class GenerateTab:
    """Builds the tab and holds its handlers; all work is done by the ``Studio``."""

    def __init__(self, studio: Studio, examples: Examples) -> None:
        self.studio, self.examples = studio, examples
        self._jobs: dict[Job, str] = {}  # the visit of each that runs, for Stop
        self._on_stage: dict[str, Job] = {}  # the one whose cats a visit's stage waits for
        self._staging = threading.Lock()

    # -- handlers -----------------------------------------------------------------------------

    def generate(
        self, count: Any, seed: Any, coat: Any, steps: Any, sampler: Any, guidance: Any, model: Any,
        scale: int, strip: list[str], request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Cats from consecutive seeds."""
        try:
            first = read_recipe_form(seed, coat, steps, sampler, guidance, model)
            recipes = consecutive(first, read_count(count))
        except ValueError as error:
            yield self._failed(error)
            return
        yield from self._draw(recipes, scale, strip, request)

    def vary(
        self, recipe: dict | None, strength: float, scale: int, strip: list[str],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Nine cats around the one on the stage."""
        try:
            recipes = variations(
                _current(recipe),
                count=9,
                strength=number(strength, "How far"),
                first_seed=random_seed(),
            )
        except ValueError as error:
            yield self._failed(error)
            return
        yield from self._draw(recipes, scale, strip, request)

    def start_from_picture(
        self, editor: dict | None, strength: float, seed: Any, coat: Any, steps: Any, sampler: Any,
        guidance: Any, model: Any, scale: int, strip: list[str], request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """A cat that begins as a picture under noise."""
        try:
            recipe = read_recipe_form(seed, coat, steps, sampler, guidance, model)
            embedded = read_picture((editor or {}).get("composite"), self._size(recipe.model))
            strength = number(strength, "How much becomes noise")
            recipe = dataclasses.replace(recipe, picture=embedded, strength=strength)
        except ValueError as error:
            yield self._failed(error)
            return
        yield from self._draw([recipe], scale, strip, request)

    def repaint(
        self, editor: dict | None, seed: Any, coat: Any, steps: Any, sampler: Any, guidance: Any,
        model: Any, scale: int, strip: list[str], request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
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
            yield self._failed(error)
            return
        yield from self._draw([recipe], scale, strip, request)

    def restore(
        self, path: str | None, scale: int, strip: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """The cat of a PNG that was saved from this page, and its settings."""
        try:
            if path and not still_there([path]):
                raise ValueError(
                    "This cat is no longer kept here; its PNG or its link brings it back."
                )
            recipe = read_recipe(path) if path else _current(None)
            controls = self._controls(recipe)
        except ValueError as error:
            yield (*self._failed(error), *[gr.skip()] * 8)
            return
        for outputs in self._draw([recipe], scale, strip, request):
            yield (*outputs, *controls)

    def restore_from_strip(
        self, scale: int, strip: list[str], event: gr.SelectData, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """The cat that was clicked in the strip; or on the stage, whose cats come first there."""
        index = event.index if isinstance(event.index, int) else -1
        path = strip[index] if 0 <= index < len(strip) else None
        yield from self.restore(path, scale, strip, request)

    def animate(
        self, recipe: dict | None, kind: str, seconds: Any, speed: Any, hold: Any,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """How the cat on the stage formed, as GIF and MP4: drawn again, so nothing need be kept."""
        try:
            pace = Pace(seconds, speed, hold)
            require_steps()
            record = "noisy" if kind == "the noisy picture" else "denoised"
            job = self.studio.submit([_current(recipe)], record=record)
            yield from self._film_progress(job, request)
            yield self._show_film(film_of(job, pace))
        except (ValueError, Busy) as error:
            yield gr.skip(), gr.skip(), gr.skip(), status_html(str(error), error=True)

    def morph(
        self, seeds: Any, coats: list[str], frames: Any, coat: Any, steps: Any, sampler: Any,
        guidance: Any, model: Any, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """A loop from cat to cat, as GIF and MP4."""
        try:
            recipes = read_morph_form(
                seeds, coats or [coat], frames, steps, sampler, guidance, model
            )
            job = self.studio.submit(recipes)
            yield from self._film_progress(job, request)
            yield self._show_film(morph_of(job))
        except (ValueError, Busy) as error:
            yield gr.skip(), gr.skip(), gr.skip(), status_html(str(error), error=True)

    def stop(self, request: gr.Request) -> None:
        """Ends this visit's jobs within one step; their handlers then show what is there."""
        for job, visit in tuple(self._jobs.items()):
            if visit == (request.session_hash or ""):
                self.studio.stop(job)

    def rescale(self, shown: str | None, scale: int) -> Any:
        """The download in another size."""
        return gr.update(value=enlarge(shown, scale)) if still_there([shown]) else gr.skip()

    def take_cat(self, shown: str | None) -> Any:
        """The cat on the stage as the picture to paint on, large enough for a brush."""
        if not still_there([shown]):
            return gr.skip()
        with Image.open(shown) as image:
            large = image.convert("RGB").resize((512, 512), Image.Resampling.NEAREST)
        return {"background": large, "layers": [], "composite": None}

    def open_page(self, request: gr.Request) -> tuple[Any, ...]:
        """What a new visit sees: the model list, and the settings of its link."""
        query = dict(request.query_params) if request else {}
        linked: list[Recipe] | None = []
        count, controls = 1, self._controls(Recipe(seed=FIRST_SEED))
        status = gr.skip()
        if "seed" in query:
            try:
                linked = read_link(query, self.studio.library.names)
                count, controls = len(linked), self._controls(linked[0])
            except ValueError:
                linked = None
                sentence = "This link holds settings that are not possible here."
                status = status_html(sentence, error=True)
        try:
            strip = self.examples.files()
        except ValueError as error:  # a full disk, say
            strip, status = [], status_html(str(error), error=True)
        linked = linked and [recipe.to_dict() for recipe in linked]
        return (count, *controls, strip, strip, status, linked)

    def first_cat(
        self, linked: list[dict] | None, scale: int, strip: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """The cat of a link forms by itself; any other visit finds the first example there, and
        what was wrong with its link (``linked`` is None) stays below it."""
        if linked:
            yield from self._draw([Recipe.from_dict(r) for r in linked], scale, strip, request)
        elif strip:
            recipe = read_recipe(strip[0])
            with Image.open(strip[0]) as image:
                stage = stage_html(from_image(image)[None], [recipe])
            text = f"{recipe.describe()} · an example; click Generate for one of your own"
            status = gr.skip() if linked is None else status_html(text)
            yield (
                stage, status, gr.skip(), gr.skip(), recipe.to_dict(), strip[0],
                gr.update(value=enlarge(strip[0], scale), interactive=True), gr.skip(), gr.skip(),
            )  # fmt: skip

    def choose_sampler(self, sampler: str) -> tuple[Any, str]:
        """The step range and hint that belong to a sampler."""
        sampler = text(sampler, "The sampler")
        most = max_steps(sampler)
        value = most if sampler == "ddpm" else SampleConfig.num_steps
        return gr.update(maximum=most, value=value), SAMPLER_HINTS.get(sampler, "")

    def list_models(self) -> Any:
        """The models that are there by now: one can appear while the page is open."""
        return gr.update(choices=self.studio.library.names)

    def choose_model(self, model: str, coat: str) -> tuple[Any, Any, Any]:
        """The coats that a model knows, one that is its own being what it was chosen for; and what
        guidance does there."""
        coats = self._coats(model)
        own = [name for name in coats if name not in self._coats("")]
        coat = own[-1] if own else coat if coat in coats else ANY_COAT
        guidance = gr.update(label=guidance_label(self.studio.library.get(model).info))
        return gr.update(choices=coats, value=coat), gr.update(choices=coats, value=[]), guidance

    # -- what the handlers share --------------------------------------------------------------

    def _draw(
        self, recipes: Sequence[Recipe], scale: int, strip: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Draw recipes, showing them as they form; yields values for ``self.drawn``.

        What the visit was drawing on its stage before ends without another word.
        """
        try:
            job = self.studio.submit(recipes, record="denoised")
        except (ValueError, Busy) as error:
            yield self._failed(error)
            return
        with self._stage_of(request, job) as (before, is_mine):
            if before is not None and before.pictures is not None:  # it forms no further
                half = stage_html(before.pictures, before.recipes, stopped=True)
                yield half, *[gr.skip()] * 8
            try:
                for update in self._watch(job, request):
                    if not is_mine():
                        return
                    if not update.done:
                        yield self._forming(job, update)
                outputs = self._finished(job, scale, strip)
            except ValueError as error:
                outputs = self._failed(error)
            if is_mine():
                yield outputs

    @contextmanager
    def _stage_of(
        self, request: gr.Request, job: Job
    ) -> Iterator[tuple[Job | None, Callable[[], bool]]]:
        """Give a visit's stage to a job; yields the one that had it, which ends, and whether the
        new one still has it."""
        visit = request.session_hash or ""
        with self._staging:
            before, self._on_stage[visit] = self._on_stage.get(visit), job
        if before is not None:
            self.studio.stop(before)
        try:
            yield before, lambda: self._on_stage.get(visit) is job
        finally:
            with self._staging:
                if self._on_stage.get(visit) is job:
                    del self._on_stage[visit]

    @staticmethod
    def _forming(job: Job, update: Update) -> tuple[Any, ...]:
        stage = gr.skip()
        if update.pictures is not None:
            stage = stage_html(update.pictures, job.recipes, forming=True)
        return stage, status_html(progress_text(update)), *[gr.skip()] * 7

    def _watch(self, job: Job, request: gr.Request) -> Iterator[Update]:
        """Updates of a job that this visit's Stop can end."""
        self._jobs[job] = request.session_hash or ""
        try:
            yield from self.studio.watch(job)
        finally:
            del self._jobs[job]

    def _film_progress(self, job: Job, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        for update in self._watch(job, request):
            text = "Writing the film" if update.done else progress_text(update)
            yield gr.skip(), gr.skip(), gr.skip(), status_html(text)

    def _finished(self, job: Job, scale: int, strip: list[str]) -> tuple[Any, ...]:
        if job.pictures is None:
            return (gr.skip(), status_html("Stopped before the first step."), *[gr.skip()] * 7)
        text = result_text(
            job.recipes[0], len(job.recipes), job.seconds, stopped=job.stopped, note=job.note
        )
        stage = stage_html(job.pictures, job.recipes, stopped=job.stopped, frames=job.frames)
        num_frames = len(job.frames)
        if job.stopped:
            shown, strip = save_half_a_cat(job.pictures[0]), still_there(strip)
        else:
            files = [
                save_png(picture, recipe)
                for picture, recipe in zip(job.pictures, job.recipes, strict=True)
            ]
            shown = files[0]
            strip = [*files, *_without(strip, job.recipes)][:STRIP_LENGTH]
        return (
            stage,
            status_html(text),
            strip,
            strip,
            job.recipes[0].to_dict(),
            shown,
            gr.update(value=enlarge(shown, scale), interactive=True),
            gr.update(value=save_zip(strip), interactive=bool(strip)),
            gr.update(maximum=max(num_frames, 2), value=num_frames, interactive=num_frames > 1),
        )

    def _failed(self, error: Exception) -> tuple[Any, ...]:
        return (gr.skip(), status_html(str(error), error=True), *[gr.skip()] * 7)

    def _controls(self, recipe: Recipe) -> tuple[Any, ...]:
        """Values for a recipe: seed, coat, steps, sampler, guidance, model, hint, coats.

        Raises ValueError for a model or coat that is not here, while the form has its own values.
        """
        model = self.studio.library.get(recipe.model)
        model.info.label_index(recipe.coat)
        coats = self._coats(model.name)
        return (
            recipe.seed,
            gr.update(choices=coats, value=recipe.coat or ANY_COAT),
            gr.update(maximum=max_steps(recipe.sampler), value=recipe.steps),
            recipe.sampler,
            gr.update(value=recipe.guidance, label=guidance_label(model.info)),
            gr.update(choices=self.studio.library.names, value=model.name),
            SAMPLER_HINTS[recipe.sampler],
            gr.update(choices=coats),
        )  # fmt: skip

    def _coats(self, model: str) -> list[str]:
        return [ANY_COAT, *self.studio.library.get(model).info.labels]

    def _size(self, model: str) -> int:
        return self.studio.library.get(model).picture_size

    @staticmethod
    def _show_film(film: Film) -> tuple[Any, Any, Any, str]:
        show = [gr.update(value=path, visible=True) for path in (film.gif, film.gif, film.mp4)]
        return (*show, status_html(""))

    # -- layout -------------------------------------------------------------------------------

    def build(self, page: gr.Blocks) -> None:
        """Lay out the tab inside ``page`` and wire its events."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                self._build_stage()
            with gr.Column(scale=4, min_width=300):
                self._build_controls()
        gr.Markdown(
            "Cats of this visit, and some examples: click one to have it back.",
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
        self.fresh = gr.Checkbox(True, label="A new seed for every click", elem_id="fresh")
        self.coat = Choice([ANY_COAT], value=ANY_COAT, label="Coat", elem_id="coat")
        self.count = gr.Slider(1, MAX_CATS, value=1, step=1, label="Cats", elem_id="count")
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
            self.pixels = gr.Checkbox(False, label="Show the pixels", elem_id="pixels")
        with gr.Accordion("Keep", open=True):
            self.scale = gr.Radio(
                [("×1", 1), ("×4", 4), ("×8", 8)], value=8, label="Size of the download",
                elem_id="scale",
            )  # fmt: skip
            with gr.Row():
                self.download = gr.DownloadButton(
                    "Save PNG", interactive=False, elem_id="download", min_width=80, size="sm"
                )
                self.copy = gr.Button("Copy link", elem_id="copy", min_width=80, size="sm")
                self.zip = gr.DownloadButton(
                    "All as zip", interactive=False, elem_id="zip", min_width=80, size="sm"
                )

    def _build_play(self) -> None:
        with gr.Tabs(elem_id="play"):
            with gr.Tab("Animate"):
                gr.Markdown("How the cat on the stage formed out of noise.")
                with gr.Row():
                    self.film_kind = gr.Radio(
                        ["the estimate", "the noisy picture"], value="the estimate", label="Show"
                    )
                    self.film_seconds = gr.Slider(0.5, 10, value=2, step=0.5, label="Seconds")
                    self.film_speed = gr.Slider(1, 30, value=15, step=1, label="Frames a second")
                    self.film_hold = gr.Slider(
                        0, 10, value=1, step=0.5, label="Hold the last frame, seconds"
                    )
                self.animate_button = gr.Button("Animate", elem_id="animate")
                self.film_note = gr.HTML(status_html(""), elem_id="film-note")
                self.film, self.film_gif, self.film_mp4 = self._film_widgets("film")
            with gr.Tab("Morph"):
                gr.Markdown("A loop from cat to cat; with several coats they take turns.")
                with gr.Row():
                    self.morph_seeds = gr.Textbox("1, 2, 3", label="Seeds", elem_id="morph-seeds")
                    self.morph_coats = Choice(
                        [ANY_COAT], multiselect=True, label="Coats (empty: the one above)",
                        elem_id="morph-coats",
                    )  # fmt: skip
                    self.morph_frames = gr.Slider(
                        2, 32, value=12, step=1, label="Frames from cat to cat"
                    )
                self.morph_button = gr.Button("Morph", elem_id="morph")
                self.morph_note = gr.HTML(status_html(""), elem_id="morph-note")
                self.morph_film, self.morph_gif, self.morph_mp4 = self._film_widgets("morph-film")
            with gr.Tab("Variations"):
                gr.Markdown("Nine cats around the one on the stage.")
                self.vary_strength = gr.Slider(
                    0.02, 1, value=0.25, step=0.01, label="How far from it", elem_id="vary-strength"
                )
                self.vary_button = gr.Button("Vary", elem_id="vary")
            with gr.Tab("From a picture"):
                gr.Markdown("Upload, photograph or sketch something; noise makes a cat of it.")
                self.picture = PictureEditor(
                    type="filepath", label="Picture", elem_id="picture", canvas_size=(512, 512),
                    height=420, layers=False, format="png",
                )  # fmt: skip
                self.picture_strength = gr.Slider(
                    0.1, 1, value=0.6, step=0.05, label="How much becomes noise"
                )
                self.picture_button = gr.Button("Start from this picture", elem_id="from-picture")
            with gr.Tab("Repaint"):
                gr.Markdown("Paint over what shall be drawn anew; all the rest stays as it is.")
                self.take = gr.Button("Take the cat on the stage", elem_id="take")
                self.canvas = PictureEditor(
                    type="filepath", label="Picture and mask", elem_id="canvas", format="png",
                    canvas_size=(512, 512), height=420, layers=False,
                    brush=gr.Brush(default_size=60, colors=["#ff7a00"], color_mode="fixed"),
                )  # fmt: skip
                self.repaint_button = gr.Button("Repaint", elem_id="repaint")
            with gr.Tab("Restore"):
                gr.Markdown("Drop a PNG that was saved here: its settings and its cat come back.")
                self.file = gr.File(file_types=[".png"], label="PNG", elem_id="restore", height=140)

    @staticmethod
    def _film_widgets(name: str) -> tuple[gr.Image, gr.DownloadButton, gr.DownloadButton]:
        film = gr.Image(
            label="Film", format="gif", interactive=False, height=300, buttons=[],
            elem_id=name, visible=False,
        )  # fmt: skip
        with gr.Row():
            gif = gr.DownloadButton("Download GIF", visible=False, elem_id=f"{name}-gif")
            mp4 = gr.DownloadButton("Download MP4", visible=False, elem_id=f"{name}-mp4")
        return film, gif, mp4

    def _wire(self, page: gr.Blocks) -> None:
        settings = [self.seed, self.coat, self.steps, self.sampler, self.guidance, self.model]
        paths, recipe, shown, linked = (gr.State(value) for value in ([], None, None, []))
        keep = [self.scale, paths]
        drawn = [
            self.stage, self.status, paths, self.strip, recipe, shown, self.download, self.zip,
            self.walk,
        ]  # fmt: skip
        controls = [*settings, self.hint, self.morph_coats]
        private = {"api_visibility": "private", "show_progress": "hidden"}
        drawing = {**private, "concurrency_limit": None}  # the studio bounds what waits
        on_stage = {**drawing, "trigger_mode": "multiple"}  # a newer run ends the older
        at_once = {**private, "queue": False}

        generate = {"fn": self.generate, "inputs": [self.count, *settings, *keep], "outputs": drawn}
        self.generate_button.click(_new_seed, self.fresh, self.seed, **at_once).then(
            **generate, **on_stage
        )
        self.seed.submit(**generate, **on_stage)  # Enter means this very seed
        self.stop_button.click(self.stop, **at_once)
        self.dice.click(random_seed, None, self.seed, **at_once)
        for chosen in (self.seed.input, self.dice.click):  # then it is this one that is wanted
            chosen(None, None, self.fresh, js="() => false", **private)
        self.reuse.click(_reuse_seed, recipe, [self.seed, self.fresh], **at_once)
        self.sampler.input(self.choose_sampler, self.sampler, [self.steps, self.hint], **at_once)
        self.model.focus(self.list_models, None, self.model, **at_once)
        self.model.input(
            self.choose_model, [self.model, self.coat],
            [self.coat, self.morph_coats, self.guidance], **at_once,
        )  # fmt: skip
        self.walk.input(None, self.walk, None, js="(step) => { catWalk(step) }", **private)
        self.pixels.change(None, self.pixels, None, js="(on) => { catPixels(on) }", **private)
        self.copy.click(None, None, None, js="() => { catLink() }", **private)
        self.scale.change(self.rescale, [shown, self.scale], self.download, **at_once)

        film = [self.film_kind, self.film_seconds, self.film_speed, self.film_hold]
        self.animate_button.click(
            self.animate, [recipe, *film],
            [self.film, self.film_gif, self.film_mp4, self.film_note], **drawing,
        )  # fmt: skip
        gr.on(
            [self.morph_button.click, self.morph_seeds.submit],
            self.morph, [self.morph_seeds, self.morph_coats, self.morph_frames, *settings[1:]],
            [self.morph_film, self.morph_gif, self.morph_mp4, self.morph_note], **drawing,
        )  # fmt: skip
        self.vary_button.click(self.vary, [recipe, self.vary_strength, *keep], drawn, **on_stage)
        self.picture_button.click(_new_seed, self.fresh, self.seed, **at_once).then(
            self.start_from_picture, [self.picture, self.picture_strength, *settings, *keep],
            drawn, **on_stage,
        )  # fmt: skip
        self.take.click(self.take_cat, shown, self.canvas, **at_once)
        self.repaint_button.click(_new_seed, self.fresh, self.seed, **at_once).then(
            self.repaint, [self.canvas, *settings, *keep], drawn, **on_stage
        )
        self.file.upload(self.restore, [self.file, *keep], [*drawn, *controls], **on_stage)
        for cats in (self.strip, self.stage):
            cats.select(self.restore_from_strip, keep, [*drawn, *controls], **on_stage)
        for play in (self.vary_button.click, self.picture_button.click, self.repaint_button.click,
                     self.file.upload, self.strip.select):  # fmt: skip
            play(None, None, None, js="() => { catShow() }", **private)
        page.load(
            self.open_page,
            None,
            [self.count, *controls, paths, self.strip, self.status, linked],
            **at_once,
        ).then(self.first_cat, [linked, *keep], drawn, **drawing)


def _without(strip: Sequence[str], recipes: Sequence[Recipe]) -> list[str]:
    """Those files of a strip that are still there and show other cats."""
    others = []
    for path in still_there(strip):
        with suppress(ValueError):  # cleared away since the last line
            if read_recipe(path) not in recipes:
                others.append(path)
    return others


def _new_seed(fresh: bool) -> Any:
    return random_seed() if fresh else gr.skip()


def _reuse_seed(recipe: dict | None) -> tuple[Any, bool]:
    """The seed of the cat on the stage, to be kept for the clicks that follow."""
    return (recipe or {}).get("seed", gr.skip()), False


def _current(recipe: dict | None) -> Recipe:
    if not recipe:
        raise ValueError("There is no cat yet; generate one first.")
    return Recipe.from_dict(recipe)
