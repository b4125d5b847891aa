"""Real pictures as a model would have painted them: a little noise, then drawn again.

They keep what is seen in the real ones and take on the model's own faults of texture, so that an
upscaler can learn to mend those (the noise: SDEdit, Meng et al. 2022). Kept on disk, in files of
some pictures each, so that it can be stopped and gone on with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .checkpoint import read_tensors, write_tensors
from .data import ImageSet
from .denoiser import Denoiser
from .sampling import draw_x0, from_seeds

FOLDER_NAME = "redrawn"  # in the folder of a run
FIRST_SEED = 3_000_000  # seeds that nobody looks at, and that no report draws
STRENGTHS = (0.2, 0.27, 0.34)  # in turn: noise of about 0.3, 0.5 and 1.1 at the usual settings
PER_FILE = 240
DRAW_BATCH = 16


def redraw(model: Denoiser, images: ImageSet, folder: str | Path, *, model_hash: str) -> Tensor:
    """What ``model`` makes of each picture: x0, float16 [N, *shape].

    ``images`` have the model's labels, and its size or a multiple of it: they are shrunk. Shows a
    progress bar. Raises ValueError if the folder holds what another model (``model_hash``) made, or
    of other pictures.
    """
    files = []
    with tqdm(total=len(images), unit="picture", desc="redrawing") as bar:
        for rows in torch.arange(len(images)).split(PER_FILE):
            path = Path(folder) / f"{int(rows[0]):07d}.safetensors"
            names = [images.names[i] for i in rows.tolist()]
            identity = {"model": model_hash, "names": names}
            x0 = _kept(path, identity)
            if x0 is None:
                x0 = _redrawn(model, images, rows)
                write_tensors(path, {"x0": x0}, identity)
            files.append(x0)
            bar.update(len(rows))
    return torch.cat(files)


def _kept(path: Path, identity: dict[str, Any]) -> Tensor | None:
    if not path.exists():
        return None
    tensors, found = read_tensors(path)
    if found != identity:
        raise ValueError(f"{path} is of another model, or of other pictures. Choose another --out.")
    return tensors["x0"]


def _redrawn(model: Denoiser, images: ImageSet, rows: Tensor) -> Tensor:
    """x0 of some pictures, float16, each batch with another strength than the one before."""
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
        x0 = draw_x0(model, start, replace(model.info.sampling, strength=strength))
        parts.append(x0.half().cpu())
    return torch.cat(parts)
