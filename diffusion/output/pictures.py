"""Pictures for people: single images, grids."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files import atomic_path


def to_image(picture: Tensor, *, scale: int = 1) -> Image.Image:
    """uint8 [3, H, W] -> RGB image, every pixel repeated ``scale`` times (no blur)."""
    image = Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())
    if scale == 1:
        return image
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def from_image(image: Image.Image) -> Tensor:
    """Image -> uint8 [3, H, W]; the inverse of ``to_image``."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def grid(pictures: Tensor, *, columns: int | None = None, scale: int = 1) -> Image.Image:
    """uint8 [N, 3, H, W] -> one image of rows and columns, as square as can be."""
    from torchvision.utils import make_grid  # two seconds that the page need not wait

    columns = columns or max(1, round(len(pictures) ** 0.5))
    return to_image(make_grid(pictures, nrow=columns, padding=2, pad_value=255), scale=scale)


def encode_jpeg(image: Image.Image, *, quality: int, full_colour: bool = False) -> bytes:
    """The file of an RGB image; with ``full_colour`` every pixel keeps a colour of its own."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if full_colour else -1)
    return buffer.getvalue()


def save_picture(picture: Tensor, path: str | Path) -> None:
    """Write uint8 [3, H, W] to an image file, atomically."""
    with atomic_path(path) as temporary:
        to_image(picture).save(temporary)


def save_grid(pictures: Tensor, path: str | Path, *, columns: int | None = None) -> None:
    """Write a grid of uint8 [N, 3, H, W] to an image file, atomically."""
    with atomic_path(path) as temporary:
        grid(pictures, columns=columns).save(temporary)
