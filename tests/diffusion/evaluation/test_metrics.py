"""Distances between feature sets, against exact answers and torch-fidelity."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from diffusion.evaluation import metrics
from diffusion.evaluation.metrics import (
    frechet_distance,
    kernel_distance,
    nearest,
    precision_recall,
)


def features(num: int, *, seed: int, dimensions: int = 6, shift: float = 0.0) -> torch.Tensor:
    """Correlated features whose scales differ."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.linspace(-1, 1, dimensions**2, dtype=torch.float64).reshape(dimensions, -1).cos()
    mix = mix + torch.eye(dimensions)
    return torch.randn(num, dimensions, generator=generator, dtype=torch.float64) @ mix + shift


def with_moments(mean: torch.Tensor, covariance: torch.Tensor, num: int, seed: int = 0):
    """Features with exactly this mean and sample covariance."""
    x = features(num, seed=seed, dimensions=len(mean)) + torch.randn(num, len(mean)).double() / 5
    x = x - x.mean(dim=0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (num - 1)))
    return mean + x @ whiten.T @ torch.linalg.cholesky(covariance).T


def test_the_frechet_distance_of_gaussians_that_commute_is_known():
    """|m_a - m_b|^2 + sum of (s_a - s_b)^2, in the common eigenvectors."""
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    mean_a, mean_b = torch.randn(2, 4, dtype=torch.float64)
    std_a, std_b = torch.tensor([[0.5, 1.0, 2.0, 3.0], [1.5, 1.0, 0.1, 4.0]], dtype=torch.float64)
    a = with_moments(mean_a, turn @ torch.diag(std_a**2) @ turn.T, 50)
    b = with_moments(mean_b, turn @ torch.diag(std_b**2) @ turn.T, 70, seed=1)
    exact = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(exact), rel=1e-9)


def test_the_frechet_distance_of_any_two_by_two_gaussians_is_known():
    """For 2x2 matrices tr (AB)^(1/2) = sqrt(tr AB + 2 sqrt(det AB))."""
    zero = torch.zeros(2, dtype=torch.float64)
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.4], [-0.4, 3.0]], dtype=torch.float64)
    root = ((a @ b).trace() + 2 * torch.linalg.det(a @ b).sqrt()).sqrt()
    exact = float(a.trace() + b.trace() - 2 * root)
    found = frechet_distance(with_moments(zero, a, 30), with_moments(zero, b, 40, seed=2))
    assert found == pytest.approx(exact, rel=1e-9)


def test_the_frechet_distance_agrees_with_torch_fidelity():
    a, b = features(200, seed=0), features(150, seed=1, shift=0.3)
    statistics = [fid_features_to_statistics(x) for x in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-6)


def test_fewer_pictures_than_features_have_a_frechet_distance_too():
    """Where the square root of the product of covariances is of a singular matrix."""
    a, b = features(8, seed=0, dimensions=20), features(5, seed=1, dimensions=20)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 20, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_the_kernel_distance_summed_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    b = torch.tensor([[2.0, 0.0], [1.0, -1.0]])
    k = lambda x, y: (float(x @ y) / 2 + 1) ** 3  # noqa: E731 - as in the formula
    exact = (
        2 * (k(a[0], a[1]) + k(a[0], a[2]) + k(a[1], a[2])) / 6
        + 2 * k(b[0], b[1]) / 2
        - 2 * sum(k(x, y) for x in a for y in b) / 6
    )
    assert kernel_distance(a, b).value == pytest.approx(1000 * exact, rel=1e-9)


def test_the_kernel_distance_is_summed_over_blocks(monkeypatch):
    a, b = features(50, seed=0), features(41, seed=1, shift=0.2)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(metrics, "ROWS", 7)
    assert_close(torch.tensor(kernel_distance(a, b)), torch.tensor(whole), rtol=1e-9, atol=0)


def test_the_kernel_distance_agrees_with_torch_fidelity():
    a, b = features(60, seed=0), features(60, seed=1, shift=0.3)
    options = {"kid_subsets": 1, "kid_subset_size": 60, "verbose": False}
    theirs = kid_features_to_metric(a, b, **options)["kernel_inception_distance_mean"]
    assert kernel_distance(a, b).value == pytest.approx(1000 * theirs, rel=1e-6)


def test_the_kernel_distance_of_one_distribution_is_zero_on_average_at_any_size():
    """Unbiased: with few pictures it is noisy, not large."""
    for num in (10, 40):
        sets = [features(num, seed=seed) for seed in range(200)]
        pairs = zip(sets[::2], sets[1::2], strict=True)
        values = torch.tensor([kernel_distance(a, b, subsets=0).value for a, b in pairs])
        assert abs(values.mean()) < 3 * values.std() / 10
        assert (values < 0).any()


def test_the_spread_is_that_of_subsets():
    a, b = features(400, seed=0), features(400, seed=1, shift=0.5)
    few, many = (kernel_distance(a, b, subset_size=size).spread for size in (20, 150))
    assert few > 1.5 * many > 0
    assert kernel_distance(a, b) == kernel_distance(a, b)
    assert torch.tensor(kernel_distance(a[:2], b[:2]).spread).isnan()


def test_precision_and_recall_of_points_on_a_line():
    """k = 1: real balls reach 1 from 0 and 1, and 8 from 9; generated 1 from 8.5 and 9.5, 10
    from 19.5."""
    real = torch.tensor([[0.0], [1.0], [9.0]])
    generated = torch.tensor([[8.5], [9.5], [19.5]])
    found = precision_recall(real, generated, neighbours=1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(1 / 3)


def test_identical_and_distant_sets_have_everything_and_nothing_in_common():
    a = features(40, seed=0)
    assert precision_recall(a, a.clone()) == (1, 1)
    assert precision_recall(a, a + 1000) == (0, 0)
    narrow = a.mean(dim=0) + (a - a.mean(dim=0)) / 50
    found = precision_recall(a, narrow)
    assert found.precision == 1
    assert found.recall < 0.2


def test_precision_and_recall_agree_with_torch_fidelity(monkeypatch):
    real, generated = features(80, seed=0), features(50, seed=1, shift=0.8)
    options = {"prc_neighborhood": 3, "prc_batch_size": 1000, "save_cpu_ram": False}
    theirs = prc_features_to_metric(generated, real, verbose=False, **options)
    monkeypatch.setattr(metrics, "ROWS", 7)
    found = precision_recall(real, generated)
    assert 0.1 < found.recall < 0.9
    assert 0.1 < found.precision < 0.9
    assert found == pytest.approx((theirs["precision"], theirs["recall"]))


def test_the_nearest_is_the_nearest(monkeypatch):
    monkeypatch.setattr(metrics, "ROWS", 3)
    references = torch.randn(20, 5)
    order = torch.randperm(20)[:8]
    found = nearest(references[order] + 0.001, references)
    assert_close(found.index, order)
    assert_close(found.distance, torch.full((8,), 0.001 * 5**0.5), rtol=1e-3, atol=0)


def test_a_copy_is_at_distance_zero_among_large_numbers():
    references = torch.randn(50, 2000) + 100
    assert not nearest(references[7:9], references).distance.any()
