"""What a look of the Admin tab may change.

Each name is that of a component or a state in ``AdminTab``; what an answer leaves out stays as it
is. A value may be a ``gr.update``. A new output needs a line here and its component there.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Look(TypedDict, total=False):
    """What a look changes."""

    door: str  # HTML: how to sign in; empty for the owner
    room: Any  # all the rest, which only the owner sees
    timer: Any
    seen: dict[str, str]  # what the looks of this visit have shown, by name
    # The form
    base: Any
    length: Any
    start_message: str  # HTML
    # Trainings
    selected: str  # id of the training that was chosen, or empty
    choice: Any
    training: str  # HTML
    curve: str  # HTML
    log: str  # HTML
    samples: str  # HTML
    pause_button: Any
    resume_button: Any
    stop_button: Any
    cancel_button: Any
    training_message: str  # HTML
    # Models
    models: str  # HTML
    model: Any
    model_message: str  # HTML
    publish_message: str  # HTML
    visitors_model: Any  # the list in the Generate tab
