"""Wrappers with the interface of a denoiser: guidance, and a picture of which a part must stay."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Guided(nn.Module):
    """Guidance with the interface of a denoiser: away from a weaker estimate, and beyond.

    D = weak + w * (D(label) - weak), w being ``guidance``; 1 is off, and then costs nothing. The
    weaker estimate is that of the ``guide``, a smaller network trained for less long on the same
    pictures without their labels (Karras et al. 2024, "Guiding a diffusion model with a bad version
    of itself"); without one, it is the denoiser's own for the null label, both evaluated as one
    batch (classifier-free guidance: Ho & Salimans 2022).

    Where every ``sigma`` is above ``below``, the denoiser answers alone (Kynkäänniemi et al. 2024:
    guidance in a limited interval). Where every one is below ``texture_below``, only texture is
    left to draw: as much guidance as shapes want makes hard edges and brushed fur there, and w is
    1 + ``texture_share`` * (guidance - 1).
    """

    def __init__(
        self,
        denoiser: nn.Module,
        guidance: float,
        *,
        null_label: int,
        guide: nn.Module | None = None,
        below: float = math.inf,
        texture_below: float = 0.0,
        texture_share: float = 1.0,
    ) -> None:
        super().__init__()
        self.denoiser, self.guidance, self.null_label = denoiser, guidance, null_label
        self.guide, self.below = guide, below
        self.texture_below, self.texture_share = texture_below, texture_share

    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        noise = torch.as_tensor(sigma)
        if self.guidance == 1 or noise.min() > self.below:
            return self.denoiser(x, sigma, class_labels)
        share = self.texture_share if noise.max() < self.texture_below else 1.0
        weight = 1 + share * (self.guidance - 1)
        if self.guide is not None:
            weak = self.guide(x, sigma)
            return torch.lerp(weak, self.denoiser(x, sigma, class_labels), weight)
        if class_labels is None:
            return self.denoiser(x, sigma, class_labels)
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[0])
        if class_labels.is_floating_point():  # weights [N, num_classes + 1]
            null = torch.zeros_like(class_labels)
            null[:, self.null_label] = 1
        else:
            null = torch.full_like(class_labels, self.null_label)
        both = self.denoiser(torch.cat([x, x]), sigma.repeat(2), torch.cat([class_labels, null]))
        with_label, without = both.chunk(2)
        return torch.lerp(without, with_label, weight)


class Repaint(nn.Module):
    """A denoiser that knows part of the picture: its estimate of x0 is the picture where ``keep``.

    picture: [N, C, H, W] in [-1, 1]; keep: bool [N, 1, H, W]. Started at ``picture + sigma *
    noise``, every sampler then carries the kept part along exactly and ends on it.
    """

    def __init__(self, denoiser: nn.Module, picture: Tensor, keep: Tensor) -> None:
        super().__init__()
        self.denoiser, self.picture, self.keep = denoiser, picture, keep

    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        return torch.where(self.keep, self.picture, self.denoiser(x, sigma, class_labels))
