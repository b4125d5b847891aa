"""What a teacher's encoder gave for pictures: files of latents, matched to them by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..names import composed
from .dataset import ImageSet
from .sources import rows_of


@dataclass(frozen=True)
class TaughtSet:
    """Pictures, and for each of them a teacher's latents.

    ``latents``: float16 [V, N, C, h, w]; the first version is of the picture as it is, the second,
    where there is one, of its mirror image.
    """

    images: ImageSet
    latents: Tensor

    @property
    def in_memory(self) -> bool:
        return self.images.in_memory

    def __len__(self) -> int:
        return len(self.images)

    def get(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pictures [B, 3, S, S] and all versions of their latents, float16
        [B, V, C, h, w]."""
        index = indices.to(self.latents.device)
        return self.images.get(indices)[0], self.latents[:, index].transpose(0, 1)

    def to(self, device: torch.device) -> TaughtSet:
        """The same set with pixels and latents on ``device``."""
        return replace(self, images=self.images.to(device), latents=self.latents.to(device))


def teacher_latents(
    paths: Sequence[str | Path], names: Sequence[str], *, shape: tuple[int, int, int]
) -> Tensor:
    """The latents of the pictures ``names`` from one or several files: float16 [V, N, *shape].

    A file has a tensor "latents" [V, M, *shape], V being 1 or 2 (see ``TaughtSet``), and metadata
    "names", a JSON list of M names. A name may be the end of a picture's path. Raises ValueError
    where a file is none of this kind or of another shape, where its numbers are not finite, and
    where a picture has no latents or a name occurs twice.
    """
    files = [_read(Path(path), shape) for path in paths]
    places: dict[str, tuple[int, int]] = {}
    for which, (known, _) in enumerate(files):
        for row, name in enumerate(known):
            if name in places:
                raise ValueError(f"{name} occurs more than once in the files of latents.")
            places[name] = which, row
    found = rows_of(names, dict.fromkeys(places, ""))
    missing = [name for name, row in zip(names, found, strict=True) if row is None]
    if missing:
        raise ValueError(
            f"{len(missing):,} of {len(names):,} pictures have no latents, such as {missing[0]}."
        )
    versions = min(len(latents) for _, latents in files)
    rows = [places[row] for row in found if row is not None]
    gathered = torch.empty(versions, len(names), *shape, dtype=torch.float16)
    for which, (_, latents) in enumerate(files):
        here = [place for place, (file, _) in enumerate(rows) if file == which]
        gathered[:, here] = latents[:versions, [rows[place][1] for place in here]]
    return gathered


def _read(path: Path, shape: tuple[int, int, int]) -> tuple[list[str], Tensor]:
    """Names and latents in a file. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"There is no file of latents at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            names = json.loads((file.metadata() or {})["names"])
            latents = file.get_tensor("latents")
        names = [composed(name) for name in names]
        versions, count, *found = latents.shape
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError):
        raise ValueError(
            f"{path.name} is not a file of latents with the names of their pictures, or it is "
            "cut short."
        ) from None
    if versions not in (1, 2) or count != len(names):
        raise ValueError(
            f"{path.name} has {count} latents in {versions} versions for {len(names)} names; "
            "1 or 2 versions of each are expected."
        )
    if tuple(found) != shape:
        raise ValueError(
            f"{path.name} has latents of {_told(found)}; these pictures and this codec need "
            f"{_told(shape)}."
        )
    latents = latents.half()
    if not torch.isfinite(latents).all():
        raise ValueError(f"The latents in {path.name} contain NaN or infinite numbers.")
    return names, latents


def _told(shape: Sequence[int]) -> str:
    channels, *sizes = shape
    return f"{channels} channels at {'x'.join(map(str, sizes))}"
