"""How fast are pictures drawn, beside diffusers and denoising-diffusion-pytorch?

    python -m benchmarks.sampling_speed [--preset cat-64-lite] [--rounds 5] [--steps 12]

Prints three Markdown tables: pictures/s of whole sampling loops over networks of (nearly) equal
multiply-adds, taken in turns, with the ratio of each round to diffusers' DDIM (its median, and the
least and the greatest); the share of this machine's convolution peak that one evaluation reaches;
and how the cost of an evaluation grows with the batch and with the picture.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from denoising_diffusion_pytorch import GaussianDiffusion
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import peers
from diffusion import SampleConfig, generate
from diffusion.codec import to_uint8
from diffusion.device import keep_freed_memory
from diffusion.networks.layers import cast_weights_, pack_weights_
from diffusion.sampling import sampling_sigmas

GUIDE = "cat-64-guide"
BASELINE = "diffusers, DDIM"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def prepare(denoiser: nn.Module, dtype: torch.dtype, *, packed: bool = True) -> None:
    """What ``Denoiser.load_for_sampling`` does, in the type that is to be measured."""
    cast_weights_(denoiser, dtype)
    if packed:
        pack_weights_(denoiser)


@torch.no_grad()
def diffusers_loop(unet: nn.Module, scheduler: object, steps: int, num: int) -> Tensor:
    """The loop of diffusers' guides."""
    scheduler.set_timesteps(steps)
    x = torch.randn(num, 3, peers.SIZE, peers.SIZE)
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t).sample, t, x).prev_sample
    return to_uint8(x)


def contestants(preset: str, steps: int) -> dict[str, tuple[float, Callable[[int], object]]]:
    """Name to GMAC and a function that draws so many pictures."""
    work, of_guide = (peers.gmac(peers.ours(name)) for name in (preset, GUIDE))

    def ours(
        sampler: str, dtype: str, *, guided: bool = False, packed: bool = True
    ) -> Callable[[int], object]:
        denoiser = peers.ours(preset)
        if guided:
            denoiser = denoiser.guided_by(peers.ours(GUIDE))
        prepare(denoiser, DTYPES[dtype], packed=packed)
        config = SampleConfig(sampler=sampler, num_steps=steps)
        return lambda num: generate(denoiser, range(num), config)

    sigmas = sampling_sigmas(SampleConfig(num_steps=steps))[:-1]
    guided_steps = (sigmas <= SampleConfig.guided_below).double().mean().item()

    unet = peers.equal_work(peers.diffusers_unet, work)
    other = peers.equal_work(peers.ddpm_pytorch_unet, work)
    diffusion = GaussianDiffusion(other, image_size=peers.SIZE, sampling_timesteps=steps).eval()
    diffusion.sample = torch.no_grad()(diffusion.sample)
    tqdm_of_theirs = sys.modules[GaussianDiffusion.__module__]
    tqdm_of_theirs.tqdm = lambda iterable, **_: iterable  # a bar for every call
    ddim, dpm = DDIMScheduler(), DPMSolverMultistepScheduler()
    return {
        "ours, dpmpp_2m, bf16, guided": (
            work + guided_steps * of_guide,
            ours("dpmpp_2m", "bf16", guided=True),
        ),
        "ours, dpmpp_2m, bf16": (work, ours("dpmpp_2m", "bf16")),
        "ours, dpmpp_2m, bf16, not packed": (work, ours("dpmpp_2m", "bf16", packed=False)),
        "ours, dpmpp_2m, fp32": (work, ours("dpmpp_2m", "fp32")),
        "ours, dpmpp_2m, fp32, not packed": (work, ours("dpmpp_2m", "fp32", packed=False)),
        "ours, ddim, fp32": (work, ours("ddim", "fp32")),
        BASELINE: (peers.gmac(unet), lambda num: diffusers_loop(unet, ddim, steps, num)),
        "diffusers, DPM-Solver++(2M)": (
            peers.gmac(unet),
            lambda num: diffusers_loop(unet, dpm, steps, num),
        ),
        "denoising-diffusion-pytorch, DDIM": (
            peers.gmac(other),
            lambda num: diffusion.sample(batch_size=num),
        ),
    }


