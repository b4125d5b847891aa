"""How fast are pictures of 256 pixels drawn, beside diffusers in latents?

    python -m benchmarks.large_speed [--rounds 5] [--steps 12]

Whole ways from noise to uint8 pixels, taken in turns: ours of small pictures with an upscaler
behind it (the page's default) and ours in latents, each with its guide; and diffusers'
``UNet2DModel`` with nearly as many multiply-adds as our denoiser of latents, DPM-Solver++ and
``AutoencoderTiny``. All are untrained, which does not change their speed. GMAC is the work of one
evaluation, with the guide's share and without the decoder.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Callable

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.sampling_speed import DTYPES, compare, prepare
from diffusion import PRESETS, Denoiser, generate
from diffusion.checkpoint import CheckpointInfo
from diffusion.codec import to_uint8
from diffusion.config import AutoencoderConfig, UpscalerConfig
from diffusion.denoiser import build_unet
from diffusion.device import keep_freed_memory
from diffusion.sampling import sampling_sigmas

BASELINE = "diffusers, latents"
OURS = {
    "ours, upscaled": ("cat-128-lite", "cat-128-guide", UpscalerConfig(2)),
    "ours, latents": ("cat-256-lite", "cat-256-guide", AutoencoderConfig()),
}
Draw = Callable[[int], object]


def work_of(preset: str) -> float:
    """GMAC of one evaluation of a preset's network."""
    model = PRESETS[preset].model
    return peers.gmac(build_unet(model), model.image_size, channels=model.image_channels)


def ours(name: str, dtype: str, steps: int) -> tuple[float, Draw]:
    """GMAC, and a function that draws so many pictures."""
    preset, guide, codec = OURS[name]
    info = CheckpointInfo(PRESETS[preset].model, guide=PRESETS[guide].model, codec=codec)
    denoiser = Denoiser.from_config(info.model, info=info).eval().requires_grad_(False)
    prepare(denoiser, DTYPES[dtype])
    config = dataclasses.replace(PRESETS[preset].sampling, num_steps=steps)
    guided = (sampling_sigmas(config)[:-1] <= config.guided_below).double().mean().item()
    work = work_of(preset) + guided * work_of(guide)
    return work, lambda num: generate(denoiser, range(num), config)


def theirs(unet: nn.Module, dtype: str, steps: int) -> Draw:
    """The loop of diffusers' guides, decoded."""
    unet, autoencoder = unet.to(DTYPES[dtype]), peers.diffusers_autoencoder().to(DTYPES[dtype])
    scheduler = DPMSolverMultistepScheduler()

    @torch.inference_mode()
    def draw(num: int) -> Tensor:
        scheduler.set_timesteps(steps)
        shape = num, peers.LATENT_CHANNELS, peers.LATENT_SIZE, peers.LATENT_SIZE
        x = torch.randn(shape, dtype=DTYPES[dtype])
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x).prev_sample
        return to_uint8(autoencoder.decode(x).sample)

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    keep_freed_memory()  # as the programs do
    size, channels = peers.LATENT_SIZE, peers.LATENT_CHANNELS
    target = work_of("cat-256-lite")
    unet = peers.equal_work(peers.diffusers_latent_unet, target, size=size, channels=channels)
    work = peers.gmac(unet, size, channels=channels)
    entries = {
        f"{name}, {dtype}": ours(name, dtype, options.steps) for name in OURS for dtype in DTYPES
    }
    entries[BASELINE] = work, theirs(unet, "fp32", options.steps)
    entries[f"{BASELINE}, bf16"] = work, theirs(copy.deepcopy(unet), "bf16", options.steps)
    compare(entries, options.steps, options.rounds, baseline=BASELINE)
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
