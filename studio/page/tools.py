"""What can be done with a cat, below the strip: the layout of films, variations and editors."""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from ..drawing.recipe import PICTURE_STRENGTH
from .choice import Choice
from .editor import PictureEditor
from .forms import ANY_COAT
from .stage import status_html


class Tools:
    """The components of each tool; ``GenerateTab`` wires them."""

    def __init__(self) -> None:
        with gr.Tabs(elem_id="play"):
            with gr.Tab("Animate"):
                self._build_animate()
            with gr.Tab("Morph"):
                self._build_morph()
            with gr.Tab("Variations"):
                self._build_variations()
            with gr.Tab("From a picture"):
                self._build_from_picture()
            with gr.Tab("Repaint"):
                self._build_repaint()
            with gr.Tab("Restore"):
                gr.Markdown("Drop a PNG that you saved here. Its cat and its settings come back.")
                self.file = gr.File(file_types=[".png"], label="PNG", elem_id="restore", height=140)
                self.restore_note = _note("restore-note")

    def _build_animate(self) -> None:
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                gr.Markdown("A film of how the current cat formed out of noise.")
                self.film_kind = gr.Radio(
                    ["the estimate", "the noisy picture"], value="the estimate", label="Show"
                )
                with gr.Row():
                    self.film_seconds = _slider("Seconds", 0.5, 10, value=2, step=0.5)
                    self.film_hold = _slider("Seconds on the last frame", 0, 10, value=1, step=0.5)
                    self.film_speed = _slider("Frames per second", 1, 30, value=15, step=1)
                self.animate_button = gr.Button("Make the film", elem_id="animate")
            self.film = film_parts("film", note="film-note")

    def _build_morph(self) -> None:
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                gr.Markdown(
                    "A film that turns one cat into the next, in a loop. Several coats are used "
                    "in turn."
                )
                self.morph_seeds = gr.Textbox("1, 2, 3", label="Seeds", elem_id="morph-seeds")
                self.morph_coats = Choice(
                    [ANY_COAT], multiselect=True, label="Coats (empty: the coat chosen above)",
                    elem_id="morph-coats",
                )  # fmt: skip
                self.morph_frames = gr.Slider(
                    2, 32, value=12, step=1, label="Frames between two cats"
                )
                self.morph_button = gr.Button("Morph", elem_id="morph")
            self.morph_film = film_parts("morph-film", note="morph-note")

    def _build_variations(self) -> None:
        gr.Markdown("Nine cats around the one on the stage.")
        self.vary_strength = gr.Slider(
            0.02, 1, value=0.25, step=0.01, label="How different", elem_id="vary-strength"
        )
        self.vary_again = gr.Button("Draw nine variations", elem_id="vary-again")
        self.vary_note = _note("vary-note")

    def _build_from_picture(self) -> None:
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                self.picture = PictureEditor(
                    type="filepath", label="Picture", elem_id="picture", canvas_size=(512, 512),
                    height=420, layers=False, format="png",
                )  # fmt: skip
                _unseen("picture-unseen")
            with gr.Column(scale=2, min_width=300):
                gr.Markdown(
                    "Upload, photograph or sketch something. It is covered with noise and becomes "
                    "a cat."
                )
                self.picture_strength = gr.Slider(
                    0.05, 1, value=PICTURE_STRENGTH, step=0.05, label="How much to change"
                )
                self.picture_button = gr.Button("Start from this picture", elem_id="from-picture")
                self.picture_note = _note("picture-note")

    def _build_repaint(self) -> None:
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                self.canvas = PictureEditor(
                    type="filepath", label="Picture and mask", elem_id="canvas", format="png",
                    canvas_size=(512, 512), height=420, layers=False,
                    brush=gr.Brush(default_size=60, colors=["#ff7a00"], color_mode="fixed"),
                )  # fmt: skip
                _unseen("canvas-unseen")
            with gr.Column(scale=2, min_width=300):
                gr.Markdown("Paint over the part to redraw. The rest stays exactly as it is.")
                self.take = gr.Button("Use the current cat", elem_id="take")
                self.repaint_button = gr.Button("Redraw the painted part", elem_id="repaint")
                self.repaint_note = _note("repaint-note")


def _slider(label: str, least: float, most: float, *, value: float, step: float) -> gr.Slider:
    """One of several in a row, wide enough for its words."""
    return gr.Slider(least, most, value=value, step=step, label=label, min_width=240)


def _note(name: str) -> gr.HTML:
    """Beside a tool: why it could not start."""
    return gr.HTML("", elem_id=name, elem_classes="note")


def _unseen(name: str) -> None:
    """Under an editor: that the browser cannot decode a picture. Its script (unseen.js) says it."""
    gr.HTML(status_html("", error=True), elem_id=name, elem_classes="note")


def film_parts(name: str, *, note: str) -> dict[str, Component]:
    """The components of one film, by their names in ``ShownFilm``, beside its settings."""
    with gr.Column(scale=2, min_width=300, elem_classes="made"):
        line = gr.HTML(status_html(""), elem_id=note, elem_classes="note")
        film = gr.Image(
            label="Film", format="gif", interactive=False, height=320, buttons=[],
            show_label=False, elem_id=name, visible=False,
        )  # fmt: skip
        with gr.Row():
            gif = gr.DownloadButton("Download GIF", visible=False, elem_id=f"{name}-gif", size="sm")
            mp4 = gr.DownloadButton("Download MP4", visible=False, elem_id=f"{name}-mp4", size="sm")
    return {"note": line, "film": film, "gif": gif, "mp4": mp4}
