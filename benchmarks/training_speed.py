"""How fast does training go, beside diffusers and denoising-diffusion-pytorch?

    python -m benchmarks.training_speed [--preset cat-64-lite] [--batch 16] [--rounds 3]

One training step as each library trains it by default (ours: crop, mirror, loss, Muon or AdamW,
average; theirs: the loss, AdamW or Adam, average) over networks of (nearly) equal multiply-adds.
Every measurement is a process of its own, in turns, so that memory is its own too. Prints a
Markdown table: images/s x GMAC, its ratio to diffusers (median of the rounds, least and greatest),
and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import peers
from diffusion.checkpoint import CheckpointInfo
from diffusion.codec import to_float
from diffusion.config import TrainConfig
from diffusion.data.dataset import ImageSet
from diffusion.data.sources import Folder
from diffusion.device import keep_freed_memory
from diffusion.presets import PRESETS

BASELINE = "diffusers"
IMAGES = 512
Step = Callable[[Tensor], None]  # takes uint8 [B, 3, S, S]


def ours(preset: str, batch: int, out: str, optimizer: str) -> tuple[nn.Module, Step]:
    from diffusion.training.objectives import Denoising
    from diffusion.training.trainer import Trainer

    pixels = torch.randint(256, (IMAGES, 3, peers.SIZE, peers.SIZE), dtype=torch.uint8)
    names = tuple(f"{i}.png" for i in range(IMAGES))
    classes = torch.full((IMAGES,), -1)
    images = ImageSet(Folder(Path(out)), names, peers.SIZE, peers.SIZE, classes, (), pixels)
    settings = PRESETS[preset].train | {"batch_size": batch, "optimizer": optimizer}
    config, info = TrainConfig(images=10**9, **settings), CheckpointInfo(PRESETS[preset].model)
    trainer = Trainer(config, Denoising(config, info, images), out)

    def step(pictures: Tensor) -> None:
        trainer._step((pictures, classes[: len(pictures)]))
        trainer.progress.step += 1

    return trainer.objective.denoiser, step


def diffusers(preset: str) -> tuple[nn.Module, Step]:
    """As in diffusers' example of unconditional training, its average switched on."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    unet = peers.equal_work(peers.diffusers_unet, peers.gmac(peers.ours(preset))).train()
    scheduler, average = DDPMScheduler(), EMAModel(unet.parameters())
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4)

    def step(pictures: Tensor) -> None:
        x0 = to_float(pictures)
        noise, t = torch.randn_like(x0), torch.randint(1000, (len(x0),))
        output = unet(scheduler.add_noise(x0, noise, t), t).sample
        torch.nn.functional.mse_loss(output, noise).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(unet.parameters())

    return unet, step


def ddpm_pytorch(preset: str) -> tuple[nn.Module, Step]:
    """As in the Trainer of denoising-diffusion-pytorch."""
    from denoising_diffusion_pytorch import GaussianDiffusion
    from ema_pytorch import EMA

    unet = peers.equal_work(peers.ddpm_pytorch_unet, peers.gmac(peers.ours(preset))).train()
    diffusion = GaussianDiffusion(unet, image_size=peers.SIZE)
    average = EMA(diffusion, beta=0.995, update_every=10)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def step(pictures: Tensor) -> None:
        diffusion(pictures / 255).backward()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return unet, step


def measure(name: str, preset: str, batch: int, steps: int) -> dict[str, float]:
    """In this process: GMAC of one evaluation, images/s, and peak memory in MB."""
    with tempfile.TemporaryDirectory() as out:
        if name.startswith("ours"):
            network, step = ours(preset, batch, out, name.split()[-1])
        else:
            network, step = {BASELINE: diffusers, "denoising-diffusion-pytorch": ddpm_pytorch}[
                name
            ](preset)
        work = peers.gmac(network)
        pictures = torch.randint(256, (batch, 3, peers.SIZE, peers.SIZE), dtype=torch.uint8)
        step(pictures)  # to warm up
        start = time.perf_counter()
        for _ in range(steps):
            step(pictures)
        speed = steps * batch / (time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"gmac": work, "images_per_second": speed, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="cat-64-lite", choices=peers.presets())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="in each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)  # what one process measures
    options = parser.parse_args()
    keep_freed_memory()  # as the programs do
    if options.only:
        print(json.dumps(measure(options.only, options.preset, options.batch, options.steps)))
        return
    names = ["ours, muon", "ours, adamw", BASELINE, "denoising-diffusion-pytorch"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            module = ["-m", "benchmarks.training_speed"]
            command = [sys.executable, *module, *sys.argv[1:], "--only", name]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name].append(json.loads(run.stdout.splitlines()[-1]))
    print(f"| batch {options.batch} | GMAC | images/s | images/s × GMAC | × {BASELINE} | MB |")
    print("|---|---:|---:|---:|---:|---:|")
    rates = {n: [r["images_per_second"] * r["gmac"] for r in runs] for n, runs in found.items()}
    for name, runs in found.items():
        ratios = [a / b for a, b in zip(rates[name], rates[BASELINE], strict=True)]
        speed = statistics.median(run["images_per_second"] for run in runs)
        rate, ratio = statistics.median(rates[name]), statistics.median(ratios)
        memory = max(run["memory"] for run in runs)
        print(f"| {name} | {runs[0]['gmac']:.2f} | {speed:.1f} | {rate:.1f} ", end="")
        print(f"| {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {memory:.0f} |")
    print(f"\n{options.preset}, torch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
