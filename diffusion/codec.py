"""The second boundary: pictures (uint8) <-> x0 (what is denoised).

A codec is what a model's checkpoint says: ``PixelCodec``, where x0 are the pictures themselves,
``UpscalingCodec``, where they are small ones, or ``LatentCodec``, where they are latents of an
autoencoder. This is the only place where uint8 meets [-1, 1] (``to_float``, ``to_uint8``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import CodecConfig, ModelConfig, UpscalerConfig
from .networks.autoencoder import Autoencoder
from .networks.upscaler import Upscaler


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1], clipped -> uint8, rounded to nearest."""
    return (images.float() + 1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


class Codec(nn.Module):
    """Pictures uint8 [N, 3, S, S] <-> x0 float32 [N, *shape], S being ``picture_size``.

    Other multiples of the smallest size work as well; ``picture_size`` and ``shape`` are those
    that the model was made for.
    """

    picture_size: int  # pixels, width = height
    shape: tuple[int, int, int]  # of one x0: channels, height, width
    exact: bool = False  # whether decode(encode(pictures)) are the pictures
    network: Autoencoder | Upscaler | None  # whose weights stand in the checkpoint

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
    network = None

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


class UpscalingCodec(Codec):
    """x0 are small pictures, in [-1, 1], which a network enlarges."""

    network: Upscaler

    def __init__(self, network: Upscaler, small_size: int) -> None:
        super().__init__()
        self.network, self.factor = network, network.config.factor
        self.picture_size = small_size * self.factor
        self.shape = 3, small_size, small_size

    def encode(self, pictures: Tensor) -> Tensor:
        return self.network.shrink(to_float(pictures))

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        return to_uint8(self.network(x0.clamp(-1, 1)))

    def preview(self, x0: Tensor) -> Tensor:
        return to_uint8(F.interpolate(x0.float(), scale_factor=self.factor, mode="bilinear"))

    def keep_mask(self, keep: Tensor) -> Tensor:
        return _kept_whole(keep, self.factor)


class LatentCodec(Codec):
    """x0 are latents of an autoencoder, each channel with mean 0 and standard deviation
    ``sigma_data``."""

    network: Autoencoder

    def __init__(self, network: Autoencoder, latent_size: int, *, sigma_data: float) -> None:
        super().__init__()
        self.network, self.sigma_data = network, sigma_data
        self.downsampling = network.config.downsampling
        self.picture_size = latent_size * self.downsampling
        self.shape = network.config.latent_channels, latent_size, latent_size

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        return self.network.encode(to_float(pictures)).float() * self.sigma_data

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        return to_uint8(self.network.decode(x0 / self.sigma_data))

    @torch.no_grad()
    def preview(self, x0: Tensor) -> Tensor:
        small = self.network.preview(x0.float() / self.sigma_data)
        return to_uint8(F.interpolate(small, scale_factor=self.downsampling, mode="bilinear"))

    def keep_mask(self, keep: Tensor) -> Tensor:
        return _kept_whole(keep, self.downsampling)


def build_codec(model: ModelConfig, shape: CodecConfig | None) -> Codec:
    """The codec of such a model, its network untrained."""
    if shape is None:
        return PixelCodec(model.image_size, channels=model.image_channels)
    return codec_of(model, build_network(shape))


def build_network(shape: CodecConfig) -> Autoencoder | Upscaler:
    """The network of a codec, untrained."""
    return Upscaler(shape) if isinstance(shape, UpscalerConfig) else Autoencoder(shape)


def codec_of(model: ModelConfig, network: Autoencoder | Upscaler) -> Codec:
    """The codec of such a model with a network that fits it."""
    if isinstance(network, Upscaler):
        return UpscalingCodec(network, model.image_size)
    return LatentCodec(network, model.image_size, sigma_data=model.sigma_data)


def _kept_whole(keep: Tensor, factor: int) -> Tensor:
    """bool [N, 1, S, S] -> [N, 1, S / f, S / f]: where all pixels of a square are True."""
    return ~(F.max_pool2d((~keep).float(), factor) > 0)
