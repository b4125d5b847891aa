"""How good a model's pictures are: distances to real ones, labels, and what is learned by heart.

Every figure is measured in the features of a ``FeatureNetwork`` and stands beside the same figure
for real pictures, where there is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoint import CheckpointInfo
from ..codec import to_float
from ..config import SampleConfig, TrainConfig
from ..data.dataset import ImageSet, load_images, random_crop
from ..data.images import fit_square
from ..denoiser import Denoiser
from ..output.pictures import from_image, to_image
from ..processes import shared_bar, shared_out
from ..sampling import generate
from .features import BATCH_SIZE, FeatureNetwork, extract_features
from .metrics import Nearest, frechet_distance, kernel_distance, nearest, precision_recall

MIN_SAMPLES = 50
MIN_PER_LABEL = 100  # pictures and samples of a label, below which its distances say little
DISTANCES = ("fd", "kid", "kid_spread", "precision", "recall")
PIXELS = 32  # pictures are compared pixel by pixel at this size
PAIRS = 10  # closest pairs to show


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``evaluate`` found."""

    report: dict[str, Any]  # JSON-ready
    closest: Tensor  # uint8 [4 * PAIRS, 3, S, S], see ``Neighbours``


def evaluate(
    denoiser: Denoiser,
    images: ImageSet,
    network: FeatureNetwork,
    config: SampleConfig | None = None,
    *,
    samples: int = 2000,
) -> Evaluation:
    """Draw ``samples`` pictures and compare them with the real ``images``, of the model's labels.

    Samples are labelled as ``sample_classes`` says, seeds counted up from 0. Distances are
    to all pictures. The probe of the labels and the nearest neighbours know the training part alone
    and are checked on the pictures that the trainer holds out by default. Several processes share
    drawing and features, and each gets the whole report. Shows progress bars. Raises ValueError for
    fewer than MIN_SAMPLES samples.
    """
    if samples < MIN_SAMPLES:
        raise ValueError(f"At least {MIN_SAMPLES} samples are needed, not {samples}.")
    config = config or denoiser.info.sampling
    device = next(denoiser.parameters()).device
    clock = _Clock()
    classes = sample_classes(denoiser.info, images.classes, samples)
    drawn = shrink(draw_samples(denoiser, config, classes), images.image_size)
    clock.lap("drawing")

    training, heldout = _split(images)
    held_pictures = torch.cat(list(batches_of(images, heldout))) if len(heldout) else drawn[:0]
    total = len(images) + 2 * samples + len(heldout)
    with shared_bar(total, of="features") as bar:

        def features_of(count: int, pictures: Callable[[Tensor], Tensor]) -> Tensor:
            """Of ``count`` pictures, which are given by their indices."""

            def work(rows: Tensor) -> Tensor:
                return extract_features(network, [pictures(rows)], device=device)

            return torch.cat(shared_out(torch.arange(count).split(BATCH_SIZE), work, bar, len))

        real = features_of(len(images), lambda rows: next(batches_of(images, rows)))
        generated = features_of(samples, lambda rows: drawn[rows])
        queries = torch.cat([drawn, held_pictures])
        mirrored = features_of(len(queries), lambda rows: queries[rows].flip(3))
    clock.lap("features")

    per_label = {}
    for index, label in enumerate(images.labels):
        ours, theirs = generated[classes == index], real[images.classes == index]
        enough = min(len(ours), len(theirs)) >= MIN_PER_LABEL
        counts = {"pictures": len(theirs), "samples": len(ours)}
        per_label[label] = counts | (
            distances(theirs, ours) if enough else dict.fromkeys(DISTANCES)
        )
    report = {
        "pictures": len(images),
        "samples": samples,
        "image_size": images.image_size,
        "sampling": config.to_dict(),
        "dtype": str(next(denoiser.parameters()).dtype).removeprefix("torch."),
        "device": str(device),
        **distances(real, generated),
        "cat_share": {
            "samples": _share(network.is_cat(generated.to(device))),
            "pictures": _share(network.is_cat(real.to(device))),
        },
    }

    labelled = training[images.classes[training] >= 0]
    accuracy: dict[str, float | None] = {"samples": None, "heldout": None}
    if len(images.labels) > 1 and len(labelled):
        probe = fit_probe(real[labelled], images.classes[labelled])
        right = probe(generated) == classes
        accuracy["samples"] = _share(right[classes >= 0])
        known = heldout[images.classes[heldout] >= 0]
        found = probe(real[known]) == images.classes[known]
        accuracy["heldout"] = _share(found)
        for index, label in enumerate(images.labels):
            per_label[label] |= {
                "accuracy": _share(right[classes == index]),
                "accuracy_heldout": _share(found[images.classes[known] == index]),
            }
    report |= {"label_accuracy": accuracy, "per_label": per_label}

    train_pixels = torch.cat([thumbnails(batch) for batch in batches_of(images, training)])
    neighbours = {
        "features": Neighbours.find(
            torch.cat([generated, real[heldout]]), mirrored, real[training], samples=samples
        ),
        "pixels": Neighbours.find(
            thumbnails(queries), thumbnails(queries.flip(3)), train_pixels, samples=samples
        ),
    }
    report["memorising"] = {kind: found.summary() for kind, found in neighbours.items()}
    rows = [row for found in neighbours.values() for row in found.pairs(drawn, images, training)]
    clock.lap("measuring")
    report["seconds"] = clock.laps
    return Evaluation(report, torch.cat(rows))


