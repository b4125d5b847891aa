"""How far two sets of pictures are apart: pure functions of feature matrices [N, D].

All compute in float64: the distances are small differences of large sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 1024  # of a distance or kernel matrix in memory at once


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to ``a`` [N, D] and ``b`` [M, D], 0 or more.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` (Heusel et al. 2017, Eq. 6). With factors
    ``C = R^T R``, the trace of the root is the sum of the singular values of ``R_a R_b^T``. The
    fewer pictures, the larger the distance: compare only figures for like numbers.
    """
    (mean_a, factor_a), (mean_b, factor_b) = _gaussian(a), _gaussian(b)
    root = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    spread = factor_a.square().sum() + factor_b.square().sum() - 2 * root
    return max(0.0, float((mean_a - mean_b).square().sum() + spread))


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and a factor R with covariance R^T R."""
    features = features.double()
    mean = features.mean(dim=0)
    _, factor = torch.linalg.qr((features - mean) / (len(features) - 1) ** 0.5, mode="r")
    return mean, factor


class KernelDistance(NamedTuple):
    """A kernel distance, and its standard deviation over random subsets."""

    value: float
    spread: float


def kernel_distance(
    a: Tensor, b: Tensor, *, subsets: int = 20, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Squared MMD of ``a`` [N, D] and ``b`` [M, D] with the kernel ``(x·y / D + 1)^3``, x 1000.

    Unbiased (Bińkowski et al. 2018, "KID"; Gretton et al. 2012, Eq. 3), so that it can be negative
    and does not depend on N and M. The value uses all pictures; the spread is over ``subsets``
    draws of ``subset_size`` from both, or of half of the smaller set where that is less.
    """
    a, b = a.double(), b.double()
    size = min(subset_size, len(a) // 2, len(b) // 2)
    generator = torch.Generator().manual_seed(seed)

    def draw(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:size]]

    values = [_squared_mmd(draw(a), draw(b)) for _ in range(subsets)] if size > 1 else []
    spread = torch.tensor(values).std(correction=0) if values else float("nan")
    return KernelDistance(1000 * _squared_mmd(a, b), 1000 * float(spread))


def _squared_mmd(a: Tensor, b: Tensor) -> float:
    within = [_kernel_sum(x, x) - _kernel(x.square().sum(1), x.shape[1]).sum() for x in (a, b)]
    pairs_a, pairs_b = len(a) * (len(a) - 1), len(b) * (len(b) - 1)
    between = _kernel_sum(a, b) / (len(a) * len(b))
    return float(within[0] / pairs_a + within[1] / pairs_b - 2 * between)


def _kernel(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + 1) ** 3


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    """Sum of the kernel over all pairs."""
    sums = (_kernel(rows @ b.T, a.shape[1]).sum() for rows in a.split(ROWS))
    return sum(sums, start=a.new_zeros(()))


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1."""

    precision: float  # of the generated pictures that look like real ones
    recall: float  # of the real pictures that could have been generated


def precision_recall(real: Tensor, generated: Tensor, *, neighbours: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, Eq. 1 and 2).

    A picture counts if it lies within the ball around any picture of the other set that reaches to
    that one's k-th nearest neighbour in its own set, [N, D] and [M, D]. Both depend on N and M.
    """
    real, generated = real.double(), generated.double()
    return PrecisionRecall(
        _share_covered(generated, real, neighbours), _share_covered(real, generated, neighbours)
    )


def _share_covered(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """Share of ``points`` within the balls of ``centres``."""
    kth = min(neighbours + 1, len(centres))  # each is the nearest to itself
    among = [torch.cdist(rows, centres).kthvalue(kth).values for rows in centres.split(ROWS)]
    radii = torch.cat(among)
    inside = [(torch.cdist(rows, centres) <= radii).any(dim=1) for rows in points.split(ROWS)]
    return float(torch.cat(inside).double().mean())


class Nearest(NamedTuple):
    """For each query its nearest reference."""

    distance: Tensor  # [N], Euclidean
    index: Tensor  # type: ignore[assignment]  # [N], int64; hides tuple.index


def nearest(queries: Tensor, references: Tensor) -> Nearest:
    """The nearest of ``references`` [M, D] to each of ``queries`` [N, D]."""
    found = [torch.cdist(rows, references).argmin(dim=1) for rows in queries.split(ROWS)]
    index = torch.cat(found)
    # Anew, since cdist loses the last digits of small distances.
    return Nearest((queries - references[index]).norm(dim=1), index)
