"""Training an upscaler: from small pictures of real cats, and from what a model makes of them.

It has to give back what shrinking took away: pixel by pixel, and as people see it (``perceptual``).
Half of the small pictures were redrawn by the model whose pictures it will enlarge (``redrawing``):
so it learns to mend what that model paints amiss in its finest texture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..codec import UpscalingCodec, to_float
from ..codec_file import save_codec, weights_hash
from ..config import TrainConfig, UpscalerConfig
from ..data.dataset import ImageSet
from ..data.teacher import TaughtSet
from ..networks.upscaler import Upscaler
from ..training.objectives import oom_as_sentence
from .reconstruction import Reconstruction, corners, cut, difference, look_places

SETTINGS: dict[str, Any] = {  # TrainConfig fields without the budget
    "optimizer": "muon",
    "batch_size": 4,
    "lr": 1e-3,
    "muon_lr": 2e-3,
    "warmup_images": 200,
    "ema_halflife_images": 700,
    "decay_fraction": 0.5,
    "holdout": 300,
}
CROP = 128  # pixels, width = height, of the large crops that it learns from
NOISE = 0.06  # standard deviations at most: what a model draws is not exact either


class UpscalerTraining(Reconstruction):
    """``init`` is the upscaler to go on with, or the shape of a new one. ``redrawn`` are x0 of each
    of ``images``, [N, 3, s, s] in about [-1, 1], s times the factor being their size;
    ``redrawn_by`` says which model made them. ``perceptual`` gives the distance of pictures
    [N, 3, H, W]: [N]. ``data`` is the pictures' name.
    """

    network: Upscaler

    @oom_as_sentence()
    def __init__(
        self,
        config: TrainConfig,
        init: Upscaler | UpscalerConfig,
        images: ImageSet,
        redrawn: Tensor,
        *,
        perceptual: nn.Module,
        data: str = "",
        redrawn_by: str = "",
    ) -> None:
        super().__init__(config, images)
        self._identity = {
            "init": str(init) if isinstance(init, UpscalerConfig) else weights_hash(init),
            "data": data,
            "redrawn_by": redrawn_by,
            "picture_size": images.image_size,
        }
        torch.manual_seed(config.seed)
        self.network = Upscaler(init) if isinstance(init, UpscalerConfig) else init
        self.factor, self.shrink = self.network.config.factor, self.network.shrink
        self.examples = TaughtSet(self.images, redrawn[None, self.kept])
        self.perceptual = perceptual

    @property
    def identity(self) -> dict[str, Any]:
        return self._identity

    def codec(self, averaged: nn.Module) -> UpscalingCodec:
        return UpscalingCodec(cast(Upscaler, averaged), self.images.image_size // self.factor)

    def to(self, device: torch.device) -> None:
        self.device = device
        self.network.to(device)
        self.perceptual.to(device)
        self.examples = self.examples.to(device)

    def prepare(
        self, batch: Any, config: TrainConfig, generator: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Crops, the small ones of them (shrunk or redrawn, each with a little noise), and where
        the perceptual distance looks."""
        pictures, redrawn = to_float(batch[0].to(self.device)), batch[1][:, 0].to(self.device)
        count, factor = len(pictures), self.factor
        of_model, mirrored = torch.rand(2, count, generator=generator) < 0.5
        small = where_rows(of_model, redrawn.float(), self.shrink(pictures))
        mirrored &= config.mirror
        pictures = where_rows(mirrored, pictures.flip(3), pictures)
        small = where_rows(mirrored, small.flip(3), small)
        whole = small.shape[-1]
        size = min(CROP // factor, whole)
        places = corners(count, whole - size, generator)
        crops, small = cut(pictures, factor * places, factor * size), cut(small, places, size)
        level = NOISE * torch.rand(count, 1, 1, 1, generator=generator)
        unit = torch.randn(small.shape, generator=noise, device=self.device)
        looks = look_places(count, factor * size, generator)
        return crops, small + level.to(self.device) * unit, looks.to(self.device)

    def loss(self, *rows: Tensor) -> Tensor:
        crops, small, looks = rows
        return difference(self.network(small), crops, looks, self.perceptual)

    @torch.no_grad()
    def save(self, averaged: nn.Module, path: Path, *, images: int) -> None:
        save_codec(cast(Upscaler, averaged), path, images_seen=images)


def where_rows(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Row by row: chosen bool [N], on the CPU."""
    return torch.where(chosen.to(yes.device)[:, None, None, None], yes, no)
