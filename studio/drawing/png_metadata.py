"""PNG files that carry the recipe of their picture as text."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image, PngImagePlugin
from torch import Tensor

from diffusion.pictures import to_image

from .recipe import Recipe

KEY = "cat-diffusion"
MAX_TEXT = 100_000  # characters
MAX_UPLOAD_BYTES = 20_000_000  # of one picture


def encode_png(picture: Tensor, recipe: Recipe | None, *, scale: int = 1) -> bytes:
    """uint8 [3, H, W] as a PNG with its recipe inside, each pixel ``scale`` times as large."""
    text = PngImagePlugin.PngInfo()
    if recipe is not None:
        text.add_text(KEY, json.dumps(recipe.to_dict()))
    buffer = io.BytesIO()
    to_image(picture, scale=scale).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def read_recipe(path: str | Path) -> Recipe:
    """The recipe inside a PNG that this page once made. Raises ValueError with a sentence."""
    nothing = ValueError(
        "This picture carries no recipe; drop a PNG that was saved from this page."
    )
    try:
        if Path(path).stat().st_size > MAX_UPLOAD_BYTES:
            raise nothing
        with Image.open(path, formats=["PNG"]) as image:
            text = image.info.get(KEY, "")  # text ahead of the pixels; nothing is decoded
    except Exception:  # a broken PNG surfaces as almost any exception
        raise nothing from None
    if not isinstance(text, str) or not text:
        raise nothing
    if len(text) > MAX_TEXT:
        raise ValueError("The recipe inside this picture is too long to be one of ours.")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):  # a number of 5,000 digits is a plain ValueError
        raise ValueError("The recipe inside this picture is damaged.") from None
    return Recipe.from_dict(values)