def compare(
    entries: Mapping[str, tuple[float, Callable[[int], object]]],
    steps: int,
    rounds: int,
    *,
    baseline: str = BASELINE,
) -> None:
    """Print a table of ``entries``, taken in turns."""
    print(f"| {steps} steps, fp32 unless named | GMAC | batch | pictures/s | × {baseline} |")
    print("|---|---:|---:|---:|---:|")
    for num in (1, 16):
        taken: dict[str, list[float]] = {name: [] for name in entries}
        for turn in tqdm(range(rounds + 1), desc=f"batch {num}"):
            for name, (_, draw) in entries.items():
                took = seconds(partial(draw, num))
                if turn:  # the first is to warm up
                    taken[name].append(took)
        for name, (work, _) in entries.items():
            ratios = [b / a for a, b in zip(taken[name], taken[baseline], strict=True)]
            speed = num / statistics.median(taken[name])
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {name} | {work:.2f} | {num} | {speed:.2f} | {spread} |")


@torch.no_grad()
def convolution_peak(dtype: torch.dtype, repeats: int) -> float:
    """GFLOP/s of the best of some 3x3 convolutions."""
    best = 0.0
    for channels, size in ((64, 64), (128, 32), (256, 32), (256, 16), (512, 16)):
        conv = nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype)
        conv.to(memory_format=torch.channels_last)
        x = torch.randn(16, channels, size, size, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        took = min(seconds(partial(conv, x)) for _ in range(repeats + 1))
        best = max(best, 2 * 16 * 9 * channels**2 * size**2 / took / 1e9)
    return best


@torch.no_grad()
def evaluation_seconds(preset: str, num: int, size: int, dtype: torch.dtype, repeats: int) -> float:
    """The best of some evaluations of ``num`` pictures."""
    denoiser, x = peers.ours(preset), torch.randn(num, 3, size, size)
    prepare(denoiser, dtype)
    return min(seconds(lambda: denoiser(x, torch.ones(num))) for _ in range(repeats + 1))


def share_of_peak(preset: str, repeats: int) -> None:
    work = 2 * peers.gmac(peers.ours(preset))
    print("\n| one evaluation | batch | GFLOP/s | convolution peak | share |")
    print("|---|---:|---:|---:|---:|")
    for name, dtype in DTYPES.items():
        peak = convolution_peak(dtype, repeats)
        for num in (1, 16):
            reached = num * work / evaluation_seconds(preset, num, peers.SIZE, dtype, repeats)
            print(f"| {name} | {num} | {reached:.0f} | {peak:.0f} | {reached / peak:.0%} |")


def growth(preset: str, repeats: int) -> None:
    denoiser = peers.ours(preset)
    print("\n| batch | pixels | GMAC a picture | ms a picture, fp32 | bf16 |")
    print("|---:|---:|---:|---:|---:|")
    batches = [(num, peers.SIZE) for num in (1, 2, 4, 8, 16, 32, 64)]
    for num, size in [*batches, (4, 32), (4, 64), (4, 96), (4, 128)]:
        took = [evaluation_seconds(preset, num, size, d, repeats) for d in DTYPES.values()]
        fp32, bf16 = (1000 * t / num for t in took)
        print(f"| {num} | {size} | {peers.gmac(denoiser, size):.2f} | {fp32:.1f} | {bf16:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="cat-64-lite", choices=peers.presets())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    keep_freed_memory()  # as the programs do
    compare(contestants(options.preset, options.steps), options.steps, options.rounds)
    share_of_peak(options.preset, options.rounds)
    growth(options.preset, options.rounds)
    print(f"\n{options.preset}, torch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
