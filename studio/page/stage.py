"""The stage: the HTML in which cats appear, and the line under them."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from diffusion.pictures import to_image

from ..drawing.png_metadata import encode_png
from ..drawing.recipe import Recipe, to_query
from ..drawing.worker import Update

PICK = """
element.addEventListener('click', (event) => {
  const cats = [...element.querySelectorAll('.stage button')];
  const index = cats.indexOf(event.target.closest('button'));
  if (index >= 0) trigger('select', {index, value: null});
});
"""  # the stage's script: a cat that is clicked among others is selected


def stage_html(
    pictures: Tensor | None,
    recipes: Sequence[Recipe],
    *,
    forming: bool = False,
    stopped: bool = False,
    frames: Sequence[Tensor] = (),
) -> str:
    """Pictures as data URIs: no files, no further requests. A finished one carries its recipe.

    Each of several finished ones is a button, for ``PICK``. ``frames`` are the steps of the first
    picture, for the slider that walks through them. The link to the pictures lies on the stage, for
    the button that copies it.
    """
    if pictures is None:
        return '<div class="stage empty" role="img" aria-label="Nothing drawn yet"></div>'
    cells = []
    pickable = len(recipes) > 1 and not forming and not stopped
    state = "Forming" if forming else "Half-formed" if stopped else "Generated"
    for picture, recipe in zip(pictures, recipes, strict=True):
        data = _bare_png(picture) if forming or stopped else encode_png(picture, recipe)
        alt = f"{state} cat: {recipe.describe()}"
        cell = f'<img class="cat" alt="{html.escape(alt)}" src="{_uri(data)}">'
        cells.append(f'<button title="Show this cat alone">{cell}</button>' if pickable else cell)
    film = "".join(f'<i data-frame="{_uri(_bare_png(frame))}"></i>' for frame in frames)
    columns = math.ceil(len(cells) ** 0.5)
    link = html.escape(to_query(recipes))
    return (
        f'<div class="stage" style="--columns: {columns}" data-link="{link}" '
        f'aria-busy="{"true" if forming else "false"}">'
        f"{''.join(cells)}</div><div hidden class='film'>{film}</div>"
    )


def status_html(text: str, *, error: bool = False) -> str:
    """The line under the stage; an error is announced by screen readers."""
    role = 'role="alert" class="status error"' if error else 'role="status" class="status"'
    return f"<p {role}>{html.escape(text)}</p>"


def progress_text(update: Update) -> str:
    """How a job stands, in words."""
    if update.place:
        return f"Waiting: place {update.place + 1} in the queue"
    return f"Step {update.step} of {update.total}"


def result_text(recipe: Recipe, count: int, seconds: float, *, stopped: bool, note: str) -> str:
    """What made these pictures and how long it took."""
    many = f"{count} cats from " if count > 1 else ""
    spent = f"{seconds:.2f}\N{NO-BREAK SPACE}s"  # on one line
    took = f"stopped after {spent}" if stopped else spent
    return " · ".join(filter(None, [many + recipe.describe(), took, note]))


def _bare_png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    image: Image.Image = to_image(picture)
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
