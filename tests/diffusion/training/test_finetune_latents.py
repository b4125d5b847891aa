"""Fine-tuning a model of latents: photos are encoded once, what the base draws stays latents."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawing import cats, write_zip
from helpers import LATENT, latent_denoiser

from diffusion import Denoiser
from diffusion.checkpoint import WEIGHTS_NAME, read_checkpoint, read_tensors
from diffusion.config import FinetuneConfig
from diffusion.data.dataset import load_images
from diffusion.data.latents import LATENTS_NAME, as_latents
from diffusion.sampling import generate
from diffusion.training import finetune, replays
from diffusion.training.finetune import likeliest_label
from diffusion.training.replays import draw_replays, mix
from diffusion.training.run_folder import STATE_NAME

CONFIG = FinetuneConfig(label="Mia", images=64, batch_size=4)


@pytest.fixture(autouse=True)
def _few_replays(monkeypatch):
    monkeypatch.setattr(replays, "REPLAYS", 6)
    monkeypatch.setattr(finetune, "SAMPLES", 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("base") / "latent.safetensors"
    guide = replace(LATENT, channels=4, num_classes=0)
    latent_denoiser(replace(LATENT, num_classes=2), guide=guide).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_zip(tmp_path_factory.mktemp("photos") / "mia.zip", cats(16))


@pytest.fixture
def latents(base, photos, tmp_path):
    images = load_images(photos, image_size=16, photos=False)
    return as_latents(replace(images, classes=torch.full((16,), 2)), base, tmp_path)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(base, photos, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert finetune.finetune(base, photos, whole, CONFIG)
    steps = iter(range(10**6))
    assert not finetune.finetune(base, photos, broken, CONFIG, stop=lambda: next(steps) == 6)
    encoded = (broken / LATENTS_NAME).read_bytes()
    assert finetune.finetune(base, photos, broken, CONFIG)
    assert (broken / LATENTS_NAME).read_bytes() == encoded
    one, other = (read_tensors(run / STATE_NAME)[0] for run in (whole, broken))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_network_learns_and_codec_and_guide_stay(base, photos, tmp_path):
    assert finetune.finetune(base, photos, tmp_path / "run", CONFIG)
    before, _ = read_checkpoint(base)
    after, info = read_checkpoint(tmp_path / "run" / WEIGHTS_NAME)
    assert info.labels == ("label 0", "label 1", "Mia")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "conv_in.weight" in changed
    assert not [name for name in changed if name.startswith(("codec.", "guide."))]
    assert generate(Denoiser.load(tmp_path / "run" / WEIGHTS_NAME), [1]).shape == (1, 3, 16, 16)


def test_replays_are_what_the_base_would_show(base, latents):
    denoiser = Denoiser.load(base)
    made = draw_replays(denoiser, latents)
    assert made.latents.shape == (2, 6, 4, 4, 4)
    assert made.classes.tolist() == [0, 1, -1, 0, 1, -1]
    shown = generate(denoiser, [replays.REPLAY_SEED + 3], class_labels=[0])
    decoded = denoiser.codec.decode(made.latents[1, 3:4].float())
    assert (decoded.int() - shown.int()).abs().max() <= 1  # half precision
    mixed = mix(latents, made, 0.2)
    assert mixed.latents.shape[:2] == (2, len(mixed.names))
    assert sum(name.startswith("replay-") for name in mixed.names) / len(mixed) == 0.2


def test_the_likeliest_label_is_looked_for_in_latents(base, latents):
    denoiser = Denoiser.load(base)
    asked = []
    loss = denoiser.loss
    denoiser.loss = lambda x0, *rest: asked.append(x0) or loss(x0, *rest)
    assert likeliest_label(denoiser, latents, CONFIG.training()) in (0, 1, 2)
    assert torch.equal(asked[0][0], latents.latents[0, 0].float())
