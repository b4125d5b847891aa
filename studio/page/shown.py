"""What the actions of the Generate tab may change on the page.

Each name is that of a component or a state in ``GenerateTab``; what an answer leaves out stays as
it is. A value may be a ``gr.update``. A new output needs a line here and its component there.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Drawn(TypedDict, total=False):
    """What a drawing changes."""

    seed: Any  # a new one, where each click takes one
    stage: str  # HTML
    status: str  # HTML
    paths: list[str]  # files of this visit's cats, the newest first
    recipe: dict[str, Any]  # of the cat on the stage
    shown: str  # its file


class Controls(TypedDict, total=False):
    """What a recipe says in the form."""

    seed: Any
    coat: Any
    steps: Any
    sampler: Any
    guidance: Any
    model: Any
    hint: str
    morph_coats: Any


class Shown(Drawn, Controls, total=False):
    """All that an action may change, films aside."""

    count: Any
    scale: Any
    fresh: bool  # a new seed for each click
    linked: list[dict[str, Any]] | None  # recipes of the visit's link; None: it is impossible
    examples: str  # HTML
    problem: str  # HTML beside the tool that could not start


class ShownFilm(TypedDict, total=False):
    """What a film changes."""

    film: Any
    gif: Any
    mp4: Any
    note: str  # HTML
