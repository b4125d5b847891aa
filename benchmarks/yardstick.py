"""What drawn pictures are measured by: the features of real ones, and the plots of distances."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from diffusion.checkpoint import CheckpointInfo
from diffusion.device import choose_device, keep_freed_memory
from diffusion.evaluation.evaluate import batches_of, load_real, sample_classes
from diffusion.evaluation.features import BATCH_SIZE, FEATURES, extract_features
from diffusion.evaluation.metrics import KernelDistance, frechet_distance, kernel_distance
from diffusion.files import atomic_path


def add_options(parser: argparse.ArgumentParser, *, samples: int) -> None:
    parser.add_argument("--data", required=True, help="folder or zip of pictures")
    parser.add_argument("--labels", help="CSV file with the columns file and label")
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--plot", metavar="FILE.png")


class Yardstick:
    """Features [N, D] of real pictures, and how far from them others are."""

    def __init__(
        self, data: str, info: CheckpointInfo, *, samples: int, labels_csv: str | None = None
    ) -> None:
        keep_freed_memory()  # as the programs do
        self.images = load_real(data, info, labels_csv=labels_csv)
        self.network = FEATURES["effnet-lite0"]().to(choose_device())
        self.real = self._extract(batches_of(self.images, torch.arange(len(self.images))))
        self.classes = sample_classes(info, self.images.classes, samples)  # of the samples

    def against(self, real: Tensor) -> Yardstick:
        """One with the features [N, D] of other real pictures."""
        other = copy.copy(self)
        other.real = real
        return other

    def features(self, pictures: Tensor) -> Tensor:
        """Features [N, D] of uint8 pictures."""
        return self._extract(pictures.split(BATCH_SIZE))

    def _extract(self, batches: Iterable[Tensor]) -> Tensor:
        return extract_features(self.network, batches, device=choose_device())

    def distances(self, features: Tensor) -> tuple[float, KernelDistance]:
        """Fréchet and kernel distance of features [N, D] to those of the real pictures."""
        return frechet_distance(self.real, features), kernel_distance(features, self.real)


def with_spread(kid: KernelDistance) -> str:
    return f"{kid.value:.1f} ± {kid.spread:.1f}"


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
