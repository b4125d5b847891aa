"""The second boundary: pictures (uint8) <-> x0 (what is denoised).

A codec is what a model's checkpoint says: ``PixelCodec``, where x0 are the pictures themselves, or
``LatentCodec``, where they are latents of an autoencoder. This is the only place where uint8 meets
[-1, 1] (``to_float``, ``to_uint8``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .autoencoder import Autoencoder


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1], clipped -> uint8, rounded to nearest."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Codec(nn.Module):
    """Pictures uint8 [N, 3, S, S] <-> x0 float32 [N, *shape], S being ``picture_size``.

    Other multiples of the smallest size work as well; ``picture_size`` and ``shape`` are those
    that the model was made for.
    """

    picture_size: int  # pixels, width = height
    shape: tuple[int, int, int]  # of one x0: channels, height, width
    exact: bool = False  # whether decode(encode(pictures)) are the pictures

    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 [N, 3, S, S] -> x0 [N, *shape]."""
        raise NotImplementedError

    def decode(self, x0: Tensor) -> Tensor:
        """x0 [N, *shape] -> uint8 [N, 3, S, S], clipped."""
        raise NotImplementedError

    def preview(self, x0: Tensor) -> Tensor:
        """As ``decode``, but nearly free, and perhaps soft."""
        raise NotImplementedError

    def keep_mask(self, keep: Tensor) -> Tensor:
        """bool [N, 1, S, S], pixels that must stay -> bool [N, 1, h, w], the part of x0 that is
        theirs alone."""
        raise NotImplementedError


class PixelCodec(Codec):
    """x0 are the pictures, in [-1, 1]."""

    exact = True

    def __init__(self, picture_size: int, *, channels: int = 3) -> None:
        super().__init__()
        self.picture_size = picture_size
        self.shape = channels, picture_size, picture_size

    def encode(self, pictures: Tensor) -> Tensor:
        return to_float(pictures)

    def decode(self, x0: Tensor) -> Tensor:
        return to_uint8(x0)

    def preview(self, x0: Tensor) -> Tensor:
        return to_uint8(x0)

    def keep_mask(self, keep: Tensor) -> Tensor:
        return keep


class LatentCodec(Codec):
    """x0 are latents of an autoencoder, each channel with mean 0 and standard deviation
    ``sigma_data``."""

    def __init__(self, autoencoder: Autoencoder, latent_size: int, *, sigma_data: float) -> None:
        super().__init__()
        self.autoencoder, self.sigma_data = autoencoder, sigma_data
        self.downsampling = autoencoder.config.downsampling
        self.picture_size = latent_size * self.downsampling
        self.shape = autoencoder.config.latent_channels, latent_size, latent_size

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        return self.autoencoder.encode(to_float(pictures)).float() * self.sigma_data

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        return to_uint8(self.autoencoder.decode(x0 / self.sigma_data))

    @torch.no_grad()
    def preview(self, x0: Tensor) -> Tensor:
        small = self.autoencoder.preview(x0.float() / self.sigma_data)
        return to_uint8(F.interpolate(small, scale_factor=self.downsampling, mode="bilinear"))

    def keep_mask(self, keep: Tensor) -> Tensor:
        return ~(F.max_pool2d((~keep).float(), self.downsampling) > 0)
