"""Training an upscaler on tiny pictures: what it sees, what it learns, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    SMALL,
    UPSCALER,
    Darker,
    latent_denoiser,
    small_autoencoder,
    small_denoiser,
    small_upscaler,
)
from torch.testing import assert_close

from diffusion import TrainConfig
from diffusion.checkpoint import WEIGHTS_NAME, read_tensors
from diffusion.cli.main import main
from diffusion.codec import to_float
from diffusion.codec_file import load_upscaler, save_codec
from diffusion.codecs import reconstruction, upscaler_training
from diffusion.codecs.reconstruction import psnr
from diffusion.codecs.upscaler_training import SETTINGS, UpscalerTraining
from diffusion.data.dataset import ImageSet
from diffusion.training.perceptual import PerceptualDistance
from diffusion.training.run_folder import STATE_NAME
from diffusion.training.trainer import Trainer, step_generators

CPU = torch.device("cpu")
SIZE = 32


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(upscaler_training, "CROP", 16)
    monkeypatch.setattr(reconstruction, "LOOK", 12)


def settings(**changes) -> TrainConfig:
    values = {"images": 32, "warmup_images": 0, "ema_halflife_images": 8, "precision": "fp32"}
    return TrainConfig.from_dict({**SETTINGS, **values, **changes})


def redrawn_of(images: ImageSet) -> torch.Tensor:
    """As if a model had drawn them darker: float16 [N, 3, 16, 16]."""
    return (F.avg_pool2d(to_float(images.pixels), 2) - 3).half()


def training(images: ImageSet, config: TrainConfig | None = None, **options) -> UpscalerTraining:
    options = {"redrawn": redrawn_of(images), "perceptual": Darker(), **options}
    return UpscalerTraining(config or settings(), UPSCALER, images, **options)


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


def test_it_sees_crops_and_their_small_ones_shrunk_or_redrawn(images, monkeypatch):
    monkeypatch.setattr(upscaler_training, "NOISE", 0.0)
    objective, config = training(images), settings(batch_size=16)
    crops, small, looks = prepared(objective, config)
    assert (crops.shape, small.shape, looks.shape) == ((16, 3, 16, 16), (16, 3, 8, 8), (16, 2))
    pictures = to_float(objective.images.pixels)
    assert all(any(holds(picture, crop, 2) for picture in pictures) for crop in crops)
    assert 0 <= looks.min() <= looks.max() <= 4
    redrawn = small.flatten(1).mean(1) < -1.5
    assert 3 < redrawn.sum() < 13
    assert_close(small[~redrawn], F.avg_pool2d(crops[~redrawn], 2))
    assert_close(small[redrawn], F.avg_pool2d(crops[redrawn], 2) - 3, rtol=0, atol=0.01)


def test_the_small_ones_have_a_little_noise_of_different_levels(images, monkeypatch):
    objective, config = training(images), settings(batch_size=16)
    _, noisy, _ = prepared(objective, config)
    monkeypatch.setattr(upscaler_training, "NOISE", 0.0)
    _, clean, _ = prepared(objective, config)
    levels = (noisy - clean).flatten(1).std(dim=1)
    assert 0 < levels.min() < 0.02 < 0.04 < levels.max() < 0.07


def test_the_loss_is_of_pixels_and_of_what_people_see(images):
    objective = training(images)
    objective.network.load_state_dict(small_upscaler().state_dict())
    crops, small, looks = prepared(objective)
    enlarged = objective.network(small)
    seen = torch.stack([
        (crops - enlarged)[i, :, y : y + 12, x : x + 12].mean()
        for i, (y, x) in enumerate(looks.tolist())
    ])  # fmt: skip
    expected = (enlarged - crops).abs().mean(dim=(1, 2, 3)) + 0.5 * seen
    assert_close(objective.loss(crops, small, looks), expected)


def test_it_learns_to_enlarge(images, tmp_path, monkeypatch):
    monkeypatch.setattr(reconstruction, "PERCEPTUAL_WEIGHT", 0.0)
    monkeypatch.setattr(upscaler_training, "NOISE", 0.0)
    config = settings(images=240, batch_size=8, lr=3e-3, muon_lr=1e-2)
    blocks = torch.randint(0, 256, (len(images), 3, SIZE // 2, SIZE // 2), dtype=torch.uint8)
    blocks = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)  # bicubic makes them soft
    small = to_float(blocks[:, :, ::2, ::2]).half()
    objective = training(replace(images, pixels=blocks), config, redrawn=small)
    objective.to(CPU)
    before = objective.heldout(objective.network)
    trainer = Trainer(config, objective, tmp_path)
    assert trainer.train()
    assert psnr(trainer.progress.last_loss) > psnr(before) + 2
    saved = load_upscaler(tmp_path / WEIGHTS_NAME)
    assert saved.config == UPSCALER
    assert read_tensors(tmp_path / WEIGHTS_NAME)[1]["images_seen"] == 240


def test_a_stopped_run_goes_on_to_the_same_weights(images, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert Trainer(settings(), training(images), whole).train()
    asked = iter(range(99))
    assert not Trainer(settings(), training(images), broken).train(stop=lambda: next(asked) == 3)
    assert Trainer(settings(), training(images), broken).train()
    one, other = (read_tensors(run / STATE_NAME)[0] for run in (whole, broken))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="other"):
        Trainer(settings(), training(images, redrawn_by="another"), broken)


def test_pictures_that_have_changed_are_told_of(images, tmp_path, capsys):
    assert Trainer(settings(), training(images), tmp_path).train()
    other = replace(images, digests=("new", *images.digests[1:]))
    assert Trainer(settings(), training(other), tmp_path).train()
    assert "The pictures of this run have changed: 1" in capsys.readouterr().err


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr(PerceptualDistance, "load", staticmethod(Darker))
    path = tmp_path / "small.safetensors"
    small_denoiser(replace(SMALL, num_classes=2)).save(path)
    return str(path)


def command(folder: Path, model: str, out: Path, *more: str) -> list[str]:
    start = ["train-upscaler", "--data", str(folder), "--model", model, "--out", str(out)]
    return [*start, "--images", "8", *more]


def test_the_model_redraws_and_the_upscaler_learns(folder, model, tmp_path, capsys):
    out, shown = tmp_path / "run", tmp_path / "shown.safetensors"
    assert main(command(folder, model, out)) == 0
    told = capsys.readouterr().err
    assert "Finished: 8 images" in told
    assert "dB" in told
    assert read_tensors(out / "redrawn" / "0000000.safetensors")[0]["x0"].shape == (24, 3, 8, 8)
    assert load_upscaler(out / WEIGHTS_NAME).config.factor == 2
    put = ["codec", "--checkpoint", model, "--codec", str(out / WEIGHTS_NAME), "--out", str(shown)]
    assert main(put) == 0
    assert main(["inspect", str(shown)]) == 0
    assert "16" in capsys.readouterr().out


def test_it_goes_on_from_an_upscaler_and_enlarges_four_times(folder, model, tmp_path):
    out = tmp_path / "four"
    assert main(command(folder, model, out, "--factor", "4")) == 0
    assert load_upscaler(out / WEIGHTS_NAME).config.factor == 4
    more = command(folder, model, tmp_path / "more", "--init", str(out / WEIGHTS_NAME))
    assert main([*more, "--factor", "2"]) == 1
    assert main(more) == 0
    assert load_upscaler(tmp_path / "more" / WEIGHTS_NAME).config.factor == 4


def test_every_mistake_is_a_sentence(folder, model, tmp_path, capsys):
    codec, latent = tmp_path / "codec.safetensors", tmp_path / "latent.safetensors"
    save_codec(small_autoencoder(), codec)
    latent_denoiser().save(latent)
    large = tmp_path / "large.safetensors"
    four = small_upscaler(replace(UPSCALER, factor=4))
    small_denoiser(replace(SMALL, num_classes=2)).decoded_by(four).save(large)
    for arguments, words in (
        (command(folder, "nobody", tmp_path), "There is no checkpoint 'nobody'"),
        (command(folder, str(latent), tmp_path), "draws latents, which an upscaler cannot"),
        (command(folder, model, tmp_path, "--init", str(codec)), "an autoencoder, not an upscaler"),
        (command(folder, model, tmp_path, "--factor", "3"), "--factor"),
        (command(folder, str(large), tmp_path), "draws 32 pixels already"),
        (command(tmp_path / "none", model, tmp_path), "none"),
    ):
        assert main(arguments) in (1, 2)
        assert words in capsys.readouterr().err
