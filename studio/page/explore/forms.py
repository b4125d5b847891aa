"""From what the Explore tab or a script sends to the recipe of one cat, with a sentence for every
mistake."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ...drawing.blend import as_corner, in_dream, on_map
from ...drawing.library import ModelLibrary
from ...drawing.recipe import Recipe
from ..forms import ANY_COAT, number, read_link, read_recipe_form, text, whole_number

MAX_LINK = 4000  # characters
MAX_REMEMBERED = 10_000  # characters of a dream that a browser remembers
MAX_FRAMES = 120  # of its film


def read_frame(values: Any, library: ModelLibrary) -> Recipe:
    """The cat of a request of the tab. Raises ValueError.

    That of a point: ``{"corners": [four cats], "x": 0.5, "y": 0.5}``, where each cat is a recipe as
    plain values or the link to one. That of a moment of a dream: ``{"seed": 25, "moment": 3.5,
    "model": "", "coat": ""}``.
    """
    if not isinstance(values, dict):
        raise ValueError("A frame is asked for with a JSON object.")
    if "corners" not in values:
        seed, moment, coat, model = map(values.get, ("seed", "moment", "coat", "model"))
        return read_moment(seed, moment, coat, model, library)
    cats = values["corners"]
    if not isinstance(cats, list) or len(cats) != 4:
        raise ValueError("A map has four cats, one at each corner.")
    corners = [_corner(_cat(cat, library), library) for cat in cats]
    return on_map(corners, number(values.get("x"), "x"), number(values.get("y"), "y"))


def read_map_form(
    seeds: Any, coats: Any, x: Any, y: Any, model: Any, library: ModelLibrary
) -> Recipe:
    """The cat between those of four seeds; the coats take turns."""
    if not isinstance(seeds, list) or len(seeds) != 4:
        raise ValueError("A map needs four seeds, one for each corner.")
    if coats is not None and not isinstance(coats, list):
        raise ValueError("The coats must be a list.")
    coats, usual = coats or [""], Recipe()
    cats = [
        read_recipe_form(
            seed, coats[i % len(coats)], usual.steps, usual.sampler, usual.guidance, model
        )
        for i, seed in enumerate(seeds)
    ]
    corners = [_corner(cat, library) for cat in cats]
    return on_map(corners, number(x, "x"), number(y, "y"))


def read_moment(seed: Any, moment: Any, coat: Any, model: Any, library: ModelLibrary) -> Recipe:
    """The cat of a moment of a dream."""
    loaded = library.get(text(model, "The model"))
    coat = text(coat, "The coat")
    return in_dream(
        loaded.info,
        loaded.name,
        whole_number(seed, "The seed"),
        number(moment, "The moment"),
        "" if coat == ANY_COAT else coat,
    )


def read_film(values: Any, library: ModelLibrary) -> list[Recipe]:
    """The cats of a stretch of a dream, which the browser remembers as a JSON object. Raises
    ValueError. ``{"seed": 25, "moments": [3.5, 3.6], "model": "", "coat": ""}``"""
    try:
        known: Any = json.loads(values) if len(values) <= MAX_REMEMBERED else None
        moments = known["moments"]
        if not isinstance(moments, list) or not 2 <= len(moments) <= MAX_FRAMES:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("There is no dream to save yet. Start one first.") from None
    seed, coat, model = (known.get(name) for name in ("seed", "coat", "model"))
    return [read_moment(seed, moment, coat, model, library) for moment in moments]


def _cat(cat: Any, library: ModelLibrary) -> Recipe:
    """A recipe of its values or of its link."""
    if not isinstance(cat, str):
        return Recipe.from_dict(cat)
    try:
        query = urlsplit(cat.strip()).query if len(cat) <= MAX_LINK else ""
        return read_link(dict(parse_qsl(query, keep_blank_values=True)), library)[0]
    except (ValueError, KeyError, OverflowError):
        raise ValueError("This is no link to a cat of this page.") from None


def _corner(cat: Recipe, library: ModelLibrary) -> Recipe:
    """A cat as a corner, with the name of its model written out."""
    model = library.get(cat.model)
    return as_corner(dataclasses.replace(cat, model=model.name), model.info)
