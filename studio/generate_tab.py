"""The Generate tab: layout, and thin handlers that have names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from PIL import Image

from diffusion import SAMPLERS, SampleConfig
from diffusion.pictures import from_image

from .editor import PictureEditor
from .files import png_name, save_file, save_png, save_zip, still_there
from .films import Film, Pace, film_of, morph_of
from .forms import (
    ANY_COAT,
    MAX_CATS,
    number,
    random_seed,
    read_count,
    read_mask_layer,
    read_morph_form,
    read_recipe_form,
    read_upload,
    text,
)
from .generation import Busy, Job, Studio, Update
from .png_metadata import encode_png, read_recipe
from .recipe import Recipe, consecutive, embed_mask, embed_picture, max_steps, variations
from .stage import progress_text, result_text, stage_html, status_html

STRIP_LENGTH = 24  # cats of this visit that are kept at hand
EXAMPLES = 8
FIRST_SEED = 18
SAMPLER_HINTS = {
    "dpmpp_2m": "DPM-Solver++(2M): best for few steps. The default.",
    "euler": "Euler: plain and forgiving; first order.",
    "heun": "Heun: two evaluations a step, accurate at 18 steps and more.",
    "ddim": "DDIM: deterministic, along the same path as Euler.",
    "ddpm": "DDPM: the original, adds noise at each step; wants hundreds of steps, up to 1,000.",
}


class GenerateTab:
    """Builds the tab and holds its handlers; all work is done by the ``Studio``."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._jobs: dict[str, Job] = {}  # the running job of each visit, for Stop
        self._examples: list[tuple[bytes, str]] = []

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
            picture = read_upload((editor or {}).get("composite"))
            embedded = embed_picture(picture, self._size(recipe.model))
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
            picture = read_upload((editor or {}).get("background"))
            layers = (editor or {}).get("layers") or [None]
            recipe = dataclasses.replace(
                recipe,
                picture=embed_picture(picture, size),
                mask=embed_mask(read_mask_layer(layers[0]), size),
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
            recipe = read_recipe(path) if path else _current(None)
            controls = self._controls(recipe)
        except ValueError as error:
            yield (*self._failed(error), *[gr.skip()] * 7)
            return
        for outputs in self._draw([recipe], scale, strip, request):
            yield (*outputs, *controls)

    def restore_from_strip(
        self, scale: int, strip: list[str], event: gr.SelectData, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """The cat that was clicked in the strip."""
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
            yield self._show_film(morph_of(job, speed=12.0))
        except (ValueError, Busy) as error:
            yield gr.skip(), gr.skip(), gr.skip(), status_html(str(error), error=True)

    def stop(self, request: gr.Request) -> None:
        """Ends this visit's job within one step; its handler then shows what is there."""
        job = self._jobs.get(request.session_hash or "")
        if job is not None:
            self.studio.stop(job)

    def rescale(self, recipe: dict | None, scale: int, strip: list[str]) -> Any:
        """The download in another size."""
        strip = still_there(strip)
        if not recipe or not strip:
            return gr.skip()
        with Image.open(strip[0]) as small:
            picture = from_image(small)
        return gr.update(value=save_png(picture, _current(recipe), scale=scale))

    def open_page(self, request: gr.Request) -> tuple[Any, ...]:
        """What a new visit sees: the model list, and the settings of its link."""
        query = dict(request.query_params) if request else {}
        names = self.studio.library.names
        recipe = Recipe(seed=FIRST_SEED, model=self.studio.library.default)
        controls = self._controls(recipe)
        count, ran, problem = 1, False, ""
        if "seed" in query:
            try:
                linked, cats = _read_query(query, names), read_count(int(query.get("count", 1)))
                controls = self._controls(linked)
                recipe, count, ran = linked, cats, True
            except ValueError:
                problem = "This link holds settings that are not possible here."
        model = gr.update(choices=names, value=recipe.model or names[0])
        controls = count, *controls[1:-1], model
        strip = self.examples()
        status = status_html(problem, error=True) if problem else gr.skip()
        return (*controls, strip, strip, status, ran)

    def first_cat(
        self, ran: bool, count: Any, seed: Any, coat: Any, steps: Any, sampler: Any, guidance: Any,
        model: Any, scale: int, strip: list[str], request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """The cat of a link forms by itself; any other visit finds the first example there."""
        if ran:
            yield from self.generate(
                count, seed, coat, steps, sampler, guidance, model, scale, strip, request
            )
        elif strip:
            recipe = read_recipe(strip[0])
            with Image.open(strip[0]) as image:
                stage = stage_html(from_image(image)[None], [recipe])
            text = f"{recipe.describe()} · an example; click Generate for one of your own"
            yield (
                stage, status_html(text), gr.skip(), gr.skip(), recipe.to_dict(),
                gr.update(value=strip[0], interactive=True), gr.skip(), gr.skip(),
            )  # fmt: skip

    def choose_sampler(self, sampler: str) -> tuple[Any, str]:
        """The step range and hint that belong to a sampler."""
        sampler = text(sampler, "The sampler")
        most = max_steps(sampler)
        value = most if sampler == "ddpm" else SampleConfig.num_steps
        return gr.update(maximum=most, value=value), SAMPLER_HINTS.get(sampler, "")

    def choose_model(self, model: str, coat: str) -> Any:
        """The coats that a model knows."""
        coats = self._coats(model)
        return gr.update(choices=coats, value=coat if coat in coats else ANY_COAT)

    # -- what the handlers share --------------------------------------------------------------

    def _draw(
        self, recipes: Sequence[Recipe], scale: int, strip: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Draw recipes, showing them as they form; yields values for ``self.drawn``."""
        idle = [gr.skip()] * 6
        try:
            job = self.studio.submit(recipes, record="denoised")
            for update in self._watch(job, request):
                if not update.done:
                    stage = (
                        gr.skip() if update.pictures is None
                        else stage_html(update.pictures, job.recipes, forming=True)
                    )  # fmt: skip
                    yield stage, status_html(progress_text(update)), *idle
        except (ValueError, Busy) as error:
            yield self._failed(error)
            return
        yield self._finished(job, scale, strip)

    def _watch(self, job: Job, request: gr.Request) -> Iterator[Update]:
        """Updates of a job that this visit's Stop can end."""
        visit = request.session_hash or ""
        self._jobs[visit] = job
        try:
            yield from self.studio.watch(job)
        finally:
            if self._jobs.get(visit) is job:
                del self._jobs[visit]

    def _film_progress(self, job: Job, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        for update in self._watch(job, request):
            text = "Writing the film" if update.done else progress_text(update)
            yield gr.skip(), gr.skip(), gr.skip(), status_html(text)

    def _finished(self, job: Job, scale: int, strip: list[str]) -> tuple[Any, ...]:
        if job.pictures is None:
            return (gr.skip(), status_html("Stopped before the first step."), *[gr.skip()] * 6)
        strip = still_there(strip)
        text = result_text(
            job.recipes[0], len(job.recipes), job.seconds, stopped=job.stopped, note=job.note
        )
        frames = job.frames[0]
        stage = stage_html(job.pictures, job.recipes, frames=frames)
        if not job.stopped:  # half a cat is not what its recipe would make again
            files = [
                save_png(picture, recipe)
                for picture, recipe in zip(job.pictures, job.recipes, strict=True)
            ]
            strip = [*files, *strip][:STRIP_LENGTH]
        png = save_png(job.pictures[0], job.recipes[0], scale=scale)
        return (
            stage,
            status_html(text),
            strip,
            strip,
            job.recipes[0].to_dict(),
            gr.update(value=png, interactive=True),
            gr.update(value=save_zip(strip), interactive=bool(strip)),
            gr.update(maximum=max(len(frames), 2), value=len(frames), interactive=bool(frames)),
        )

    def _failed(self, error: Exception) -> tuple[Any, ...]:
        return (gr.skip(), status_html(str(error), error=True), *[gr.skip()] * 6)

    def _controls(self, recipe: Recipe) -> tuple[Any, ...]:
        """Values of count, seed, coat, steps, sampler, guidance and model for a recipe.

        Raises ValueError for a model or coat that is not here, while the form has its own values.
        """
        self.studio.library.get(recipe.model).info.label_index(recipe.coat)
        return (
            1, recipe.seed,
            gr.update(choices=self._coats(recipe.model), value=recipe.coat or ANY_COAT),
            gr.update(maximum=max_steps(recipe.sampler), value=recipe.steps),
            recipe.sampler, recipe.guidance, recipe.model or gr.skip(),
        )  # fmt: skip

    def _coats(self, model: str) -> list[str]:
        return [ANY_COAT, *self.studio.library.get(model).info.labels]

    def _size(self, model: str) -> int:
        return self.studio.library.get(model).image_size

    def examples(self) -> list[str]:
        """PNG files of the first cats that a visit sees: drawn once, written for each visit.

        A file lives no longer than ``delete_cache`` says, the program perhaps for months.
        """
        if not self._examples:
            coats = ["", *self.studio.library.get().info.labels]
            recipes = [
                Recipe(seed=FIRST_SEED + i, coat=coats[i % len(coats)]) for i in range(EXAMPLES)
            ]
            job = self.studio.draw(recipes)
            self._examples = [
                (encode_png(picture, recipe), png_name(recipe))
                for picture, recipe in zip(job.pictures, job.recipes, strict=True)
            ]
        return [save_file(png, name) for png, name in self._examples]

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
        gr.Markdown("Cats of this visit: click one to have it back.", elem_id="strip-label")
        self.strip = gr.Gallery(
            label="Cats of this visit", show_label=False, elem_id="strip", height=150,
            format="png", object_fit="contain", allow_preview=False,
            interactive=False, buttons=[],
        )  # fmt: skip
        self._build_play()
        self._wire(page)

    def _build_stage(self) -> None:
        self.stage = gr.HTML(stage_html(None, []), elem_id="stage")
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
                value=FIRST_SEED, precision=0, label="Seed", elem_id="seed", scale=4, min_width=120
            )
            self.dice = gr.Button("🎲 Random", size="sm", elem_id="dice", scale=2, min_width=80)
            self.reuse = gr.Button("♻ Reuse", size="sm", elem_id="reuse", scale=2, min_width=80)
        self.fresh = gr.Checkbox(True, label="A new seed for every click", elem_id="fresh")
        self.coat = gr.Dropdown([ANY_COAT], value=ANY_COAT, label="Coat", elem_id="coat")
        self.count = gr.Slider(1, MAX_CATS, value=1, step=1, label="Cats", elem_id="count")
        with gr.Accordion("Advanced", open=False):
            self.steps = gr.Slider(
                1, 100, value=SampleConfig.num_steps, step=1, label="Steps", elem_id="steps"
            )
            self.sampler = gr.Dropdown(
                list(SAMPLERS), value=SampleConfig.sampler, label="Sampler", elem_id="sampler"
            )
            self.hint = gr.Markdown(SAMPLER_HINTS[SampleConfig.sampler])
            self.guidance = gr.Slider(
                0, 5, value=1, step=0.1, label="Guidance towards the coat (1 is off)",
                elem_id="guidance",
            )  # fmt: skip
            self.model = gr.Dropdown([], label="Model", elem_id="model", allow_custom_value=False)
            self.smooth = gr.Checkbox(False, label="Smooth enlargement", elem_id="smooth")
        with gr.Accordion("Keep", open=True):
            self.scale = gr.Radio(
                [("×1", 1), ("×4", 4), ("×8", 8)], value=8, label="Size of the download",
                elem_id="scale",
            )  # fmt: skip
            with gr.Row():
                self.download = gr.DownloadButton(
                    "PNG", interactive=False, elem_id="download", min_width=80, size="sm"
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
                self.film, self.film_gif, self.film_mp4 = self._film_widgets("film")
            with gr.Tab("Morph"):
                gr.Markdown("A loop from cat to cat; with several coats they take turns.")
                with gr.Row():
                    self.morph_seeds = gr.Textbox("1, 2, 3", label="Seeds", elem_id="morph-seeds")
                    self.morph_coats = gr.Dropdown(
                        [ANY_COAT], multiselect=True, label="Coats (empty: the one above)"
                    )
                    self.morph_frames = gr.Slider(
                        2, 32, value=12, step=1, label="Frames from cat to cat"
                    )
                self.morph_button = gr.Button("Morph", elem_id="morph")
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
            elem_id=name, elem_classes="moving", visible=False,
        )  # fmt: skip
        with gr.Row():
            gif = gr.DownloadButton("Download GIF", visible=False, elem_id=f"{name}-gif")
            mp4 = gr.DownloadButton("Download MP4", visible=False, elem_id=f"{name}-mp4")
        return film, gif, mp4

    def _wire(self, page: gr.Blocks) -> None:
        settings = [self.seed, self.coat, self.steps, self.sampler, self.guidance, self.model]
        paths, recipe, ran = gr.State([]), gr.State(None), gr.State(False)
        keep = [self.scale, paths]
        drawn = [
            self.stage, self.status, paths, self.strip, recipe, self.download, self.zip, self.walk
        ]  # fmt: skip
        controls = [self.count, *settings]
        private = {"api_visibility": "private", "show_progress": "hidden"}
        drawing = {**private, "concurrency_limit": None}  # the studio bounds what waits
        at_once = {**private, "queue": False}

        generate = {"fn": self.generate, "inputs": [self.count, *settings, *keep], "outputs": drawn}
        self.generate_button.click(_new_seed, self.fresh, self.seed, **at_once).then(
            **generate, **drawing
        )
        self.seed.submit(**generate, **drawing)  # Enter means this very seed
        self.stop_button.click(self.stop, **at_once)
        self.dice.click(random_seed, None, self.seed, **at_once)
        self.reuse.click(_reuse_seed, recipe, [self.seed, self.fresh], **at_once)
        self.sampler.input(self.choose_sampler, self.sampler, [self.steps, self.hint], **at_once)
        self.model.input(self.choose_model, [self.model, self.coat], self.coat, **at_once)
        self.walk.input(None, self.walk, None, js="(step) => { catWalk(step) }", **private)
        self.smooth.change(None, self.smooth, None, js="(on) => { catSmooth(on) }", **private)
        self.copy.click(None, [self.seed, self.count, *settings[1:]], None, js=COPY_LINK, **private)
        self.scale.change(self.rescale, [recipe, *keep], self.download, **at_once)

        film = [self.film_kind, self.film_seconds, self.film_speed, self.film_hold]
        self.animate_button.click(
            self.animate, [recipe, *film],
            [self.film, self.film_gif, self.film_mp4, self.status], **drawing,
        )  # fmt: skip
        self.morph_button.click(
            self.morph, [self.morph_seeds, self.morph_coats, self.morph_frames, *settings[1:]],
            [self.morph_film, self.morph_gif, self.morph_mp4, self.status], **drawing,
        )  # fmt: skip
        self.vary_button.click(self.vary, [recipe, self.vary_strength, *keep], drawn, **drawing)
        self.picture_button.click(
            self.start_from_picture, [self.picture, self.picture_strength, *settings, *keep],
            drawn, **drawing,
        )  # fmt: skip
        self.take.click(_take_cat, paths, self.canvas, **at_once)
        self.repaint_button.click(self.repaint, [self.canvas, *settings, *keep], drawn, **drawing)
        self.file.upload(self.restore, [self.file, *keep], [*drawn, *controls], **drawing)
        self.strip.select(self.restore_from_strip, keep, [*drawn, *controls], **drawing)
        page.load(
            self.open_page, None, [*controls, paths, self.strip, self.status, ran], **at_once
        ).then(self.first_cat, [ran, self.count, *settings, *keep], drawn, **drawing)


COPY_LINK = """(seed, count, coat, steps, sampler, guidance, model) =>
  { catLink(seed, count, coat, steps, sampler, guidance, model) }"""


def _new_seed(fresh: bool) -> Any:
    return random_seed() if fresh else gr.skip()


def _reuse_seed(recipe: dict | None) -> tuple[Any, bool]:
    """The seed of the cat on the stage, to be kept for the clicks that follow."""
    return (recipe or {}).get("seed", gr.skip()), False


def _take_cat(strip: list[str]) -> Any:
    """The newest cat as the picture to paint on, large enough for a brush."""
    strip = still_there(strip)
    if not strip:
        return gr.skip()
    with Image.open(strip[0]) as image:
        large = image.convert("RGB").resize((512, 512), Image.Resampling.NEAREST)
    return {"background": large, "layers": [], "composite": None}


def _current(recipe: dict | None) -> Recipe:
    if not recipe:
        raise ValueError("There is no cat yet; generate one first.")
    return Recipe.from_dict(recipe)


def _read_query(query: Mapping[str, str], models: Sequence[str]) -> Recipe:
    """The recipe of a link such as ``/?seed=42&steps=12&coat=tabby``."""
    model = query.get("model", "")
    return read_recipe_form(
        int(query["seed"]),
        query.get("coat", ANY_COAT),
        int(query.get("steps", SampleConfig.num_steps)),
        query.get("sampler", SampleConfig.sampler),
        float(query.get("guidance", 1)),
        model if model in models else "",
    )
