"""Exponential moving average of a module's weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import nn


class ExponentialMovingAverage:
    """Average with a half-life in images, so that it means the same at every batch size.

    Early on the half-life is capped at ``rampup`` times the images seen (Karras et al. 2022, code),
    so that the average forgets the random initial weights. ``module`` holds the averaged copy.
    """

    def __init__(self, module: nn.Module, *, halflife_images: int, rampup: float = 0.1) -> None:
        self.halflife_images, self.rampup = halflife_images, rampup
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    def decay(self, images_seen: int, batch_size: int) -> float:
        """Weight of the old average in an update by ``batch_size`` images."""
        halflife = min(self.halflife_images, self.rampup * images_seen)
        return 0.5 ** (batch_size / max(halflife, 1e-8))

    @torch.no_grad()
    def update(self, module: nn.Module, *, images_seen: int, batch_size: int) -> None:
        """Move the average towards ``module``; integer buffers are copied."""
        decay = self.decay(images_seen, batch_size)
        averages, values = [], []
        for average, value in zip(
            [*self.module.parameters(), *self.module.buffers()],
            [*module.parameters(), *module.buffers()],
            strict=True,
        ):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)
