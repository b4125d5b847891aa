"""The Admin tab: its layout, and which action each of its events starts.

None of its events goes through Gradio's queue: an answer comes back in the body of its own request,
so that nobody can listen in. What is shown is derived from the disk at every look, never kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from diffusion.config import FinetuneConfig

from .. import space
from ..page.choice import Choice
from ..page.wiring import start
from .actions import CANCEL, LENGTH_TITLES, AdminActions
from .html import ACT, DROP, NO_TRAINING_HERE, message_html
from .parts import Admin
from .shown import Look

LOOK_SECONDS = 2.0  # between two looks at the trainings while somebody is signed in
LAYERS = [("The whole network", "all"), ("The inner half", "deep"), ("Only the new label", "label")]

# How events reach the server: none is an endpoint for scripts, none waits in the queue.
AT_ONCE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


class AdminTab:
    """Builds the tab; all work is done by its ``AdminActions``."""

    def __init__(self, admin: Admin) -> None:
        self.actions = AdminActions(admin)

    def build(self, page: gr.Blocks, visitors_model: Component) -> None:
        """Lay out the tab inside ``page`` and wire its events.

        ``visitors_model`` is the list of models in the Generate tab, kept up to date here too.
        """
        self.visitors_model = visitors_model
        self.selected, self.chosen_base, self.seen = gr.State(""), gr.State(""), gr.State({})
        self.timer = gr.Timer(LOOK_SECONDS, active=False)
        self.door = gr.HTML("", padding=False, elem_id="admin-door")
        self.look_button = gr.Button("Look", elem_id="admin-look", elem_classes="admin-hidden")
        with gr.Column(visible=False, elem_id="admin-room") as self.room:
            self.sign_out_button = gr.Button("Sign out", size="sm", elem_id="admin-sign-out")
            with gr.Row(equal_height=False):
                with gr.Column(scale=6, min_width=320):
                    gr.Markdown("## 1 · Your cat's photos")
                    gr.HTML(DROP, padding=False, elem_id="admin-drop")
                with gr.Column(scale=4, min_width=300):
                    self._build_form()
            self._build_trainings()
            self._build_models()
        self._wire(page)

    def _build_form(self) -> None:
        gr.Markdown("## 2 · Teach the model")
        if space.on_zero_gpu():
            gr.HTML(NO_TRAINING_HERE, padding=False)
        with gr.Row():
            self.name = gr.Textbox(label="Name of the cat", elem_id="admin-name", max_lines=1)
            self.label = gr.Textbox(
                label="Label in the list of coats", placeholder="the cat's name",
                elem_id="admin-label", max_lines=1,
            )  # fmt: skip
        self.base = Choice([], label="Start from model", elem_id="admin-base")
        self.length = gr.Radio(
            [(title, name) for name, title in LENGTH_TITLES.items()], value="balanced",
            label="Training length", elem_id="admin-length",
        )  # fmt: skip
        with gr.Accordion("Advanced", open=False, elem_id="admin-advanced"):
            self.lr = gr.Number(0, label="Learning rate (0: automatic)", elem_id="admin-lr")
            self.batch_size = gr.Number(
                0, label="Batch size (0: automatic)", precision=0, elem_id="admin-batch"
            )
            self.layers = gr.Radio(
                LAYERS, value="all", label="Layers to train", elem_id="admin-layers"
            )
            self.keep = gr.Slider(
                0, 0.75, value=FinetuneConfig.keep, step=0.05, elem_id="admin-keep",
                label="Share of training spent on the other cats",
            )  # fmt: skip
        self.start_button = gr.Button(
            "Start", variant="primary", elem_id="admin-start", interactive=not space.on_zero_gpu()
        )
        self.start_message = gr.HTML("", padding=False, elem_id="admin-start-message")

    def _build_trainings(self) -> None:
        gr.Markdown("## 3 · Trainings")
        self.choice = gr.Radio(
            [], label="Training", show_label=False, elem_id="admin-trainings", visible=False
        )
        self.training = gr.HTML("", padding=False, elem_id="admin-training", js_on_load=ACT)
        self.samples = gr.HTML("", padding=False, elem_id="admin-samples", js_on_load=ACT)
        with gr.Row(elem_id="admin-steer"):
            options: dict[str, Any] = {"size": "sm", "min_width": 110, "interactive": False}
            self.pause_button = gr.Button("Pause", elem_id="admin-pause", **options)
            self.resume_button = gr.Button("Resume", elem_id="admin-resume", **options)
            self.stop_button = gr.Button("Stop and keep", elem_id="admin-stop", **options)
            self.cancel_button = gr.Button(
                CANCEL, elem_id="admin-cancel", elem_classes="admin-confirm", **options
            )
        self.training_message = gr.HTML("", padding=False, elem_id="admin-training-message")
        # An element of the page, not of the training's HTML, so that it stays open.
        with gr.Accordion("Details", open=False, elem_id="admin-details"):
            self.curve = gr.HTML("", padding=False, elem_id="admin-curve")
            self.log = gr.HTML("", padding=False, elem_id="admin-log")

    def _build_models(self) -> None:
        gr.Markdown("## 4 · Models")
        self.models = gr.HTML("", padding=False, elem_id="admin-models", js_on_load=ACT)
        self.model_message = gr.HTML("", padding=False, elem_id="admin-model-message")
        with gr.Accordion("Publish on the Hugging Face Hub", open=False, elem_id="admin-to-hub"):
            self.model = Choice([], label="Model", elem_id="admin-model")
            self.repo = gr.Textbox(
                label="Repository, for example mia/my-cats", elem_id="admin-repo"
            )
            self.token = gr.Textbox(
                label="A token with write access; it is used once and not stored", type="password",
                elem_id="admin-token",
            )  # fmt: skip
            self.publish_button = gr.Button("Publish", size="sm", elem_id="admin-publish")
            self.publish_message = gr.HTML("", padding=False, elem_id="admin-publish-message")

    def _wire(self, page: gr.Blocks) -> None:
        do = self.actions
        seen = [self.selected, self.chosen_base, self.seen]
        parts = {name: getattr(self, name) for name in Look.__annotations__}

        def look(event: Callable[..., Any]) -> None:
            start(event, do.look, seen, parts, **AT_ONCE)

        for event in (page.load, self.timer.tick, self.look_button.click):
            look(event)
        signed_out = self.sign_out_button.click(None, js="() => catSignOut()", **AT_ONCE)
        chosen = self.choice.input(do.choose_training, self.choice, self.selected, **AT_ONCE)
        based = self.base.input(do.choose_base, self.base, self.chosen_base, **AT_ONCE)
        form: list[Any] = [
            self.base, self.name, self.label, self.length, self.lr, self.batch_size, self.layers,
            self.keep,
        ]  # fmt: skip
        _say_at_once(self.start_button, self.start_message, "Preparing the photos…")
        _say_at_once(self.publish_button, self.publish_message, "Uploading the model…")
        # What was wrong with the form is no longer said once somebody mends it.
        mended = [field.change for field in form if field is not self.base]  # whose list may grow
        gr.on(mended, None, None, self.start_message, js="() => ''", **AT_ONCE)
        started = self.start_button.click(do.start_training, form, self.start_message, **AT_ONCE)
        for event in (signed_out, chosen, based, started):
            look(event.then)
        inputs: Sequence[Component]
        for button, action, inputs, message in (
            (self.pause_button, do.pause_training, [self.choice], self.training_message),
            (self.resume_button, do.resume_training, [self.choice], self.training_message),
            (self.stop_button, do.stop_training, [self.choice], self.training_message),
            (self.cancel_button, do.cancel_training, [self.choice], self.training_message),
        ):
            look(button.click(action, inputs, message, **AT_ONCE).then)
        for html, message in (
            (self.training, self.training_message),
            (self.samples, self.training_message),
            (self.models, self.model_message),
        ):
            look(html.select(do.act, None, message, **AT_ONCE).then)
        published = [self.model, self.repo, self.token]
        self.publish_button.click(
            do.publish_model, published, self.publish_message, **AT_ONCE
        ).then(None, None, self.token, js="() => ''", **AT_ONCE)  # fmt: skip


def _say_at_once(button: gr.Button, message: Component, sentence: str) -> None:
    """What a press of the button takes minutes for, until the server says how it ended."""
    said = json.dumps(message_html(sentence))
    button.click(None, None, message, js=f"() => {said}", **AT_ONCE)
