"""The networks that people would use instead, as wide as it takes to do the same work as ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from denoising_diffusion_pytorch import Unet
from diffusers import AutoencoderTiny, UNet2DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusion import PRESETS, Denoiser
from diffusion.checkpoint import CheckpointInfo

SIZE = 64  # pixels
LATENT_SIZE = 32  # of pictures of 256 pixels
LATENT_CHANNELS = 4  # of diffusers' autoencoder


def ours(preset: str) -> Denoiser:
    """An untrained denoiser of a preset; what its weights are does not change its speed."""
    model = PRESETS[preset].model
    return Denoiser.from_config(model, info=CheckpointInfo(model)).eval().requires_grad_(False)


def presets() -> list[str]:
    """Names of those that draw pictures of SIZE."""
    return [name for name, preset in PRESETS.items() if preset.model.image_size == SIZE]


def diffusers_unet(width: int, *, size: int = SIZE, channels: int = 3) -> UNet2DModel:
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(width, 2 * width, 4 * width),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()


def diffusers_latent_unet(width: int) -> UNet2DModel:
    """For ``diffusers_autoencoder``'s latents."""
    return diffusers_unet(width, size=LATENT_SIZE, channels=LATENT_CHANNELS)


def diffusers_autoencoder() -> AutoencoderTiny:
    """Of the shape that they ship for Stable Diffusion: 32x32 latents to 256x256 pixels."""
    return AutoencoderTiny(latent_channels=LATENT_CHANNELS).eval().requires_grad_(False)


def ddpm_pytorch_unet(width: int) -> Unet:
    """denoising-diffusion-pytorch's; its name for the width is dim."""
    return Unet(dim=width, dim_mults=(1, 2, 4)).eval()


@torch.no_grad()
def gmac(network: nn.Module, size: int = SIZE, *, channels: int = 3) -> float:
    """Billions of multiply-adds in one evaluation of one picture."""
    # The counter does not know the fused attention of CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, channels, size, size), torch.ones(1))
    return counter.get_total_flops() / 2e9


def equal_work(
    build: Callable[[int], nn.Module], target: float, *, size: int = SIZE, channels: int = 3
) -> nn.Module:
    """The network of the width, a multiple of 8, whose GMAC come nearest to ``target``."""

    def misses(width: int) -> float:
        return abs(gmac(build(width), size, channels=channels) - target)

    return build(min(range(8, 257, 8), key=misses))
