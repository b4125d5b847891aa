"""Real pictures as a model would have painted them: a little noise, then drawn again.

They keep what is seen in the real ones and take on the model's own faults of texture, so that an
upscaler can learn to mend those (the noise: SDEdit, Meng et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import ImageSet
from ..denoiser import Denoiser
from ..sampling import draw_x0, from_seeds
from ..training.kept import kept_x0

FOLDER_NAME = "redrawn"  # in the folder of a run
FIRST_SEED = 3_000_000  # seeds that nobody looks at, and that no report draws
STRENGTHS = (0.2, 0.27, 0.34)  # in turn: noise of about 0.3, 0.5 and 1.1 at the usual settings
DRAW_BATCH = 16


def redraw(model: Denoiser, images: ImageSet, folder: str | Path, *, model_hash: str) -> Tensor:
    """What ``model`` makes of each picture: x0, float16 [N, *shape].

    ``images`` have the model's labels, and its size or a multiple of it: they are shrunk. Raises
    ValueError if the folder holds what another model (``model_hash``) made, or of other pictures.
    """

    def identity(rows: Tensor) -> dict[str, Any]:
        places = rows.tolist()
        names, labels = [images.names[i] for i in places], images.classes[rows].tolist()
        told: dict[str, Any] = {"model": model_hash, "names": names, "labels": labels}
        digests = [images.digests[i] for i in places] if images.digests else []
        return told | ({"pictures": digests} if any(digests) else {})

    return kept_x0(
        folder,
        len(images),
        lambda rows: _redrawn(model, images, rows),
        identity=identity,
        other="model, or of other pictures",
        of="redrawing",
    )


def _redrawn(model: Denoiser, images: ImageSet, rows: Tensor) -> Tensor:
    """x0 of some pictures, each batch with another strength than the one before."""
    parts = []
    for turn, batch in enumerate(rows.split(DRAW_BATCH)):
        large, classes = images.get(batch)
        factor = large.shape[-1] // model.codec.picture_size
        pictures = F.avg_pool2d(large.float(), factor).round().to(torch.uint8)
        null = model.info.model.num_classes
        labels = torch.where(classes < 0, null, classes).tolist()
        seeds: Sequence[int] = [FIRST_SEED + i for i in batch.tolist()]
        start = replace(from_seeds(model, seeds, labels), picture=pictures.cpu())
        strength = STRENGTHS[turn % len(STRENGTHS)]
        parts.append(draw_x0(model, start, replace(model.info.sampling, strength=strength)))
    return torch.cat(parts)
