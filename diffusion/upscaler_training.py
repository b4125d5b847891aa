"""Training an upscaler: from small pictures of real cats, and from those that a model draws.

Of a real picture it has to give back what shrinking took away: pixel by pixel, and as people see it
(``perceptual``). Of a drawn one nobody knows the large picture, so there a critic alone says what
looks real; that mends what the model itself draws amiss in its finest texture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from .codec import UpscalingCodec, to_float
from .codec_file import save_codec, weights_hash
from .config import TrainConfig, UpscalerConfig
from .critic import Critic
from .data import ImageSet
from .objectives import oom_as_sentence
from .reconstruction import Reconstruction, corners, cut
from .upscaler import Upscaler

SETTINGS: dict[str, Any] = {  # TrainConfig fields without the budget
    "optimizer": "muon",
    "batch_size": 4,
    "lr": 4e-4,
    "muon_lr": 1e-3,
    "warmup_images": 200,
    "ema_halflife_images": 1_000,
    "holdout": 300,
}
CROP = 128  # pixels, width = height, of the large crops that it learns from
NOISE = 0.06  # standard deviations at most: what a model draws is not exact either
LOOK = 96  # pixels, width = height, of the part of a crop that the perceptual distance looks at
PERCEPTUAL_WEIGHT = 0.5
CRITIC_WEIGHT = 0.1
DRAWN_WEIGHT = 0.25  # of the pixels of a drawn picture, which its enlargement has to keep
DRAWN_SHARE = 2  # every second picture of a batch comes with a drawn one


class Duel(nn.Module):
    """An upscaler and its critic: what is learned at once, and averaged."""

    def __init__(self, upscaler: Upscaler) -> None:
        super().__init__()
        self.upscaler, self.critic = upscaler, Critic()
        self.critic.to(memory_format=torch.channels_last)

    def forward(
        self, small: Tensor, large: Tensor, drawn: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Small pictures with their large ones, and drawn small ones: their enlargements, [N, ...]
        and [M, ...]; what the critic has to lower, [N]; and what the upscaler has to, [N + M]."""
        enlarged, redrawn = self.upscaler(small), self.upscaler(drawn)
        both = torch.cat([enlarged, redrawn])
        real, told = self.critic.loss(large, both)
        return enlarged, redrawn, real + told.mean(), self.critic.disbelief(both)


class UpscalerTraining(Reconstruction):
    """``init`` is the upscaler to go on with, or the shape of a new one; ``drawn`` are small
    pictures [N, 3, s, s] in [-1, 1] that a model drew (``drawn_by`` says which), s times the factor
    being the size of ``images``. ``perceptual`` gives the distance of pictures [N, 3, H, W]: [N].
    ``data`` is the pictures' name.
    """

    network: Duel

    @oom_as_sentence()
    def __init__(
        self,
        config: TrainConfig,
        init: Upscaler | UpscalerConfig,
        images: ImageSet,
        drawn: Tensor,
        *,
        perceptual: nn.Module,
        data: str = "",
        drawn_by: str = "",
    ) -> None:
        super().__init__(config, images)
        torch.manual_seed(config.seed)
        new = isinstance(init, UpscalerConfig)
        upscaler = Upscaler(init) if isinstance(init, UpscalerConfig) else init
        self.shape = upscaler.config
        self._identity = {
            "init": str(init) if new else weights_hash(upscaler),
            "data": data,
            "drawn_by": drawn_by,
            "picture_size": images.image_size,
        }
        size = images.image_size // self.shape.factor
        assert drawn.shape[1:] == (3, size, size), "drawn pictures of the small size"
        self.network, self.drawn, self.perceptual = Duel(upscaler), drawn, perceptual

    @property
    def identity(self) -> dict[str, Any]:
        return self._identity

    def codec(self, averaged: nn.Module) -> UpscalingCodec:
        upscaler = cast(Duel, averaged).upscaler
        return UpscalingCodec(upscaler, self.images.image_size // self.shape.factor)

    def to(self, device: torch.device) -> None:
        self.device = device
        self.network.to(device)
        self.perceptual.to(device)
        self.examples = self.examples.to(device)

    def prepare(
        self, batch: Any, config: TrainConfig, generator: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Crops, the small ones of them with noise, drawn small ones (of which ``loss`` takes every
        second), and where the perceptual distance looks."""
        pictures = to_float(batch[0].to(self.device))
        count, factor = len(pictures), self.shape.factor
        if config.mirror:
            turn = torch.rand(count, generator=generator) < 0.5
            turn = turn.to(self.device)[:, None, None, None]
            pictures = torch.where(turn, pictures.flip(3), pictures)
        whole = pictures.shape[-1] // factor
        size = min(CROP // factor, whole)
        places = corners(count, whole - size, generator)
        crops = cut(pictures, factor * places, factor * size)
        small = torch.nn.functional.avg_pool2d(crops, factor)
        level = NOISE * torch.rand(count, 1, 1, 1, generator=generator)
        unit = torch.randn(small.shape, generator=noise, device=self.device)
        chosen = torch.randint(len(self.drawn), (count,), generator=generator)
        drawn = self.drawn[chosen].float().to(self.device)
        drawn = cut(drawn, corners(count, whole - size, generator), size)
        looks = corners(count, max(factor * size - LOOK, 0), generator)
        return crops, small + level.to(self.device) * unit, drawn, looks.to(self.device)

    def loss(self, *rows: Tensor) -> Tensor:
        crops, small, drawn, looks = rows
        drawn = drawn[::DRAWN_SHARE]
        enlarged, redrawn, critic, disbelief = self.network(small, crops, drawn)
        side = min(LOOK, crops.shape[-1])
        seen, real = cut(enlarged, looks, side), cut(crops, looks, side)
        shrunk = torch.nn.functional.avg_pool2d(redrawn, self.shape.factor)
        return (
            (enlarged - crops).abs().mean(dim=(1, 2, 3))
            + PERCEPTUAL_WEIGHT * self.perceptual(seen, real)
            + DRAWN_WEIGHT * (shrunk - drawn).abs().mean()
            + CRITIC_WEIGHT * disbelief.mean()
            + critic
        )

    @torch.no_grad()
    def save(self, averaged: nn.Module, path: Path, *, images: int) -> None:
        save_codec(cast(Duel, averaged).upscaler, path, images_seen=images)
