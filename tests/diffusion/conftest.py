"""Fixtures of this folder."""

import pytest
from drawing import cats, write_labels, write_zip
from studio_fixtures import save_tiny
from training_runs import LABELS

from diffusion.training import finetune, objectives, replays


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


@pytest.fixture
def few_replays(monkeypatch):
    """A fine-tuning draws 2 replays of each of the tiny model's labels, and of none."""
    monkeypatch.setattr(replays, "REPLAYS", 6)
    monkeypatch.setattr(finetune, "SAMPLES", 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The file of a tiny model, to be taught a cat."""
    return save_tiny(tmp_path_factory.mktemp("base") / "tiny.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A zip of 24 pictures of a cat called Mia."""
    return write_zip(tmp_path_factory.mktemp("photos") / "mia.zip", cats(24))
