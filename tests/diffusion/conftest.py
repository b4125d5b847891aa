"""Fixtures of this folder."""

import pytest
from drawing import cats, write_labels, write_zip
from training_runs import LABELS

from diffusion import objectives


@pytest.fixture
def one_sample(monkeypatch):
    """Runs draw a single sample at each checkpoint."""
    monkeypatch.setattr(objectives, "SAMPLE_SEEDS", (0,))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A zip of 24 cats, some with a label, and the labels."""
    root = tmp_path_factory.mktemp("pictures")
    labels = {f"cat-{i:03d}.png": LABELS[i % 2] for i in range(16)}
    return write_zip(root / "cats.zip", cats(24)), write_labels(root / "labels.csv", labels)
