"""What the Admin tab does: from the values of its forms to what changes on the page.

Each action demands the owner. ``look`` answers by the names in ``Look``, the others with the one
thing that they change; none knows a component.
"""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import gradio as gr

from diffusion.config import LENGTHS, FinetuneConfig

from .. import space
from ..disk import errors_as_sentences
from ..page.forms import number, text, whole_number
from ..safety.owner import NotOwner
from ..training.training_folder import ENDINGS, TrainingSpec, TrainingState
from ..training.tuned import ModelCard, slug
from ..training.views import TrainingView
from .html import SIGN_IN, SWITCHED_OFF, message_html
from .models_html import models_html, ready_html
from .parts import Admin
from .plot import plot_html
from .shown import Look
from .trainings_html import log_html, samples_html, training_html, training_title

LENGTH_TITLES = {"quick": "Quick", "balanced": "Balanced", "thorough": "Thorough"}
CANCEL = "Cancel and delete"
ACTIVE = (TrainingState.QUEUED, TrainingState.RUNNING, TrainingState.PAUSED)


def owner_only(handler: Callable[..., str]) -> Callable[..., str]:
    """A handler that refuses strangers; the owner's own mistakes become a line beside the form.

    The request is the last argument, as Gradio hands it over.
    """

    @functools.wraps(handler)
    def guarded(self: AdminActions, *values: Any) -> str:
        self.admin.owner.demand(_cookies(values[-1] if values else None))
        try:
            with errors_as_sentences():
                return handler(self, *values)
        except ValueError as error:
            return message_html(str(error), error=True)

    return guarded