def load_real(
    path: str | Path,
    info: CheckpointInfo,
    *,
    labels_csv: str | Path | None = None,
    size: int | None = None,
) -> ImageSet:
    """Pictures to compare a model's with: with its labels, of its size if no smaller one is given,
    and cropped where the trainer crops. Raises ValueError."""
    own = info.picture_size
    size = own if size is None else size
    if not 1 <= size <= own:
        raise ValueError(f"This model's pictures can be compared at 1 to {own} pixels, not {size}.")
    return load_images(
        path,
        image_size=size,
        labels_csv=labels_csv,
        labels=info.labels,
    )


def sample_classes(info: CheckpointInfo, classes: Tensor, num: int) -> Tensor:
    """Class indices of the samples of seeds 0 to ``num`` - 1: those that the seeds choose, as on
    the page; in the proportions of ``classes`` [N] if the checkpoint has no counts of its own."""
    if not info.label_counts:
        return proportional_classes(classes, num)
    return torch.tensor([info.label_index(info.any_label(seed)) for seed in range(num)])


def proportional_classes(classes: Tensor, num: int) -> Tensor:
    """``num`` class indices, sorted, in the proportions of ``classes`` [N], -1 (no label) too."""
    return classes.sort().values[torch.arange(num) * len(classes) // num]


def draw_samples(denoiser: Denoiser, config: SampleConfig, classes: Tensor) -> Tensor:
    """One picture for each of ``classes`` [N] (-1: unlabelled), from seed 0: uint8 [N, 3, S, S]."""
    device = next(denoiser.parameters()).device
    labels = torch.where(classes < 0, denoiser.info.model.num_classes, classes)

    def draw(seeds: Tensor) -> Tensor:
        return generate(denoiser, seeds.tolist(), config, class_labels=labels[seeds].tolist())

    batches = torch.arange(len(classes)).split(256 if device.type == "cuda" else 16)
    with shared_bar(len(classes), of="drawing") as bar:
        return torch.cat(shared_out(batches, draw, bar, len))


def shrink(pictures: Tensor, size: int) -> Tensor:
    """uint8 [N, 3, S, S] -> [N, 3, size, size], just as ``load_images`` makes pictures small."""
    if pictures.shape[-1] == size:
        return pictures
    return torch.stack([from_image(fit_square(to_image(p), size)) for p in pictures])


def distances(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Fréchet and kernel distance, precision and recall of features [N, D] and [M, D]."""
    kid = kernel_distance(generated, real)
    covered = precision_recall(real, generated)
    values = (frechet_distance(real, generated), *kid, *covered)
    return {name: _plain(value) for name, value in zip(DISTANCES, values, strict=True)}


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of features: what ``fit_probe`` returns."""

    mean: Tensor  # [D]
    std: Tensor  # [D]
    weight: Tensor  # [D, classes]
    prior: Tensor  # [classes]

    def __call__(self, features: Tensor) -> Tensor:
        """Features [N, D] -> class indices [N]."""
        scores = (features.double() - self.mean) / self.std @ self.weight + self.prior
        return scores.argmax(dim=1)


def fit_probe(features: Tensor, classes: Tensor, *, penalty: float = 0.1) -> Probe:
    """Ridge regression of one-hot ``classes`` [N] on standardized ``features`` [N, D].

    ``penalty`` is relative to the unit variance of a feature. On the coat labels it is right as
    often as logistic regression, in a hundredth of the time.
    """
    std, mean = torch.std_mean(features.double(), dim=0)
    std = std.clamp(min=1e-6)
    x, y = (features.double() - mean) / std, F.one_hot(classes).double()
    gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return Probe(mean, std, torch.linalg.solve(gram, x.T @ y), y.mean(dim=0))


def thumbnails(pictures: Tensor) -> Tensor:
    """uint8 [N, 3, S, S] -> [N, 3 * 32 * 32], scaled so that a distance is the root mean square
    difference in levels of 255."""
    parts = pictures.split(BATCH_SIZE)  # as floats, all of them may not fit
    small = torch.cat([F.adaptive_avg_pool2d(to_float(p), PIXELS).flatten(1) for p in parts])
    return small * (127.5 / small.shape[1] ** 0.5)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest training picture, mirrored or not, of each sample and each held-out picture."""

    samples: Nearest
    heldout: Nearest
    sample_mirrored: Tensor  # bool [samples]: is the mirror image the nearer one?

    @classmethod
    def find(
        cls, queries: Tensor, mirrored: Tensor, training: Tensor, *, samples: int
    ) -> Neighbours:
        """``queries``: samples, then held-out pictures; ``mirrored``: the same pictures mirrored;
        all as vectors, like ``training``. Mirroring the one or the other comes to the same."""
        plain, mirror = nearest(queries, training), nearest(mirrored, training)
        flipped = mirror.distance < plain.distance
        distance = torch.minimum(plain.distance, mirror.distance)
        index = torch.where(flipped, mirror.index, plain.index)
        ours, theirs = slice(samples), slice(samples, None)
        return cls(
            Nearest(distance[ours], index[ours]),
            Nearest(distance[theirs], index[theirs]),
            flipped[ours],
        )

    def summary(self) -> dict[str, Any]:
        """Quantiles of both distances, and how they compare.

        nearer: probability that a sample lies nearer to the training set than a held-out picture
        does, 0.5 where there is no memory; suspicious: share of the samples that are nearer than
        the nearest 1 % of the held-out pictures, 0.01 where there is no memory.
        """
        ours, theirs = self.samples.distance, self.heldout.distance
        summary = {"samples": _quantiles(ours), "heldout": _quantiles(theirs)}
        if not len(theirs):
            return summary | {"nearer": None, "suspicious": None}
        return summary | {
            "nearer": _plain((ours[:, None] < theirs).double().mean()),
            "suspicious": _share(ours < theirs.quantile(0.01)),
        }

    def pairs(self, drawn: Tensor, images: ImageSet, training: Tensor) -> list[Tensor]:
        """The closest samples, and below them the training pictures: two rows of PAIRS pictures."""
        closest = self.samples.distance.argsort()[:PAIRS]
        theirs = torch.cat(list(batches_of(images, training[self.samples.index[closest]])))
        flipped = self.sample_mirrored[closest][:, None, None, None]
        return [drawn[closest], torch.where(flipped, theirs.flip(3), theirs)]


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.laps[stage], self._last = round(now - self._last, 1), now


def _split(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Indices of the training and the held-out pictures, as the trainer splits them by default."""
    position = {name: i for i, name in enumerate(images.names)}
    training, heldout = (
        torch.tensor([position[name] for name in part.names], dtype=torch.long)
        for part in images.split(TrainConfig.holdout)
    )
    return training, heldout


def batches_of(images: ImageSet, indices: Tensor) -> Iterator[Tensor]:
    """The pictures at ``indices``, a few at once; photos with a crop of each, always the same."""
    for part in indices.split(BATCH_SIZE):
        pictures, _ = images.get(part)
        yield torch.cat([
            random_crop(picture[None], images.image_size, torch.Generator().manual_seed(index))
            for index, picture in zip(part.tolist(), pictures, strict=True)
        ])  # fmt: skip


def _quantiles(values: Tensor) -> dict[str, float] | None:
    if not len(values):
        return None
    at = {"min": 0.0, "p1": 0.01, "p10": 0.1, "median": 0.5}
    return {name: _plain(values.quantile(q)) for name, q in at.items()}


def _share(right: Tensor | None) -> float | None:
    """Share of what is true; None of nothing."""
    return None if right is None or not len(right) else _plain(right.double().mean())


def _plain(value: float | Tensor) -> float:
    """A number for JSON."""
    return round(float(value), 5)
