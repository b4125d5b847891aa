"""Pictures that the tests draw for themselves, and the files to put them in."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def cat(seed: int, size: int = 32) -> Image.Image:
    """A cat's head before a patchy wall; another cat and wall for every seed."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    fur, eyes = (tuple(random.integers(0, 256, 3).tolist()) for _ in range(2))
    x, y, r = (random.uniform(0.35, 0.6, 3) * (size, size, size * 0.6)).tolist()
    for side in (-1, 1):  # ears
        draw.polygon([(x + side * r, y - 1.4 * r), (x + side * r, y), (x, y - r / 2)], fill=fur)
    draw.ellipse([x - r, y - r, x + r, y + r], fill=fur)
    for side in (-1, 1):
        draw.ellipse([x + side * r / 2 - r / 5, y - r / 3, x + side * r / 2 + r / 5, y], fill=eyes)
    return picture


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def cats(count: int, size: int = 32) -> dict[str, bytes]:
    """File names and PNG bytes of ``count`` different cats."""
    return {f"cat-{seed:03d}.png": encode(cat(seed, size)) for seed in range(count)}


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """A folder of files; a name may have folders in it."""
    for name, data in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def write_zip(
    path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    """A zip archive of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_labels(path: Path, labels: Mapping[str, str]) -> Path:
    """A labels CSV."""
    lines = ["file,label", *(f"{name},{label}" for name, label in labels.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def reasons(images) -> dict[str, str]:
    """Why files of a set were left out, by their names."""
    return {skipped.name: skipped.reason for skipped in images.skipped}
