"""The Admin tab: layout, and thin handlers, each of which demands the owner.

None of its events goes through Gradio's queue: an answer comes back in the body of its own request,
so that nobody can listen in. What is shown is derived from the disk at every look, never kept.
"""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from diffusion.config import LENGTHS, FinetuneConfig

from .. import space
from ..disk import errors_as_sentences
from ..drawing.recipe import consecutive, plain_recipe
from ..page.choice import Choice
from ..page.examples import FIRST_SEED
from ..page.forms import number, text, whole_number
from ..page.stage import stage_html
from ..safety.owner import NotOwner
from ..training.training_folder import TrainingSpec, TrainingState
from ..training.tuned import slug
from ..training.views import TrainingView
from .html import (
    DROP,
    NO_TRAINING_HERE,
    SIGN_IN,
    SWITCHED_OFF,
    log_html,
    message_html,
    models_html,
    samples_html,
    training_html,
    training_title,
)
from .parts import Admin

LOOK_SECONDS = 2.0  # between two looks at the trainings while somebody is signed in
COMPARED = 4  # cats of each model
LENGTH_TITLES = {"quick": "Quick", "balanced": "Balanced", "thorough": "Thorough"}
LAYERS = [("The whole network", "all"), ("The inner half", "deep"), ("Only the new label", "label")]
ACTIVE = (TrainingState.QUEUED, TrainingState.RUNNING, TrainingState.PAUSED)


def owner_only(handler: Callable[..., str]) -> Callable[..., str]:
    """A handler that refuses strangers; the owner's own mistakes become a line beside the form.

    The request is the last argument, as Gradio hands it over.
    """

    @functools.wraps(handler)
    def guarded(self: AdminTab, *values: Any) -> str:
        self.admin.owner.demand(_cookies(values[-1] if values else None))
        try:
            with errors_as_sentences():
                return handler(self, *values)
        except ValueError as error:
            return message_html(str(error), error=True)

    return guarded


