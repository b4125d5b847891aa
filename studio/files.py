"""Files for download. They lie in Gradio's cache, which clears itself (``delete_cache``)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from torch import Tensor

from .png_metadata import encode_png
from .recipe import Recipe


def save_file(data: bytes, name: str) -> str:
    """Store bytes under a name in a folder of its own (named by their hash); returns the path."""
    return save_bytes_to_cache(data, name, get_upload_folder())


def save_png(picture: Tensor, recipe: Recipe, *, scale: int = 1) -> str:
    """Store a picture, uint8 [3, H, W], as a PNG that carries its recipe; returns the path."""
    return save_file(encode_png(picture, recipe, scale=scale), png_name(recipe))


def png_name(recipe: Recipe) -> str:
    """What a downloaded picture is called."""
    return f"cat-{recipe.seed}.png"


def still_there(paths: Sequence[str]) -> list[str]:
    """Those of the files that Gradio has not cleared away, as it does in a long visit."""
    return [path for path in paths if Path(path).is_file()]


def save_zip(paths: Sequence[str]) -> str | None:
    """A zip of files, numbered in their order; None if there are none."""
    if not paths:
        return None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, path in enumerate(paths, start=1):
            archive.writestr(f"{i:02d}-{Path(path).name}", Path(path).read_bytes())
    return save_file(buffer.getvalue(), "cats.zip")
