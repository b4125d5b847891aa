"""The network behind a latent codec: pictures to latents of an eighth of the size, and back.

Plain residual convolutions without normalisation layers, so that it is fully convolutional (any
multiple of 8 pixels) and quick. Most of its work is done at the coarsest resolution, where a CPU
is at its best. Pixel (un)shuffling changes the resolution (Shi et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import AutoencoderConfig
from .layers import Conv2d, zero_


class ConvBlock(nn.Module):
    """Two 3x3 convolutions as a residual that begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = Conv2d(channels, channels, 3, padding=1)
        self.conv_out = zero_(Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(F.relu(self.conv_in(F.relu(x))))


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ConvBlock(channels) for _ in range(count)]


def _encoder(latent_channels: int, widths: Sequence[int], blocks: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.PixelUnshuffle(2), Conv2d(12, widths[0], 3, padding=1)]
    for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        if level:
            layers += [nn.PixelUnshuffle(2), Conv2d(4 * widths[level - 1], width, 1)]
        layers += _blocks(width, count)
    return nn.Sequential(*layers, Conv2d(widths[-1], latent_channels, 3, padding=1))


def _decoder(latent_channels: int, widths: Sequence[int], blocks: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [Conv2d(latent_channels, widths[-1], 3, padding=1)]
    for level in reversed(range(len(widths))):
        layers += _blocks(widths[level], blocks[level])
        if level:
            layers += [Conv2d(widths[level], 4 * widths[level - 1], 1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers, Conv2d(widths[0], 12, 3, padding=1), nn.PixelShuffle(2))


class Autoencoder(nn.Module):
    """Pictures [N, 3, H, W] in [-1, 1] <-> latents [N, C, H / f, W / f] of mean 0 and std 1.

    H and W are multiples of ``f`` (``config.downsampling``). ``mean`` and ``std`` are those of the
    latents that it was trained on, channel by channel before they were normalised; ``preview`` is
    the best linear map from latents to the colour of each position.
    """

    mean: Tensor
    std: Tensor
    preview_weight: Tensor
    preview_bias: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        shape = config.latent_channels, config.widths, config.blocks
        self.encoder, self.decoder = _encoder(*shape), _decoder(*shape)
        channels = config.latent_channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("preview_weight", torch.zeros(3, channels))
        self.register_buffer("preview_bias", torch.zeros(3))
        self.to(memory_format=torch.channels_last)

    def encode(self, pictures: Tensor) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> latents [N, C, H / f, W / f]."""
        return self.encoder(self._laid_out(pictures))

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse; not clipped."""
        return self.decoder(self._laid_out(latents))

    def preview(self, latents: Tensor) -> Tensor:
        """[N, C, h, w] -> colours [N, 3, h, w] in about [-1, 1]; not clipped."""
        return F.conv2d(latents, self.preview_weight[:, :, None, None], self.preview_bias)

    def _laid_out(self, x: Tensor) -> Tensor:
        """In the type of the convolutions, channels-last."""
        weight = next(self.parameters())
        return x.to(weight.dtype).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def fit_preview_(self, latents: Tensor, pictures: Tensor) -> None:
        """Set ``preview`` by least squares: latents [N, C, h, w], pictures [N, 3, h * f, w * f]."""
        colours = F.avg_pool2d(pictures, self.config.downsampling)
        x = latents.movedim(1, -1).flatten(0, -2).double()
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        y = colours.movedim(1, -1).flatten(0, -2).double()
        solution = torch.linalg.lstsq(x, y).solution
        self.preview_weight.copy_(solution[:-1].T)
        self.preview_bias.copy_(solution[-1])
