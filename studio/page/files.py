"""Files for download.

They lie in Gradio's cache, which clears away what is hours old (``delete_cache``). Within those
hours strangers can have any number of cats drawn, so the oldest files also go when it is too much.
"""

from __future__ import annotations

import io
import math
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from gradio.processing_utils import hash_bytes
from gradio.utils import get_upload_folder
from PIL import Image
from torch import Tensor

from diffusion.files import atomic_path
from diffusion.output.pictures import from_image, grid

from ..disk import is_low
from ..drawing.png_metadata import encode_png, read_recipe
from ..drawing.recipe import Recipe

SCALES = (1, 2, 4, 8)  # how much larger than drawn a download is
USUAL_SIDE = 1024  # pixels of a download, unless another size is chosen
MAX_KEPT_BYTES = 1_000_000_000  # of results; some 8,000 cats of 256 pixels

_kept: OrderedDict[Path, int] = OrderedDict()  # bytes of each file written here, the oldest first
_keeping = threading.Lock()


def save_file(data: bytes, name: str) -> str:
    """Store bytes under a name in a folder of its own (named by their hash); returns the path.

    It is whole at any moment: others may be reading the same file, written for an earlier visit.
    Raises ValueError if the disk is nearly full.
    """
    if is_low(Path(get_upload_folder())):
        raise ValueError("The disk of this machine is nearly full; please try again later.")
    path = Path(get_upload_folder()).resolve() / hash_bytes(data) / name
    _make_room(path, len(data))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return str(path)


def _make_room(path: Path, size: int) -> None:
    """Count a file that is about to be written, and delete the oldest that are too many with it."""
    with _keeping:
        _kept.pop(path, None)
        _kept[path] = size
        total = sum(_kept.values())
        while total > MAX_KEPT_BYTES and len(_kept) > 1:
            oldest, its_size = _kept.popitem(last=False)
            total -= its_size
            with suppress(OSError):  # it is gone, or being read where that forbids it
                oldest.unlink(missing_ok=True)
                oldest.parent.rmdir()


def save_png(picture: Tensor, recipe: Recipe) -> str:
    """Store a picture, uint8 [3, H, W], as a PNG that carries its recipe; returns the path."""
    return save_file(encode_png(picture, recipe), png_name(recipe))


def usual_scale(size: int) -> int:
    """How much larger pictures of ``size`` pixels are downloaded: to 1,024 pixels at the most."""
    return max(scale for scale in SCALES if scale == 1 or size * scale <= USUAL_SIDE)


def save_half_a_cat(picture: Tensor) -> str:
    """Store what had formed when it was stopped, without a recipe: that would draw a whole one."""
    return save_file(encode_png(picture, None), "half-a-cat.png")


def enlarge(path: str, scale: int, *, pixels: bool = False) -> str:
    """Store a PNG of this page ``scale`` times as large; returns the path.

    It is resampled smoothly, or with ``pixels`` shown as its sharp pixels.
    """
    with Image.open(path) as image:
        smooth = image.convert("RGB")
    try:
        recipe = read_recipe(path)
    except ValueError:  # half a cat
        recipe = None
    if scale > 1 and not pixels:
        size = (smooth.width * scale, smooth.height * scale)
        smooth, scale = smooth.resize(size, Image.Resampling.LANCZOS), 1
    png = encode_png(from_image(smooth), recipe, scale=scale)
    return save_file(png, Path(path).name)


def save_sheet(paths: Sequence[str]) -> str:
    """Store one PNG with several pictures of this page side by side; returns the path."""
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            pictures.append(from_image(image))
    buffer = io.BytesIO()
    sheet = grid(torch.stack(pictures), columns=math.ceil(len(pictures) ** 0.5))
    sheet.save(buffer, "PNG")
    return save_file(buffer.getvalue(), f"cats-{len(pictures)}.png")


def png_name(recipe: Recipe) -> str:
    """What a downloaded picture is called."""
    return f"cat-{recipe.seed}.png"


def still_there(paths: Sequence[str | None]) -> list[str]:
    """Those of the files that have not been cleared away, as they are in a long visit."""
    return [path for path in paths if path and Path(path).is_file()]


def save_zip(paths: Sequence[str]) -> str:
    """A zip of files, numbered in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, path in enumerate(paths, start=1):
            with suppress(FileNotFoundError):  # cleared away just now
                archive.writestr(f"{i:02d}-{Path(path).name}", Path(path).read_bytes())
    return save_file(buffer.getvalue(), "cats.zip")
