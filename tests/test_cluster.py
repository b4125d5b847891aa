"""Groups of pictures: those that are there are found, the same each time, the largest first."""

import sys

import pytest
import torch

from diffusion.cluster import cluster, write_labels
from diffusion.data import read_labels


def blobs(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around a centre of its own for each group, shuffled, and the groups."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    groups = groups[torch.randperm(len(groups), generator=generator)]
    centres = 4 * torch.rand(len(counts), 40, generator=generator)
    noise = 0.1 * torch.randn(len(groups), 40, generator=generator)
    return (centres[groups] + noise).clamp(min=0), groups


def test_groups_that_are_there_are_found_the_largest_first():
    features, groups = blobs([30, 50, 20])
    expected = torch.tensor([1, 0, 2])[groups]
    assert torch.equal(cluster(features, 3), expected)
    assert torch.equal(cluster(features, 3), expected)


def test_there_are_as_many_groups_as_were_asked_for():
    features, _ = blobs([30, 30])
    sizes = torch.bincount(cluster(features, 7), minlength=7)
    assert len(sizes) == 7
    assert sizes.min() > 0
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)


@pytest.mark.parametrize("groups", [-1, 0, 1, 61])
def test_an_impossible_number_of_groups_is_a_sentence(groups):
    with pytest.raises(ValueError, match=f"^60 pictures cannot make {groups} groups"):
        cluster(blobs([30, 30])[0], groups)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ValueError, match="pip install scikit-learn"):
        cluster(blobs([30, 30])[0], 2)


def test_the_labels_are_read_back(tmp_path):
    path = tmp_path / "labels.csv"
    write_labels(path, ["a/b, c.png", "d.png"], ["one", "two, more"])
    assert read_labels(path) == {"a/b, c.png": "one", "d.png": "two, more"}