class AdminTab:
    """Builds the tab and holds its handlers; all work is done by the parts of ``Admin``."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        self._starting = threading.Lock()

    # -- what is shown --------------------------------------------------------------------------

    def look(
        self, selected: str, base: str, seen: Mapping[int, str], request: gr.Request
    ) -> dict[Component, Any]:
        """How everything stands. The one handler that answers strangers: with the door."""
        try:
            self.admin.owner.demand(_cookies(request))
        except NotOwner:
            return self._door()
        wanted = self._room(selected, base)
        known = {component._id: repr(value) for component, value in wanted.items()}
        changed = {c: value for c, value in wanted.items() if seen.get(c._id) != known[c._id]}
        if not seen:  # later a look leaves alone what was chosen in the forms
            changed.update(self._first_choices())
        return {**changed, self.seen: known}

    def _door(self) -> dict[Component, Any]:
        """What a stranger sees, and what is left of the owner's after signing out: nothing."""
        empty = [self.training, self.samples, self.models, self.compared, *self.messages]
        return {
            self.door: SIGN_IN if self.admin.owner.enabled else SWITCHED_OFF,
            self.room: gr.update(visible=False),
            self.timer: gr.update(active=False),
            self.seen: {},
            self.selected: "",
            self.choice: gr.update(choices=[], value=None),
            **dict.fromkeys(empty, ""),
        }

    def _first_choices(self) -> dict[Component, Any]:
        library = self.admin.studio.library
        begin = gr.update(choices=library.names, value=library.default)
        return {self.base: begin, self.compared_base: begin}

    def _room(self, selected: str, base: str) -> dict[Component, Any]:
        """Everything that the owner sees but what is typed into the forms."""
        views, library = self.admin.trainings.views(), self.admin.studio.library
        view = _chosen(views, selected)
        names, tuned = library.names, self.admin.models.names()
        wanted = {
            self.door: "",
            self.room: gr.update(visible=True),
            self.timer: gr.update(active=True),
            self.base: gr.update(choices=names),
            self.compared_base: gr.update(choices=names),
            self.model: gr.update(choices=tuned),
            self.compared_model: gr.update(choices=tuned),
            self.length: self._lengths(base if base in names else ""),
            self.models: models_html(tuned, library.default, library.faults()),
            self.training: training_html(view),
            self.log: log_html(view),
            self.samples: samples_html(view),
            self.choice: gr.update(
                choices=[(training_title(v), v.id) for v in views], value=view.id if view else None,
                visible=bool(views),
            ),
            **self._buttons(view),
        }  # fmt: skip
        if self.visitors_model is not None:
            wanted[self.visitors_model] = gr.update(choices=names)
        return wanted

    def _buttons(self, view: TrainingView | None) -> dict[Component, Any]:
        can = {
            self.pause_button: view and view.can_pause,
            self.resume_button: view and view.can_resume,
            self.stop_button: view and view.can_stop,
            self.cancel_button: view is not None,
        }
        steps = [(f"after {n:,} images", n) for n in view.steps] if view and view.result else []
        return {
            **{button: gr.update(interactive=bool(ok)) for button, ok in can.items()},
            self.step: gr.update(choices=steps, visible=bool(steps)),
            self.roll_back_button: gr.update(visible=bool(steps)),
        }

    def choose_training(self, identity: str, request: gr.Request) -> str:
        """Which training is looked at from here; the next look shows it."""
        self.admin.owner.demand(_cookies(request))
        return text(identity, "The training")

    def choose_base(self, base: str, request: gr.Request) -> str:
        """Which model a training would begin from; the next look says how long it takes."""
        self.admin.owner.demand(_cookies(request))
        return text(base, "The base model")

    def _lengths(self, base: str) -> Any:
        minutes = self.admin.trainings.estimates(base)  # None: not known yet; empty: never
        choices = [
            (f"{title}{_about(None if minutes is None else minutes.get(name, 0))}", name)
            for name, title in LENGTH_TITLES.items()
        ]
        return gr.update(choices=choices)

    # -- trainings ------------------------------------------------------------------------------

    @owner_only
    def start_training(
        self, base: str, name: str, label: str, length: str, lr: Any, batch_size: Any, layers: str,
        keep: Any, request: gr.Request,
    ) -> str:  # fmt: skip
        """Queue a training on the current photos."""
        if space.on_zero_gpu():
            raise ValueError("Nothing can be trained on ZeroGPU.")
        name = text(name, "The name").strip()
        slug(name)  # raises, before the label is made of it
        config = FinetuneConfig(
            label=text(label, "The label").strip() or name,
            images=LENGTHS.get(text(length, "How long")),
            lr=number(lr or FinetuneConfig.lr, "The learning rate"),
            batch_size=whole_number(batch_size or FinetuneConfig.batch_size, "The batch"),
            layers=text(layers, "Layers to train"),
            keep=number(keep, "The share of the other cats"),
        )
        spec = TrainingSpec(name, config, base=text(base, "The base model"))
        pictures = self.admin.sets.current()
        if pictures is None:
            raise ValueError("There are no photos yet. Add some first.")
        squares = pictures.folder / "squares"
        with self._starting:  # two devices may press Start at once
            for view in self.admin.trainings.views():
                if view.state in ACTIVE and view.spec.name == spec.name:
                    raise ValueError(f"{spec.name} is already in training; see below.")
            self.admin.trainings.require_possible(spec)  # before minutes are spent on the photos
            try:
                self.admin.trainings.create(spec, pictures.squares(squares))
            finally:
                shutil.rmtree(squares, ignore_errors=True)
        return message_html(f"{name} is in the queue; see Trainings below.")

    @owner_only
    def pause_training(self, identity: str, request: gr.Request) -> str:
        """Save and rest, to be resumed at any time."""
        self.admin.trainings.pause(text(identity, "The training"))
        return message_html("The training is saving and will pause.")

    @owner_only
    def resume_training(self, identity: str, request: gr.Request) -> str:
        """Back into the queue."""
        self.admin.trainings.resume(text(identity, "The training"))
        return message_html("The training will go on when it is its turn.")

    @owner_only
    def stop_training(self, identity: str, request: gr.Request) -> str:
        """End it here and keep the model."""
        self.admin.trainings.stop_and_keep(text(identity, "The training"))
        return message_html("The training is stopping. What it has learned so far becomes a model.")

    @owner_only
    def cancel_training(self, identity: str, request: gr.Request) -> str:
        """End it and delete its folder."""
        self.admin.trainings.cancel(text(identity, "The training"))
        return message_html("The training is deleted. A model that it has already made is kept.")

    @owner_only
    def roll_back(self, identity: str, images: Any, request: gr.Request) -> str:
        """An earlier state of a training in place of its last."""
        images = whole_number(images, "The step to go back to")
        self.admin.trainings.roll_back(text(identity, "The training"), images)
        return message_html(f"The model is now the one after {images:,} images.")

    # -- models ---------------------------------------------------------------------------------

    @owner_only
    def rename_model(self, name: str, new: str, request: gr.Request) -> str:
        """Another name for a tuned model."""
        got = self.admin.models.rename(_model(name), text(new, "The new name"))
        return message_html(f"The model is now called {got}.")

    @owner_only
    def make_default(self, name: str, request: gr.Request) -> str:
        """The model that visitors get unless they choose."""
        self.admin.models.set_default(_model(name))
        return message_html(f"{name} is now the default for visitors.")

    @owner_only
    def delete_model(self, name: str, request: gr.Request) -> str:
        """A tuned model that nobody wants any more."""
        self.admin.models.delete(_model(name))
        return message_html(f"{name} is deleted.")

    @owner_only
    def publish_model(self, name: str, repo: str, token: str, request: gr.Request) -> str:
        """Upload a model to the Hugging Face Hub; the token is used once and kept nowhere."""
        repo, token = text(repo, "The repository"), text(token, "The token")
        address = self.admin.models.publish(_model(name), repo, token)
        return message_html(f"Published: {address}")

    @owner_only
    def compare(self, base: str, tuned: str, request: gr.Request) -> str:
        """The same seeds from two models: the base of no label, the tuned one of its newest."""
        library = self.admin.studio.library
        base = text(base, "The base model") or library.default
        labels = library.get(_model(tuned)).info.labels
        rows = []
        for model, coat in ((base, ""), (tuned, labels[-1] if labels else "")):
            sampling = library.get(model).info.sampling
            first = plain_recipe(sampling, seed=FIRST_SEED, model=model, coat=coat)
            job = self.admin.studio.draw(consecutive(first, COMPARED))
            title = message_html(f"{model}, {coat or 'no label'}")
            rows.append(f"<section>{title}{stage_html(job.pictures, job.recipes)}</section>")
        return f'<div class="admin-compared">{"".join(rows)}</div>'

    # -- layout ---------------------------------------------------------------------------------

    def build(self, page: gr.Blocks, visitors_model: Component | None = None) -> None:
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
                    gr.Markdown("### 1 · Your cat's photos")
                    gr.HTML(DROP, padding=False, elem_id="admin-drop")
                with gr.Column(scale=4, min_width=300):
                    self._build_form()
            self._build_trainings()
            self._build_models()
        self._wire(page)

    def _build_form(self) -> None:
        gr.Markdown("### 2 · Teach the model")
        if space.on_zero_gpu():
            gr.HTML(NO_TRAINING_HERE, padding=False)
        with gr.Row():
            self.name = gr.Textbox(label="Name of the cat", elem_id="admin-name", max_lines=1)
            self.label = gr.Textbox(
                label="Label", info="The name shown in the list of coats. Leave empty "
                                    "to use the cat's name.",
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
        gr.Markdown("### 3 · Trainings")
        self.choice = gr.Radio(
            [], label="Training", show_label=False, elem_id="admin-trainings", visible=False
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                self.training = gr.HTML("", padding=False, elem_id="admin-training")
                # An element of the page, not of the training's HTML, so that it stays open.
                with gr.Accordion("Log", open=False):
                    self.log = gr.HTML("", padding=False, elem_id="admin-log")
            with gr.Column(scale=4, min_width=300):
                self.samples = gr.HTML("", padding=False, elem_id="admin-samples")
        with gr.Row():
            options: dict[str, Any] = {"size": "sm", "min_width": 110, "interactive": False}
            self.pause_button = gr.Button("Pause", elem_id="admin-pause", **options)
            self.resume_button = gr.Button("Resume", elem_id="admin-resume", **options)
            self.stop_button = gr.Button("Stop and keep", elem_id="admin-stop", **options)
            self.cancel_button = gr.Button(
                "Cancel and delete", elem_id="admin-cancel", elem_classes="admin-confirm", **options
            )
        with gr.Row(equal_height=False):
            self.step = gr.Dropdown([], label="Earlier states", elem_id="admin-step", visible=False)
            self.roll_back_button = gr.Button(
                "Go back to this state", size="sm", elem_id="admin-roll-back", visible=False
            )
        self.training_message = gr.HTML("", padding=False, elem_id="admin-training-message")

    def _build_models(self) -> None:
        gr.Markdown("### 4 · Models")
        self.models = gr.HTML("", padding=False, elem_id="admin-models")
        with gr.Row(equal_height=True):
            self.model = Choice([], label="Model", elem_id="admin-model")
            self.new_name = gr.Textbox(label="New name", elem_id="admin-new-name", max_lines=1)
        with gr.Row():
            options: dict[str, Any] = {"size": "sm", "min_width": 110}
            self.rename_button = gr.Button("Rename", elem_id="admin-rename", **options)
            self.default_button = gr.Button("Make default", elem_id="admin-default", **options)
            self.delete_button = gr.Button(
                "Delete", elem_id="admin-delete", elem_classes="admin-confirm", **options
            )
        with gr.Accordion("Publish on the Hugging Face Hub", open=False):
            self.repo = gr.Textbox(
                label="Repository, for example mia/my-cats", elem_id="admin-repo"
            )
            self.token = gr.Textbox(
                label="A token with write access; it is used once and not stored", type="password",
                elem_id="admin-token",
            )  # fmt: skip
            self.publish_button = gr.Button("Publish", size="sm", elem_id="admin-publish")
        self.model_message = gr.HTML("", padding=False, elem_id="admin-model-message")
        with gr.Accordion("Compare with the base model", open=False):
            with gr.Row():
                self.compared_base = Choice([], label="Base model", elem_id="admin-compare-base")
                self.compared_model = Choice([], label="Your model", elem_id="admin-compare-tuned")
            self.compare_button = gr.Button("Compare", size="sm", elem_id="admin-compare")
            self.compared = gr.HTML("", padding=False, elem_id="admin-compared")

    def _wire(self, page: gr.Blocks) -> None:
        self.messages = [self.start_message, self.training_message, self.model_message]
        plain: dict[str, Any] = {
            "api_visibility": "private",
            "show_progress": "hidden",
            "queue": False,
        }
        looking: dict[str, Any] = {
            "fn": self.look, "inputs": [self.selected, self.chosen_base, self.seen],
            "outputs": self._shown(), **plain
        }  # fmt: skip
        page.load(**looking)
        self.timer.tick(**looking)
        self.look_button.click(**looking)
        self.sign_out_button.click(None, js="() => catSignOut()", **plain).then(**looking)
        self.choice.input(self.choose_training, self.choice, self.selected, **plain).then(**looking)
        self.base.input(self.choose_base, self.base, self.chosen_base, **plain).then(**looking)
        form = [
            self.base, self.name, self.label, self.length, self.lr, self.batch_size, self.layers,
            self.keep,
        ]  # fmt: skip
        self.start_button.click(
            self.start_training, form, self.start_message, **plain
        ).then(**looking)  # fmt: skip
        inputs: Sequence[Component]
        for button, handler, inputs in (
            (self.pause_button, self.pause_training, []),
            (self.resume_button, self.resume_training, []),
            (self.stop_button, self.stop_training, []),
            (self.cancel_button, self.cancel_training, []),
            (self.roll_back_button, self.roll_back, [self.step]),
        ):
            button.click(handler, [self.choice, *inputs], self.training_message, **plain).then(
                **looking
            )
        for button, handler, inputs in (
            (self.rename_button, self.rename_model, [self.new_name]),
            (self.default_button, self.make_default, []),
            (self.delete_button, self.delete_model, []),
        ):
            button.click(
                handler, [self.model, *inputs], self.model_message, **plain
            ).then(**looking)  # fmt: skip
        self.publish_button.click(
            self.publish_model, [self.model, self.repo, self.token], self.model_message, **plain
        ).then(None, None, self.token, js="() => ''", **plain)
        pair = [self.compared_base, self.compared_model]
        self.compare_button.click(
            self.compare, pair, self.compared, **{**plain, "show_progress": "minimal"}
        )

    def _shown(self) -> list[Component]:
        """All that a look may change."""
        shown = [
            self.door, self.room, self.timer, self.selected, self.seen, self.base, self.length,
            self.choice, self.training, self.log, self.samples, self.pause_button,
            self.resume_button, self.stop_button, self.cancel_button, self.step,
            self.roll_back_button, self.models, self.model, self.compared_base,
            self.compared_model, self.compared, *self.messages,
        ]  # fmt: skip
        return shown if self.visitors_model is None else [*shown, self.visitors_model]


def _cookies(request: Any) -> Mapping[str, str]:
    """A call that comes without a request of its own has no cookies either."""
    return request.cookies if isinstance(request, gr.Request) else {}


def _chosen(views: list[TrainingView], selected: str) -> TrainingView | None:
    """The training that was chosen, else the one that runs, else the newest."""
    by_id = {view.id: view for view in views}
    running = [view for view in views if view.state == TrainingState.RUNNING]
    newest = sorted(views, key=lambda view: view.created)
    return by_id.get(selected) or next(iter(running or newest[::-1]), None)


def _model(name: Any) -> str:
    name = text(name, "The model")
    if not name:
        raise ValueError("Choose a model first.")
    return name


def _about(minutes: float | None) -> str:
    if minutes is None:
        return ": not measured yet"
    if not minutes:
        return ""
    return ": under a minute" if minutes < 1 else f": about {round(minutes)} min"