class AdminActions:
    """What the owner does in the tab; the parts of ``Admin`` do the work."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        self._starting = threading.Lock()

    # -- what is shown --------------------------------------------------------------------------

    def look(self, selected: str, base: str, seen: Mapping[str, str], request: gr.Request) -> Look:
        """How everything stands. The one handler that answers strangers: with the door."""
        try:
            self.admin.owner.demand(_cookies(request))
        except NotOwner:
            return self._door()
        wanted = self._room(selected, base)
        known = {name: repr(value) for name, value in wanted.items()}
        changed = {name: v for name, v in wanted.items() if seen.get(name) != known[name]}
        if not seen:  # later a look leaves alone what was chosen in the forms
            changed.update(self._first_choices())
        return cast(Look, {**changed, "seen": known})

    def _door(self) -> Look:
        """What a stranger sees, and what is left of the owner's after signing out: nothing."""
        return {
            "door": SIGN_IN if self.admin.owner.enabled else SWITCHED_OFF,
            "room": gr.update(visible=False),
            "timer": gr.update(active=False),
            "seen": {},
            "selected": "",
            "choice": gr.update(choices=[], value=None),
            "training": "",
            "curve": "",
            "log": "",
            "samples": "",
            "models": "",
            "start_message": "",
            "training_message": "",
            "model_message": "",
            "publish_message": "",
        }

    def _first_choices(self) -> Look:
        choices, cards = self.admin.studio.library.choices, self.admin.models.cards()
        return {"base": gr.update(choices=choices, value=self._usual_base(cards))}

    def _usual_base(self, cards: list[ModelCard]) -> str:
        """What a training begins from unless the owner chooses: not a model that was taught one cat
        already, but what that was made of."""
        default = self.admin.studio.library.default
        return next((card.base for card in cards if card.name == default and card.base), default)

    def _room(self, selected: str, base: str) -> Look:
        """Everything that the owner sees but what is typed into the forms."""
        views, library = self.admin.trainings.views(), self.admin.studio.library
        view, cards = _chosen(views, selected), self.admin.models.cards()
        choices, default = library.choices, library.default
        return {
            "door": "",
            "room": gr.update(visible=True),
            "timer": gr.update(active=True),
            "base": gr.update(choices=choices),
            "visitors_model": gr.update(choices=choices),
            "model": gr.update(choices=[(card.title, card.name) for card in cards]),
            "length": self._lengths(base if base in library.names else self._usual_base(cards)),
            "models": models_html(cards, default, library.faults()),
            "training": training_html(view, _ready(view, cards, default)),
            "curve": plot_html(view.metrics) if view else "",
            "log": log_html(view),
            "samples": samples_html(view),
            "choice": gr.update(
                choices=[(training_title(v), v.id) for v in views],
                value=view.id if view else None,
                visible=bool(views),
            ),
            **_buttons(view),
        }

    def _lengths(self, base: str) -> Any:
        minutes = self.admin.trainings.estimates(base)  # None: not known yet; empty: never
        choices = [
            (f"{title}{_about(None if minutes is None else minutes.get(name, 0))}", name)
            for name, title in LENGTH_TITLES.items()
        ]
        return gr.update(choices=choices)

    def choose_training(self, identity: str, request: gr.Request) -> str:
        """Which training is looked at from here; the next look shows it."""
        self.admin.owner.demand(_cookies(request))
        return text(identity, "The training")

    def choose_base(self, base: str, request: gr.Request) -> str:
        """Which model a training would begin from; the next look says how long it takes."""
        self.admin.owner.demand(_cookies(request))
        return text(base, "The base model")

    # -- trainings ------------------------------------------------------------------------------

    @owner_only
    def start_training(
        self, base: str, name: str, label: str, length: str, lr: Any, batch_size: Any, layers: str,
        keep: Any, request: gr.Request,
    ) -> str:  # fmt: skip
        """Queue a training on the current photos."""
        if space.on_zero_gpu():
            raise ValueError("Nothing can be trained on ZeroGPU.")
        pictures = self.admin.sets.current()
        if pictures is None:
            raise ValueError("There are no photos yet. Add some first.")
        name = text(name, "The name").strip()
        if not name:
            raise ValueError("Give the cat a name.")
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

    # -- buttons inside the HTML --------------------------------------------------------------

    @owner_only
    def act(self, event: gr.SelectData, request: gr.Request) -> str:
        """What a button of a card or of a training asks for: ``index`` says whose it is, ``value``
        what to do, and with what."""
        does: dict[str, Callable[[str, Any], str]] = {
            "rename": self._rename, "default": self._make_default, "delete": self._delete,
            "usual": self._clear_default,
            "longer": self._teach_longer, "keep": self._keep_state,
        }  # fmt: skip
        what, more = [*event.value, None][:2] if isinstance(event.value, list) else ("", None)
        if not isinstance(what, str) or what not in does:
            raise ValueError("There is no such button.")
        return message_html(does[what](text(event.index, "What it is for"), more))

    def _rename(self, name: str, title: Any) -> str:
        title = self.admin.models.rename(name, text(title, "The new name"))
        return f"The model is now called {title}."

    def _make_default(self, name: str, _: Any) -> str:
        self.admin.models.set_default(name)
        return f"{self.admin.models.title(name)} is now what visitors see first."

    def _clear_default(self, name: str, _: Any) -> str:
        self.admin.models.clear_default()
        return "Visitors see the usual cats first again."

    def _delete(self, name: str, _: Any) -> str:
        title = self.admin.models.title(name)
        self.admin.models.delete(name)
        return f"{title} is deleted."

    def _teach_longer(self, identity: str, _: Any) -> str:
        self.admin.trainings.teach_longer(identity)
        return "The training goes on, for as long again."

    def _keep_state(self, identity: str, images: Any) -> str:
        """An earlier state of a training in place of its last."""
        known = text(images, "The state to keep")
        chosen = int(known) if known.isascii() and known.isdecimal() and len(known) < 12 else -1
        self.admin.trainings.roll_back(identity, chosen)
        return f"The model is now the one after {chosen:,} images."

    @owner_only
    def publish_model(self, name: str, repo: str, token: str, request: gr.Request) -> str:
        """Upload a model to the Hugging Face Hub; the token is used once and kept nowhere."""
        repo, token = text(repo, "The repository"), text(token, "The token")
        address = self.admin.models.publish(_model(name), repo, token)
        return message_html(f"Published: {address}")


def _cookies(request: Any) -> Mapping[str, str]:
    """A call that comes without a request of its own has no cookies either."""
    return request.cookies if isinstance(request, gr.Request) else {}


def _chosen(views: list[TrainingView], selected: str) -> TrainingView | None:
    """The training that was chosen, else the one that runs, else the newest."""
    by_id = {view.id: view for view in views}
    running = [view for view in views if view.state == TrainingState.RUNNING]
    newest = sorted(views, key=lambda view: view.created)
    return by_id.get(selected) or next(iter(running or newest[::-1]), None)


def _buttons(view: TrainingView | None) -> Look:
    """Which buttons do something for a training; of a finished one few are left."""

    done = view is not None and view.state == TrainingState.DONE

    def usable(can: bool) -> Any:
        return gr.update(interactive=can, visible=not done)

    return {
        "pause_button": usable(view is not None and view.can_pause),
        "resume_button": usable(view is not None and view.can_resume),
        "stop_button": usable(view is not None and view.can_stop),
        "cancel_button": gr.update(
            interactive=view is not None, value="Delete this training" if done else CANCEL
        ),
    }


def _ready(view: TrainingView | None, cards: list[ModelCard], default: str) -> str:
    """The model of a training that has ended, as HTML; empty while there is none."""
    if view is None or view.state not in ENDINGS:
        return ""
    for card in cards:
        if card.name == view.result:
            is_default = card.name == default
            return ready_html(
                card, is_default=is_default, training=view.id, can_go_on=view.can_go_on
            )
    return ""


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
