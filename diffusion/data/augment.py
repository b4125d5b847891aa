"""Non-leaking augmentation: geometric changes whose parameters are told to the network.

Karras et al. 2022, Appendix F.2: because the network is conditioned on the parameters, setting
them to 0 when sampling gives images of the unaugmented kind. Mirroring is done in the data.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

AUGMENT_CHANNELS = 6


class Augment:
    """Scale, stretch, rotation and shift, each with probability ``p``.

    Called on images [N, C, H, W] in [-1, 1]; returns the warped images and their parameters
    [N, 6]: ln(scale), stretch (cos, sin parts), angle in units of pi, and shift (x, y) in eighths.
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def parameters(self, num: int, generator: torch.Generator) -> Tensor:
        """Random parameters [num, 6]; a group that is off is 0."""
        device = generator.device
        normal = torch.randn(num, 4, generator=generator, device=device)
        uniform = torch.rand(num, 2, generator=generator, device=device) * 2 - 1
        on = (torch.rand(num, 4, generator=generator, device=device) < self.p).float()
        stretch_axis = uniform[:, 0] * math.pi
        return torch.stack(
            [
                0.2 * normal[:, 0] * on[:, 0],
                0.2 * normal[:, 1] * stretch_axis.cos() * on[:, 1],
                0.2 * normal[:, 1] * stretch_axis.sin() * on[:, 1],
                uniform[:, 1] * on[:, 2],
                normal[:, 2] * on[:, 3],
                normal[:, 3] * on[:, 3],
            ],
            dim=1,
        )

    def __call__(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        parameters = self.parameters(len(images), generator).to(images.device)
        if self.p == 0:
            return images, parameters
        return warp(images, parameters), parameters


def warp(images: Tensor, parameters: Tensor) -> Tensor:
    """Apply augmentation ``parameters`` [N, 6] to images; all-zero rows come back unchanged."""
    log_scale, stretch_cos, stretch_sin, turns, shift_x, shift_y = parameters.unbind(1)
    # Symmetric part: scale and stretch as the exponential of a traceless-plus-scalar matrix.
    symmetric = torch.stack(
        [
            torch.stack([log_scale + stretch_cos, stretch_sin], dim=1),
            torch.stack([stretch_sin, log_scale - stretch_cos], dim=1),
        ],
        dim=1,
    )
    angle = turns * math.pi
    rotation = torch.stack(
        [
            torch.stack([angle.cos(), -angle.sin()], dim=1),
            torch.stack([angle.sin(), angle.cos()], dim=1),
        ],
        dim=1,
    )
    # grid_sample wants the map from output to input positions, in units of half the image.
    inverse = torch.matrix_exp(-symmetric) @ rotation.transpose(1, 2)
    shift = torch.stack([shift_x, shift_y], dim=1) / 4
    theta = torch.cat([inverse, -(inverse @ shift[:, :, None])], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    warped = F.grid_sample(
        images, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    ).clamp(-1, 1)
    unchanged = (parameters == 0).all(dim=1)[:, None, None, None]
    return torch.where(unchanged, images, warped)
