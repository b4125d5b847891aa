"""Training a codec: its decoder learns latents -> pictures, and its encoder pictures -> latents.

The latents are those of a teacher, a larger autoencoder whose latent space is taken over. Without
them the encoder stays as it is, and the decoder learns from what that encoder gives.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..codec import LatentCodec, to_float
from ..codec_file import save_codec, weights_hash
from ..config import MAX_SIZE, AutoencoderConfig, TrainConfig
from ..data.dataset import ImageSet
from ..data.teacher import TaughtSet
from ..device import autocast
from ..networks.autoencoder import Autoencoder
from ..training.objectives import oom_as_sentence
from .reconstruction import BATCH, Reconstruction, corners, cut, difference, look_places

SETTINGS: dict[str, Any] = {  # TrainConfig fields without the budget
    "optimizer": "muon",
    "batch_size": 4,
    "lr": 1e-3,
    "muon_lr": 3e-3,
    "warmup_images": 400,
    "ema_halflife_images": 1_000,
    "holdout": 100,
}
CROP = 24  # latents, width = height, of the crops that the decoder learns from
LATENT_NOISE = 0.1  # standard deviations at most: what a denoiser draws is not exact either
NORMALIZED_BY = 512  # pictures whose latents tell mean and standard deviation
PREVIEW_BY = 64  # pictures that the preview is fitted to


class CodecTraining(Reconstruction):
    """Both halves of an autoencoder, or its decoder alone.

    ``init`` is the autoencoder to go on with, or the shape of a new one. ``latents`` are a
    teacher's for each of ``images`` (see ``teacher_latents``). Without them only the decoder
    learns. ``perceptual`` gives the distance of pictures [N, 3, H, W]: [N]; None is without. A part
    of the pictures is held out. ``data`` is their name.
    """

    @oom_as_sentence()
    def __init__(
        self,
        config: TrainConfig,
        init: Autoencoder | AutoencoderConfig,
        images: ImageSet,
        *,
        latents: Tensor | None = None,
        perceptual: nn.Module | None = None,
        data: str = "",
    ) -> None:
        super().__init__(config, images)
        if isinstance(init, AutoencoderConfig):
            assert latents is not None, "a new encoder has to be taught"
            self.autoencoder, self._begun = new_autoencoder(init, latents, config.seed), str(init)
        else:
            self.autoencoder = init
            self._begun = weights_hash(init)
        self.network: nn.Module = self.autoencoder
        self.taught, self.perceptual, self.data = latents is not None, perceptual, data
        if latents is not None:
            self.examples = TaughtSet(self.images, latents[:, self.kept])

    def learns(self, name: str) -> bool:
        """Whether a parameter of this name may change: for ``Trainer``."""
        return self.taught or name.startswith("decoder.")

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "init": self._begun,
            "taught": self.taught,
            "data": self.data,
            "picture_size": self.images.image_size,
        }

    def codec(self, averaged: nn.Module) -> LatentCodec:
        autoencoder = cast(Autoencoder, averaged)
        size = latent_shape(autoencoder.config, self.images.image_size)[1]
        return LatentCodec(autoencoder, size, sigma_data=1.0)

    def to(self, device: torch.device) -> None:
        self.device = device
        self.autoencoder.to(device)
        self.examples = self.examples.to(device)
        if self.perceptual is not None:
            self.perceptual.to(device)

    def prepare(
        self, batch: Any, config: TrainConfig, generator: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Crops, the latents of them with noise, and where the perceptual distance looks; with a
        teacher, whole pictures and their latents as well."""
        pictures, versions = batch
        count, device = len(pictures), self.device
        mirrored = torch.rand(count, generator=generator) < 0.5
        mirrored &= config.mirror and (not self.taught or versions.shape[1] > 1)
        pictures = to_float(pictures.to(device))
        turn = mirrored.to(device)[:, None, None, None]
        pictures = torch.where(turn, pictures.flip(3), pictures)
        factor = self.autoencoder.config.downsampling
        whole = pictures.shape[-1] // factor
        size = min(CROP, whole)
        places = corners(count, whole - size, generator)
        crops = cut(pictures, factor * places, factor * size)
        taught: tuple[Tensor, ...] = ()
        if self.taught:
            version = versions[torch.arange(count), mirrored.long().to(versions.device)]
            wanted = self.autoencoder.normalize(version.to(device))
            latents, taught = cut(wanted, places, size), (pictures, wanted)
        else:
            with torch.no_grad(), autocast(device, self.precision):
                latents = self.autoencoder.encode(crops).float()
        level = LATENT_NOISE * torch.rand(count, 1, 1, 1, generator=generator)
        drawn = torch.randn(latents.shape, generator=noise, device=device)
        looks = look_places(count, factor * size, generator)
        return crops, latents + level.to(device) * drawn, looks.to(device), *taught

    def loss(self, *rows: Tensor) -> Tensor:
        crops, latents, looks, *taught = rows
        decoded, encoded = self.network(latents, *taught[:1])
        loss = difference(decoded, crops, looks, self.perceptual)
        if taught:
            loss = loss + (encoded - taught[1]).square().mean(dim=(1, 2, 3))
        return loss

    @torch.no_grad()
    def save(self, averaged: nn.Module, path: Path, *, images: int) -> None:
        autoencoder = copy.deepcopy(cast(Autoencoder, averaged))
        some = torch.arange(min(PREVIEW_BY, len(self.images)))
        pictures = self.images.get(some)[0]
        codec = self.codec(autoencoder)
        with autocast(self.device, self.precision):
            latents = [codec.encode(part.to(self.device)) for part in pictures.split(BATCH)]
        autoencoder.fit_preview_(torch.cat(latents), to_float(pictures.to(self.device)))
        save_codec(autoencoder, path, images_seen=images)


def latent_shape(config: AutoencoderConfig, size: int) -> tuple[int, int, int]:
    """Channels, height and width of the latents of ``size``-pixel pictures. Raises ValueError
    where there is no such size."""
    factor = config.downsampling
    if not factor <= size <= MAX_SIZE or size % factor:
        raise ValueError(
            f"The size must be a multiple of {factor} pixels, at most {MAX_SIZE}, not {size}."
        )
    return config.latent_channels, size // factor, size // factor


def new_autoencoder(shape: AutoencoderConfig, latents: Tensor, seed: int) -> Autoencoder:
    """An untrained one, with mean and standard deviation of a teacher's latents
    [V, N, C, h, w]."""
    torch.manual_seed(seed)
    autoencoder = Autoencoder(shape)
    some = latents[0, :NORMALIZED_BY].float()
    autoencoder.mean.copy_(some.mean(dim=(0, 2, 3)))
    autoencoder.std.copy_(some.std(dim=(0, 2, 3)).clamp(min=1e-4))
    return autoencoder
