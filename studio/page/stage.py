"""The stage: the HTML in which cats appear, and the line under them."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from collections.abc import Sequence

from torch import Tensor

from diffusion.output.pictures import encode_jpeg, to_image

from ..drawing.png_metadata import encode_png
from ..drawing.recipe import Recipe, to_query
from ..drawing.worker import Update
from .data_uri import data_uri

JPEG_QUALITY = 92
WELCOME = "Cats that never existed, drawn out of noise."  # until the first is there
OPEN = """
element.addEventListener('cat-open', () => trigger('select', {index: 0, value: null}));
"""  # the stage's script: the server shall hear which cat of a grid is open (``openIndex``)


def stage_html(
    pictures: Tensor | None,
    recipes: Sequence[Recipe],
    *,
    forming: bool = False,
    stopped: bool = False,
    frames: Sequence[Tensor] = (),
    png: bytes | None = None,
    mine: bool = False,
) -> str:
    """Pictures as data URIs: no files, no further requests.

    One that forms no further is exact, and a finished one carries its recipe: ``png``, where that
    is written already. What is seen for a moment, or small among others, is a JPEG: a fifth of the
    bytes, and a tenth of the time. Each of several finished ones is a button that opens it.
    ``frames`` are the steps of the first picture, for the slider that walks through them. The stage
    carries the link to the pictures and their recipes; with ``mine``, the browser remembers them as
    cats of its visitor.
    """
    if pictures is None:
        return f'<div class="stage empty"><p>{WELCOME}</p></div>'
    finished = not forming and not stopped
    state = "Forming" if forming else "Half-formed" if stopped else "Generated"
    many = len(recipes) > 1
    cells = []
    for picture, recipe in zip(pictures, recipes, strict=True):
        if forming or many:
            source = _jpeg_uri(picture)
        else:
            source = _png_uri(png or encode_png(picture, recipe if finished else None))
        alt = html.escape(f"{state} cat: {recipe.describe()}")
        cell = f'<img class="cat" alt="{alt}" src="{source}">'
        opens = finished and many
        cells.append(f'<button title="Open this cat">{cell}</button>' if opens else cell)
    film = "".join(f'<i data-frame="{_jpeg_uri(frame)}"></i>' for frame in frames)
    columns = math.ceil(len(cells) ** 0.5)
    known = json.dumps([recipe.to_dict() for recipe in recipes]) if finished else "[]"
    link = html.escape(to_query(recipes))
    return (
        f'<div class="stage" style="--columns: {columns}" data-link="{link}" '
        f'data-recipes="{html.escape(known)}"{" data-mine" if mine and finished else ""} '
        f'aria-busy="{"true" if forming else "false"}">'
        f"{''.join(cells)}</div><div hidden class='film'>{film}</div>"
    )


def status_html(text: str, *, error: bool = False, working: bool = False) -> str:
    """The line under the stage; an error is announced by screen readers.

    ``working`` says that there is something to stop.
    """
    role = 'role="alert" class="status error"' if error else 'role="status" class="status"'
    return f"<p {role}{' data-working' if working else ''}>{html.escape(text)}</p>"


def progress_text(update: Update) -> str:
    """How a job stands, in words."""
    if update.place:
        return f"Waiting: place {update.place + 1} in the queue"
    if update.step == 0:
        return "Waiting"
    return f"Step {update.step} of {update.total}"


def film_text(update: Update) -> str:
    """How the pictures of a film stand, in words."""
    if update.done:
        return "Writing the film"
    return f"Drawing the film: {update.share:.0%}" if update.share else progress_text(update)


def result_text(recipe: Recipe, count: int, seconds: float, *, stopped: bool, note: str) -> str:
    """What made these pictures and how long it took."""
    spent = f"{seconds:.2f}\N{NO-BREAK SPACE}s"  # on one line
    took = f"stopped after {spent}" if stopped else spent
    return " · ".join(filter(None, [cats_text(recipe, count), took, note]))


def cats_text(first: Recipe, count: int) -> str:
    """What made these pictures."""
    if count == 1:
        return first.describe()
    if first.any_coat and not first.turns:
        first = dataclasses.replace(first, coat="")  # each has its own
    return f"{count} cats from {first.describe()}"


def _jpeg_uri(picture: Tensor) -> str:
    """So good that no difference is seen."""
    data = encode_jpeg(to_image(picture), quality=JPEG_QUALITY, full_colour=True)
    return data_uri(data, "image/jpeg")


def _png_uri(png: bytes) -> str:
    return data_uri(png, "image/png")
