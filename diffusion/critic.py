"""A critic to train a decoder by: it learns to tell real pictures from decoded ones.

Patch by patch, as in "Image-to-image translation with conditional adversarial networks" (Isola et
al. 2017); with the hinge loss (Lim & Ye 2017) and spectral normalization (Miyato et al. 2018),
which keep it calm at a small batch size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

WIDTHS = ((12, 48, 1), (48, 96, 2), (96, 128, 1), (128, 192, 2), (192, 192, 1))  # in, out, stride


class Critic(nn.Module):
    """Pictures [N, 3, H, W] in [-1, 1] -> how real each patch looks: [N, H / 8 * W / 8]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, width, stride in WIDTHS:
            convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, spectral_norm(nn.Conv2d(WIDTHS[-1][1], 1, 1)))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.net(F.pixel_unshuffle(pictures, 2)).flatten(1)

    def loss(self, real: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """What the critic has to lower, of each real picture and of each decoded one: [N], [M]."""
        told = F.relu(1 - self(real)).mean(1)
        return told, F.relu(1 + self(decoded.detach())).mean(1)

    def disbelief(self, decoded: Tensor) -> Tensor:
        """What the decoder has to lower, of each picture: [N]. The critic learns nothing by it."""
        frozen = {name: p.detach() for name, p in self.named_parameters()}
        return -functional_call(self, frozen, (decoded,)).mean(1)
