"""The network that enlarges small pictures: what a model draws at 128 pixels becomes 256.

A cascade (Ho et al. 2021, "Cascaded diffusion models") whose second stage is one evaluation of a
plain convolutional network: twice the pixels hold hardly more of a cat, only its texture. Most of
the work is done at the coarsest resolution, as in ``autoencoder``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import UpscalerConfig
from .autoencoder import ConvBlock
from .layers import Conv2d, zero_

COARSE = 4  # width of a large picture over the width at which most of the work is done


class Upscaler(nn.Module):
    """Small pictures [N, 3, h, w] in [-1, 1] -> [N, 3, f h, f w], not clipped.

    It adds to the bicubic enlargement, and an untrained one adds nothing. f is ``config.factor``;
    4 / f divides h and w. ``shrink`` is the way back.
    """

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.widths
        channels = 3 * (COARSE // config.factor) ** 2
        self.conv_in = Conv2d(channels, coarse, 3, padding=1)
        self.coarse = nn.Sequential(*(ConvBlock(coarse) for _ in range(config.blocks[1])))
        self.widen = Conv2d(coarse, 4 * fine, 1)
        self.skip = Conv2d(channels, 4 * fine, 3, padding=1)
        self.fine = nn.Sequential(*(ConvBlock(fine) for _ in range(config.blocks[0])))
        self.conv_out = zero_(Conv2d(fine, 12, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, small: Tensor) -> Tensor:
        factor = self.config.factor
        x = F.pixel_unshuffle(small.to(self.conv_in.weight.dtype), COARSE // factor)
        coarse = self.coarse(self.conv_in(x))
        fine = self.fine(F.pixel_shuffle(self.widen(coarse) + self.skip(x), 2))
        added = F.pixel_shuffle(self.conv_out(fine), 2)
        return F.interpolate(small.float(), scale_factor=factor, mode="bicubic") + added.float()

    def shrink(self, pictures: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, H / f, W / f], each pixel the mean of those that it replaces."""
        return F.avg_pool2d(pictures, self.config.factor)
