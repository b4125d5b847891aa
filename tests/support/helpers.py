"""Denoisers that are known exactly, and small networks: what several test modules share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from diffusion import Denoiser, ModelConfig
from diffusion.checkpoint import CheckpointInfo
from diffusion.config import AutoencoderConfig, UpscalerConfig
from diffusion.denoiser import build_unet
from diffusion.networks.autoencoder import Autoencoder
from diffusion.networks.unet import UNet
from diffusion.networks.upscaler import Upscaler

SMALL = ModelConfig(
    image_size=8,
    channels=16,
    channel_mult=(1, 2),
    num_blocks=1,
    attention_resolutions=(4, 2),
    attention_head_channels=8,
)


class Gaussian:
    """The exact denoiser of data N(mean, std^2), and the exact solution of its ODE."""

    def __init__(self, mean: float = 0.3, std: float = 0.5) -> None:
        self.mean, self.std = mean, std

    def __call__(self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None):
        variance = self.std**2
        return (variance * x + sigma**2 * self.mean) / (variance + sigma**2)

    def solution(self, x: Tensor, sigma_from: float, sigma_to: float) -> Tensor:
        shrink = ((self.std**2 + sigma_to**2) / (self.std**2 + sigma_from**2)) ** 0.5
        return self.mean + (x - self.mean) * shrink


class Points:
    """The exact denoiser of equal-sided Gaussians of one ``std`` around ``points`` [K, C, H, W].

    ``std`` 0 is the ideal denoiser of a data set that consists of these points.
    """

    def __init__(self, points: Tensor, weights: Tensor | None = None, std: float = 0.0) -> None:
        self.points, self.std = points, std
        self.weights = torch.ones(len(points)).to(points) if weights is None else weights

    def __call__(self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None):
        variance = self.std**2 + sigma**2
        distance = (x[:, None] - self.points[None]).square().flatten(2).sum(dim=2)
        share = torch.softmax(self.weights.log() - distance / (2 * variance), dim=1)
        centre = torch.einsum("nk,kchw->nchw", share, self.points)
        return (self.std**2 * x + sigma**2 * centre) / variance


class Counted:
    """A denoiser that counts its calls (nfe) and remembers at which sigma they were."""

    def __init__(self, denoiser) -> None:
        self.denoiser, self.sigmas = denoiser, []

    def __call__(self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None):
        self.sigmas.append(float(sigma))
        return self.denoiser(x, sigma, class_labels)

    @property
    def nfe(self) -> int:
        return len(self.sigmas)


class Clock:
    """Seconds that pass when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Nonlinear(nn.Module):
    """A raw network that is nonlinear in x and mixes pixels: F(x_in, c_noise, class_labels)."""

    def forward(self, x_in: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return torch.tanh(2 * x_in + x_in.roll(1, -1) - c_noise[:, None, None, None])


def randomize_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give the zero-initialised parameters random values, so that every layer takes part."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if not parameter.any():
            parameter.data.normal_(0, 0.1, generator=generator)
    return module


def network(**changes: Any) -> UNet:
    """A small network whose every layer takes part."""
    torch.manual_seed(2)
    return randomize_(build_unet(replace(SMALL, **changes))).eval().requires_grad_(False)


def small_denoiser(config: ModelConfig = SMALL, *, guide: ModelConfig | None = None) -> Denoiser:
    """A small network with random weights everywhere, ready for ``generate``."""
    labels = tuple(f"label {i}" for i in range(config.num_classes))
    torch.manual_seed(1)
    info = CheckpointInfo(config, labels=labels, guide=guide)
    denoiser = Denoiser.from_config(config, info=info)
    return randomize_(denoiser).eval().requires_grad_(False)


AUTOENCODER = AutoencoderConfig(latent_channels=4, widths=(4, 8), blocks=(1, 1))
LATENT = replace(SMALL, image_size=4, image_channels=4, patch_size=1, attention_resolutions=(4, 2))


def small_autoencoder(config: AutoencoderConfig = AUTOENCODER, *, seed: int = 3) -> Autoencoder:
    """A small autoencoder with random weights everywhere, its preview too."""
    torch.manual_seed(seed)
    autoencoder = randomize_(Autoencoder(config), seed)
    autoencoder.preview_weight.normal_()
    autoencoder.preview_bias.normal_(0, 0.1)
    return autoencoder.eval().requires_grad_(False)


UPSCALER = UpscalerConfig(widths=(4, 8), blocks=(1, 1))


def small_upscaler(config: UpscalerConfig = UPSCALER, *, seed: int = 4) -> Upscaler:
    """A small upscaler with random weights everywhere."""
    torch.manual_seed(seed)
    return randomize_(Upscaler(config), seed).eval().requires_grad_(False)


def upscaled_denoiser(config: ModelConfig = SMALL, *, guide: ModelConfig | None = None) -> Denoiser:
    """A small denoiser of pictures of 8 pixels, and an upscaler that makes 16 of them."""
    return small_denoiser(config, guide=guide).decoded_by(small_upscaler())


def latent_denoiser(config: ModelConfig = LATENT, *, guide: ModelConfig | None = None) -> Denoiser:
    """A small denoiser of latents, ready for ``generate``; its pictures have 16 pixels."""
    labels = tuple(f"label {i}" for i in range(config.num_classes))
    torch.manual_seed(1)
    info = CheckpointInfo(config, labels=labels, guide=guide, codec=AUTOENCODER)
    denoiser = randomize_(Denoiser.from_config(config, info=info))
    denoiser.codec.network.load_state_dict(small_autoencoder().state_dict())
    return denoiser.eval().requires_grad_(False)


class Darker(nn.Module):
    """A perceptual distance of its own: how much darker the first picture is. It remembers the
    sizes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(pictures.shape))
        return (targets - pictures).mean(dim=(1, 2, 3))
