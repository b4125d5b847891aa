"""Sort unlabelled pictures into groups of a kind, so that a network can be told which it draws.

A network that knows of each picture which group it is from learns more than one that knows nothing
(Hu et al. 2023, "Self-Guided Diffusion Models"; Adaloglou et al. 2024, "Rethinking
cluster-conditioned diffusion models for label-free image synthesis").
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import atomic_path

COMPONENTS = 96  # of the features; the rest is noise to a distance
STARTS = 8  # k-means ends in another place each time: the best of so many


def cluster(features: Tensor, groups: int, *, seed: int = 0) -> Tensor:
    """The group of each row of ``features`` [N, D] >= 0: [N], 0 being the largest group.

    k-means over the directions of the principal components of their square roots, which keeps a
    few strong features from deciding alone. Raises ValueError for fewer pictures than groups.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import normalize
    except ImportError:
        raise ValueError("Grouping needs one more package: pip install scikit-learn") from None
    if not 2 <= groups <= len(features):
        raise ValueError(f"{len(features):,} pictures cannot make {groups} groups.")
    components = min(COMPONENTS, *features.shape)
    roots = features.double().sqrt().numpy()
    reduced = PCA(components, random_state=seed).fit_transform(roots)
    found = KMeans(groups, n_init=STARTS, random_state=seed).fit_predict(normalize(reduced))
    classes = torch.as_tensor(found, dtype=torch.long)
    largest_first = torch.bincount(classes, minlength=groups).argsort(descending=True, stable=True)
    return largest_first.argsort()[classes]


def write_labels(path: str | Path, names: Sequence[str], labels: Sequence[str]) -> None:
    """A CSV file with the columns file and label, as ``load_images`` reads it."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label"), *zip(names, labels, strict=True)])
