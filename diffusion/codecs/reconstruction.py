"""What the trainings of codecs have in common: pictures held out, encoded and decoded."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..codec import Codec, to_float
from ..config import TrainConfig
from ..data.dataset import ImageSet, split_names, training_batches
from ..device import autocast
from ..training.objectives import SAMPLE_COLUMNS, Objective

SAMPLES = 8
BATCH = 8  # pictures encoded and decoded at once where nothing is learned
LOOK = 96  # pixels, width = height, of the part of a crop that the perceptual distance looks at
PERCEPTUAL_WEIGHT = 0.5


class Reconstruction(Objective):
    """Pictures are to come back from a codec as they were; a part of them is held out."""

    device: torch.device

    def __init__(self, config: TrainConfig, images: ImageSet) -> None:
        kept, held = split_names(images.names, config.holdout, at_most=0.1)
        self.kept, self.images, self.heldout_images = kept, images.subset(kept), images.subset(held)
        self.examples: Any = self.images  # what the batches are of
        self.precision = config.precision

    @property
    def record(self) -> dict[str, str]:
        return self.images.record | self.heldout_images.record

    @abstractmethod
    def codec(self, averaged: nn.Module) -> Codec:
        """The codec with these weights, for pictures of the size of ``images``."""

    def batches(self, config: TrainConfig, *, first_step: int, share: slice) -> Iterator[Any]:
        return training_batches(
            self.examples, config.batch_size, first_step=first_step, seed=config.seed, share=share
        )

    @torch.no_grad()
    def heldout(self, averaged: nn.Module) -> float | None:
        """Root mean squared error of pictures in [-1, 1] that were encoded and decoded, as its
        geometric mean over them: the one that their mean PSNR stands for (see ``psnr``)."""
        if not len(self.heldout_images):
            return None
        errors = []
        for index in torch.arange(len(self.heldout_images)).split(BATCH):
            pictures = self.heldout_images.get(index)[0]
            again = self._reconstruct(averaged, pictures)
            error = (to_float(again) - to_float(pictures)).square().mean(dim=(1, 2, 3)).sqrt()
            errors.append(error.clamp(min=1e-6))
        return float(torch.cat(errors).log().mean().exp())

    def samples(self, averaged: nn.Module) -> Tensor:
        """Rows of originals, each above the row of their reconstructions."""
        enough = len(self.heldout_images) >= SAMPLES
        shown = self.heldout_images if enough else self.images
        pictures = shown.get(torch.arange(SAMPLES))[0].cpu()
        again = self._reconstruct(averaged, pictures)
        return rows_above(pictures, again)

    def _reconstruct(self, averaged: nn.Module, pictures: Tensor) -> Tensor:
        """uint8 [N, 3, S, S] encoded and decoded."""
        codec = self.codec(averaged)
        with autocast(self.device, self.precision):
            return codec.decode(codec.encode(pictures.to(self.device))).cpu()


def rows_above(upper: Tensor, lower: Tensor) -> Tensor:
    """Rows of the first pictures, each above the row of those of the second that belong to them."""
    rows = [part.unflatten(0, (-1, SAMPLE_COLUMNS)) for part in (upper, lower)]
    return torch.stack(rows, dim=1).flatten(0, 2)


def look_places(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Where in crops of width ``size`` the perceptual distance looks: corners [count, 2]."""
    return corners(count, max(size - LOOK, 0), generator)


def difference(
    made: Tensor, real: Tensor, looks: Tensor, perceptual: nn.Module | None = None
) -> Tensor:
    """How far pictures [N, 3, H, W] are from the real ones, pixel by pixel (mean absolute error)
    and, at ``looks``, as people see it: [N]."""
    error = (made - real).abs().mean(dim=(1, 2, 3))
    if perceptual is None:
        return error
    side = min(LOOK, real.shape[-1])
    seen = perceptual(cut(made, looks, side), cut(real, looks, side))
    return error + PERCEPTUAL_WEIGHT * seen


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio in dB of a root mean squared error of values in [-1, 1]."""
    return 20 * math.log10(2 / error)


def cut(maps: Tensor, corners: Tensor, size: int) -> Tensor:
    """From each map [N, C, H, W] the square of width ``size`` at its corner [N, 2]: top, left."""
    return torch.stack([
        one[:, top : top + size, left : left + size]
        for one, (top, left) in zip(maps, corners.tolist(), strict=True)
    ])  # fmt: skip


def corners(count: int, room: int, generator: torch.Generator) -> Tensor:
    """Random corners [count, 2] for ``cut``, each coordinate from 0 to ``room``."""
    return torch.randint(room + 1, (count, 2), generator=generator)
