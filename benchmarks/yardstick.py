"""What drawn pictures are measured by: the features of real ones, and the plots of distances."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from diffusion.checkpoint import CheckpointInfo, atomic_path
from diffusion.data import load_images
from diffusion.device import choose_device, keep_freed_memory
from diffusion.evaluate import proportional_classes
from diffusion.features import BATCH_SIZE, FEATURES, extract_features


def add_options(parser: argparse.ArgumentParser, *, samples: int) -> None:
    parser.add_argument("--data", required=True, help="folder or zip of pictures")
    parser.add_argument("--labels", help="CSV file with the columns file and label")
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--plot", metavar="FILE.png")


class Yardstick:
    """Features [N, D] of the real pictures that the options name, at the size of a model."""

    def __init__(self, options: argparse.Namespace, info: CheckpointInfo) -> None:
        keep_freed_memory()  # as the programs do
        images = load_images(
            options.data,
            image_size=info.model.image_size,
            labels_csv=options.labels,
            labels=info.labels,
            photos=False,
        )
        self.network = FEATURES["effnet-lite0"]().to(choose_device())
        self.real = self.features(images.get(torch.arange(len(images)))[0])
        self.classes = proportional_classes(images.classes, options.samples)  # of the samples

    def features(self, pictures: Tensor) -> Tensor:
        """Features [N, D] of uint8 pictures."""
        return extract_features(self.network, pictures.split(BATCH_SIZE), device=choose_device())


def save_plot(
    curves: dict[str, list[tuple[int, float]]], path: str, *, xlabel: str, ylabel: str
) -> None:
    """Points of each curve by its name, on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    axes = (figure := Figure(figsize=(7, 4.5), layout="constrained")).add_subplot()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 4, 6)))
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
