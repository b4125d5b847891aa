"""The network behind a latent codec: pictures to latents of an eighth of the size, and back.

Plain residual convolutions without normalisation layers, so that it is fully convolutional (any
multiple of 8 pixels) and quick. Most of its work is done at the coarsest resolution, where a CPU
is at its best. Pixel (un)shuffling changes the resolution (Shi et al. 2016).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import AutoencoderConfig
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


class Encoder(nn.Module):
    """Pictures [N, 3, H, W] -> latents [N, C, H / f, W / f]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = Conv2d(12, widths[0], 3, padding=1)
        body = _blocks(widths[0], config.blocks[0])
        for finer, width, count in zip(widths, widths[1:], config.blocks[1:], strict=False):
            body += [nn.PixelUnshuffle(2), Conv2d(4 * finer, width, 1), *_blocks(width, count)]
        self.body = nn.Sequential(*body)
        self.conv_out = Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.conv_out(self.body(self.conv_in(F.pixel_unshuffle(pictures, 2))))


class Decoder(nn.Module):
    """Latents [N, C, h, w] -> pictures [N, 3, f h, f w], not clipped."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        body = _blocks(widths[-1], config.blocks[-1])
        levels = list(zip(widths, widths[1:], config.blocks, strict=False))
        for width, coarser, count in reversed(levels):
            body += [Conv2d(coarser, 4 * width, 1), nn.PixelShuffle(2), *_blocks(width, count)]
        self.body = nn.Sequential(*body)
        self.conv_out = Conv2d(widths[0], 12, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv_out(self.body(self.conv_in(latents))), 2)


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
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        channels = config.latent_channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("preview_weight", torch.zeros(3, channels))
        self.register_buffer("preview_bias", torch.zeros(3))
        self.to(memory_format=torch.channels_last)

    def forward(
        self, latents: Tensor, pictures: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What training takes at once: ``decode`` of latents, and ``encode`` of pictures if there
        are any."""
        return self.decode(latents), None if pictures is None else self.encode(pictures)

    def normalize(self, latents: Tensor) -> Tensor:
        """Latents of the space that it was trained on, with any mean and std -> its own."""
        return (latents - self.mean[:, None, None]) / self.std[:, None, None]

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
