"""PNG files that carry the recipe of their picture as text."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path

from PIL import PngImagePlugin
from torch import Tensor

from diffusion.data.containers import PNG_SIGNATURE, png_chunks
from diffusion.output.pictures import to_image

from .recipe import MAX_EMBEDDED, Recipe

KEY = "cat-diffusion"
MAX_TEXT = MAX_EMBEDDED + 50_000  # characters: a picture, its mask and all else in a recipe
MAX_UPLOAD_BYTES = 20_000_000  # of one picture


def encode_png(picture: Tensor, recipe: Recipe | None, *, scale: int = 1) -> bytes:
    """uint8 [3, H, W] as a PNG with its recipe inside, each pixel ``scale`` times as large.

    It is packed in a third of the usual time and a tenth larger for it: somebody waits.
    """
    text = PngImagePlugin.PngInfo()
    if recipe is not None:
        text.add_text(KEY, json.dumps(recipe.to_dict()))
    buffer = io.BytesIO()
    to_image(picture, scale=scale).save(buffer, "PNG", pnginfo=text, compress_level=1)
    return buffer.getvalue()


def read_recipe(path: str | Path) -> Recipe:
    """The recipe inside a PNG that this page once made, before its pixels or after them.

    Nothing is decoded. Raises ValueError with a sentence.
    """
    nothing = ValueError(
        "This picture contains no recipe. Use a PNG that was saved from this page."
    )
    try:
        data = Path(path).read_bytes() if Path(path).stat().st_size <= MAX_UPLOAD_BYTES else b""
    except (OSError, ValueError):
        raise nothing from None
    text = _text(data)
    if not text:
        raise nothing
    if len(text) > MAX_TEXT:
        raise ValueError("The recipe inside this picture is too long.")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):  # a number of 5,000 digits is a plain ValueError
        raise ValueError("The recipe inside this picture is damaged.") from None
    return Recipe.from_dict(values)


def _text(data: bytes) -> str:
    """The text of a PNG under our key; "" if there is none."""
    if not data.startswith(PNG_SIGNATURE):
        return ""
    for kind, start, end in png_chunks(data):
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        key, _, rest = data[start:end].partition(b"\0")
        if key != KEY.encode():
            continue
        if kind == b"tEXt":
            return rest.decode("latin-1")
        packed = kind == b"zTXt" or rest[:1] == b"\1"
        # An iTXt has a flag and a method, then a language and a key in it, each up to a zero.
        text = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
        return (_inflated(text) if packed else text).decode("utf-8", "replace")
    return ""


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, 4 * MAX_TEXT + 4)
    except zlib.error:
        return b"damaged"
