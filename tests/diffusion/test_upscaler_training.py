"""Training an upscaler on tiny pictures: what it sees, and what it and its critic learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from drawing import cats, write_folder
from helpers import (
    UPSCALER,
    latent_denoiser,
    small_autoencoder,
    small_denoiser,
    small_upscaler,
)
from torch import nn
from torch.testing import assert_close

from diffusion import TrainConfig, generate, upscaler_training
from diffusion.checkpoint import WEIGHTS_NAME, read_tensors
from diffusion.cli import main
from diffusion.codec import to_float, to_uint8
from diffusion.codec_file import load_upscaler, save_codec
from diffusion.critic import Critic
from diffusion.data import ImageSet, load_images
from diffusion.perceptual import PerceptualDistance
from diffusion.reconstruction import psnr
from diffusion.run_folder import STATE_NAME
from diffusion.trainer import Trainer, step_generators
from diffusion.trajectories import FIRST_SEED
from diffusion.upscaler_training import SETTINGS, UpscalerTraining

CPU = torch.device("cpu")
SIZE = 32


class Darker(nn.Module):
    """A distance of its own: how much darker the first picture is."""

    def forward(self, pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (targets - pictures).mean(dim=(1, 2, 3))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(upscaler_training, "CROP", 16)
    monkeypatch.setattr(upscaler_training, "LOOK", 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("cats"), cats(24, SIZE))


@pytest.fixture(scope="module")
def images(folder) -> ImageSet:
    return load_images(folder, image_size=SIZE, photos=False)


def settings(**changes) -> TrainConfig:
    values = {"images": 32, "warmup_images": 0, "ema_halflife_images": 8, "precision": "fp32"}
    return TrainConfig.from_dict({**SETTINGS, **values, **changes})


def drawn(size: int = SIZE // 2) -> torch.Tensor:
    return (torch.rand(10, 3, size, size, generator=torch.Generator().manual_seed(5)) - 0.5).half()


def training(images: ImageSet, config: TrainConfig | None = None, **options) -> UpscalerTraining:
    config = config or settings()
    return UpscalerTraining(config, UPSCALER, images, drawn(), perceptual=Darker(), **options)


def prepared(objective: UpscalerTraining, config: TrainConfig | None = None, *, step: int = 0):
    config = config or settings()
    objective.to(CPU)
    batch = next(objective.batches(config, first_step=step, share=slice(None)))
    return objective.prepare(batch, config, *step_generators(0, step, 0, CPU))


def holds(picture: torch.Tensor, crop: torch.Tensor, grid: int) -> bool:
    """Whether a crop is found in a picture, or in its mirror image, on a grid."""
    side, room = crop.shape[-1], picture.shape[-1] - crop.shape[-1]
    return any(
        torch.equal(crop, version[:, top : top + side, left : left + side])
        for version in (picture, picture.flip(2))
        for top in range(0, room + 1, grid)
        for left in range(0, room + 1, grid)
    )


def test_it_sees_crops_their_small_ones_with_noise_and_drawn_ones(images, monkeypatch):
    objective = training(images)
    crops, small, drawn_ones, looks = prepared(objective, settings(batch_size=8))
    assert (crops.shape, small.shape, drawn_ones.shape) == ((8, 3, 16, 16), *[(8, 3, 8, 8)] * 2)
    pictures = to_float(objective.images.pixels)
    assert all(any(holds(picture, crop, 2) for picture in pictures) for crop in crops)
    source = drawn().float()
    assert all(any(holds(one, crop, 1) for one in source) for crop in drawn_ones)
    levels = (small - F.avg_pool2d(crops, 2)).flatten(1).std(dim=1)
    assert 0 < levels.min() < levels.max() < 0.08
    assert (looks.min() >= 0, looks.max() <= 4) == (True, True)
    monkeypatch.setattr(upscaler_training, "NOISE", 0.0)
    crops, small, *_ = prepared(objective)
    assert torch.equal(small, F.avg_pool2d(crops, 2))


def test_the_loss_is_the_sum_of_its_parts(images):
    objective = training(images)
    duel = objective.network.eval()  # so that spectral normalization stays as it is
    duel.upscaler.load_state_dict(small_upscaler().state_dict())
    crops, small, drawn_ones, looks = prepared(objective)
    loss = objective.loss(crops, small, drawn_ones, looks)
    enlarged, redrawn = duel.upscaler(small), duel.upscaler(drawn_ones[::2])
    fakes = torch.cat([enlarged, redrawn])
    real, fake = duel.critic(crops), duel.critic(fakes)
    seen = torch.stack([
        (crops - enlarged)[i, :, y : y + 12, x : x + 12].mean()
        for i, (y, x) in enumerate(looks.tolist())
    ])  # fmt: skip
    expected = (
        (enlarged - crops).abs().mean(dim=(1, 2, 3))
        + 0.5 * seen
        + 0.25 * (F.avg_pool2d(redrawn, 2) - drawn_ones[::2]).abs().mean()
        - 0.1 * fake.mean()
        + F.relu(1 - real).mean(1)
        + F.relu(1 + fake).mean()
    )
    assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_critic_and_upscaler_each_learn_from_their_own_part():
    critic, decoded = Critic(), torch.rand(2, 3, 16, 16, requires_grad=True)
    critic.disbelief(decoded).sum().backward()
    assert decoded.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critic.parameters())
    decoded.grad = None
    real, fake = critic.loss(torch.rand(3, 3, 16, 16), decoded)
    assert (real.shape, fake.shape) == ((3,), (2,))
    (real.sum() + fake.sum()).backward()
    assert decoded.grad is None
    assert all(parameter.grad is not None for parameter in critic.parameters())


def test_a_critic_learns_what_is_real():
    critic = Critic()
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    smooth = F.interpolate(torch.rand(8, 3, 2, 2), 16, mode="bilinear")
    rough = torch.rand(8, 3, 16, 16)
    for _ in range(30):
        told, fake = critic.loss(smooth, rough)
        (told.mean() + fake.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert critic(smooth).mean() > critic(rough).mean() + 0.5
    assert (critic.disbelief(smooth) < critic.disbelief(rough)).all()


def test_it_learns_to_enlarge(images, tmp_path, monkeypatch):
    monkeypatch.setattr(upscaler_training, "PERCEPTUAL_WEIGHT", 0.0)
    monkeypatch.setattr(upscaler_training, "CRITIC_WEIGHT", 0.0)
    monkeypatch.setattr(upscaler_training, "NOISE", 0.0)
    config = settings(images=240, batch_size=8, lr=3e-3, muon_lr=1e-2)
    blocks = torch.randint(0, 256, (len(images), 3, SIZE // 2, SIZE // 2), dtype=torch.uint8)
    blocks = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)  # bicubic makes them soft
    objective = training(replace(images, pixels=blocks), config)
    objective.to(CPU)
    before = objective.heldout(objective.network)
    trainer = Trainer(config, objective, tmp_path)
    assert trainer.train()
    assert psnr(trainer.progress.last_loss) > psnr(before) + 2
    saved = load_upscaler(tmp_path / WEIGHTS_NAME)
    assert not any("critic" in name for name in saved.state_dict())
    assert read_tensors(tmp_path / WEIGHTS_NAME)[1]["images_seen"] == 240


def test_a_stopped_run_goes_on_to_the_same_weights(images, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert Trainer(settings(), training(images), whole).train()
    asked = iter(range(99))
    assert not Trainer(settings(), training(images), broken).train(stop=lambda: next(asked) == 3)
    assert Trainer(settings(), training(images), broken).train()
    one, other = (read_tensors(run / STATE_NAME)[0] for run in (whole, broken))
    assert any("critic" in name for name in one)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="other"):
        Trainer(settings(), training(images, drawn_by="another"), broken)


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr(PerceptualDistance, "load", staticmethod(Darker))
    path = tmp_path / "small.safetensors"
    small_denoiser().save(path)
    return str(path)


def command(folder: Path, model: str, out: Path, *more: str) -> list[str]:
    start = ["train-upscaler", "--data", str(folder), "--model", model, "--out", str(out)]
    return [*start, "--seeds", "3", "--images", "8", *more]


def test_the_model_draws_and_the_upscaler_learns(folder, model, tmp_path, capsys):
    out, shown = tmp_path / "run", tmp_path / "shown.safetensors"
    assert main(command(folder, model, out)) == 0
    told = capsys.readouterr().err
    assert "Finished: 8 images" in told
    assert "dB" in told
    states = read_tensors(out / "drawn" / "0000000.safetensors")[0]["states"]
    assert states.shape == (1, 3, 3, 8, 8)
    expected = generate(small_denoiser(), [FIRST_SEED, FIRST_SEED + 1])
    assert (to_uint8(states[0, :2]).int() - expected.int()).abs().max() <= 1
    assert load_upscaler(out / WEIGHTS_NAME).config.factor == 2
    put = ["codec", "--checkpoint", model, "--codec", str(out / WEIGHTS_NAME), "--out", str(shown)]
    assert main(put) == 0
    assert main(command(folder, model, out, "--images", "12")) == 0
    assert main(["inspect", str(shown)]) == 0
    assert "16" in capsys.readouterr().out


def test_it_goes_on_from_an_upscaler_and_enlarges_four_times(folder, model, tmp_path):
    out = tmp_path / "four"
    assert main(command(folder, model, out, "--factor", "4")) == 0
    assert load_upscaler(out / WEIGHTS_NAME).config.factor == 4
    more = command(folder, model, tmp_path / "more", "--init", str(out / WEIGHTS_NAME))
    assert main(more) == 0
    assert load_upscaler(tmp_path / "more" / WEIGHTS_NAME).config.factor == 4
    assert json.loads((tmp_path / "more" / "run.json").read_text())


def test_every_mistake_is_a_sentence(folder, model, tmp_path, capsys):
    codec, latent = tmp_path / "codec.safetensors", tmp_path / "latent.safetensors"
    save_codec(small_autoencoder(), codec)
    latent_denoiser().save(latent)
    for arguments, words in (
        (command(folder, "nobody", tmp_path), "There is no checkpoint 'nobody'"),
        (command(folder, str(latent), tmp_path), "draws latents, which an upscaler cannot"),
        (command(folder, model, tmp_path, "--init", str(codec)), "an autoencoder, not an upscaler"),
        (command(folder, model, tmp_path, "--factor", "3"), "--factor"),
        (command(tmp_path / "none", model, tmp_path), "none"),
    ):
        assert main(arguments) in (1, 2)
        assert words in capsys.readouterr().err
