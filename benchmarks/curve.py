"""How do pictures get better as more images are seen? Distances of one checkpoint after another.

    python benchmarks/curve.py --data cat-heads-128.zip --labels cat-heads.labels.csv \
           [--samples 500] [--plot curve.png] runs/heads/steps/*.safetensors

Prints a Markdown table. Without guidance: what the network itself has learned.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from diffusion import Denoiser, SampleConfig  # noqa: E402
from diffusion.checkpoint import atomic_path, find_checkpoint  # noqa: E402
from diffusion.data import load_images  # noqa: E402
from diffusion.device import choose_device  # noqa: E402
from diffusion.evaluate import draw_samples, proportional_classes  # noqa: E402
from diffusion.features import BATCH_SIZE, FEATURES, extract_features  # noqa: E402
from diffusion.metrics import frechet_distance, kernel_distance  # noqa: E402


def save_plot(images: list[int], fd: list[float], kid: list[float], path: str) -> None:
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(7, 4.5), layout="constrained")).add_subplot()
    axes.plot(images, fd, marker="o", label="FD")
    axes.plot(images, kid, marker="o", label="KID × 1000")
    axes.set(xscale="log", yscale="log", xlabel="images seen", ylabel="distance to real pictures")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--data", required=True, help="folder or zip of pictures")
    parser.add_argument("--labels", help="CSV file with the columns file and label")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--plot", metavar="FILE.png")
    options = parser.parse_args()
    device = choose_device()
    denoisers = [
        Denoiser.load(find_checkpoint(name), device=device) for name in options.checkpoints
    ]
    denoisers.sort(key=lambda denoiser: denoiser.info.images_seen)
    info = denoisers[0].info
    images = load_images(
        options.data,
        image_size=info.model.image_size,
        labels_csv=options.labels,
        labels=info.labels,
        photos=False,
    )
    network = FEATURES["effnet-lite0"]().to(device)
    pictures = images.get(torch.arange(len(images)))[0]
    real = extract_features(network, pictures.split(BATCH_SIZE), device=device)
    classes = proportional_classes(images.classes, options.samples)
    seen, fds, kids = [], [], []
    print(f"| images seen | FD of {options.samples:,} | KID×1000 |")
    print("|---:|---:|---:|")
    for denoiser in denoisers:
        drawn = draw_samples(denoiser, SampleConfig(guidance=1.0), classes)
        generated = extract_features(network, drawn.split(BATCH_SIZE), device=device)
        fd, kid = frechet_distance(real, generated), kernel_distance(generated, real)
        seen.append(denoiser.info.images_seen)
        fds.append(float(fd))
        kids.append(float(kid.value))
        print(f"| {seen[-1]:,} | {fd:.1f} | {kid.value:.1f} ± {kid.spread:.1f} |", flush=True)
    if options.plot:
        save_plot(seen, fds, kids, options.plot)


if __name__ == "__main__":
    main()
