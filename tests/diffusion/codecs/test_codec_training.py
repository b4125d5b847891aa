"""Training a codec on tiny pictures: what each half learns, and from which latents."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import refused
from helpers import AUTOENCODER, Darker, small_autoencoder
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from diffusion import TrainConfig, device
from diffusion.checkpoint import WEIGHTS_NAME, read_tensors
from diffusion.cli.main import main
from diffusion.codec import LatentCodec, to_float
from diffusion.codec_file import load_codec, save_codec
from diffusion.codecs import codec_training, reconstruction
from diffusion.codecs.codec_training import SETTINGS, CodecTraining, new_autoencoder
from diffusion.codecs.reconstruction import cut, psnr
from diffusion.data.dataset import ImageSet
from diffusion.training.perceptual import PerceptualDistance
from diffusion.training.run_folder import METRICS_NAME, STATE_NAME, grid_path
from diffusion.training.trainer import Trainer, step_generators

CPU = torch.device("cpu")
SIZE, SHAPE = 32, (4, 8, 8)  # of the pictures, and of their latents
FAST = {"images": 200, "batch_size": 8, "lr": 5e-3, "muon_lr": 1e-2}


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """What is compared digit by digit is drawn in float32, on processors with fast bf16 too."""
    monkeypatch.setattr(device, "fast_bf16", lambda device: False)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(codec_training, "CROP", 6)
    monkeypatch.setattr(reconstruction, "LOOK", 16)


def settings(**changes) -> TrainConfig:
    values = {"images": 32, "warmup_images": 0, "ema_halflife_images": 8, "precision": "fp32"}
    return TrainConfig.from_dict({**SETTINGS, **values, **changes})


def teacher(images: ImageSet, *, mirrored: bool = True) -> torch.Tensor:
    """Latents that a linear teacher gives, of mean 1 and std 3 or so: colours and brightness."""
    pictures = to_float(images.get(torch.arange(len(images)))[0])
    versions = [pictures, pictures.flip(3)] if mirrored else [pictures]
    small = [nn.functional.avg_pool2d(version, 4) for version in versions]
    return torch.stack([torch.cat([s, s.mean(1, keepdim=True)], 1) * 3 + 1 for s in small]).half()


def own(images: ImageSet, **options) -> CodecTraining:
    return CodecTraining(settings(), small_autoencoder(), images, **options)


def taught(images: ImageSet, config: TrainConfig | None = None, **options) -> CodecTraining:
    config = config or settings()
    options = {"latents": teacher(images), **options}
    return CodecTraining(config, AUTOENCODER, images, **options)


def prepared(objective: CodecTraining, config: TrainConfig | None = None, *, step: int = 0):
    config = config or settings()
    objective.to(CPU)
    batch = next(objective.batches(config, first_step=step, share=slice(None)))
    return objective.prepare(batch, config, *step_generators(0, step, 0, CPU))


def trainer(config: TrainConfig, objective: CodecTraining, out: Path) -> Trainer:
    return Trainer(config, objective, out, trainable=objective.learns)


def after(steps: int):
    asked = iter(range(10**9))
    return lambda: next(asked) + 1 >= steps


def is_crop_of(crop: torch.Tensor, picture: torch.Tensor) -> bool:
    """Whether a crop is found in a picture, or in its mirror image, on the grid of latents."""
    side = crop.shape[-1]
    places = [4 * place for place in range((picture.shape[-1] - side) // 4 + 1)]
    return any(
        torch.equal(crop, version[:, top : top + side, left : left + side])
        for version in (picture, picture.flip(2))
        for top in places
        for left in places
    )


# -- the decoder alone ------------------------------------------------------------------------


def test_without_a_teacher_the_decoder_learns_what_the_encoder_gives(images, monkeypatch):
    monkeypatch.setattr(codec_training, "LATENT_NOISE", 0.0)
    objective = own(images)
    crops, latents, looks = prepared(objective)
    assert (crops.shape, latents.shape, looks.shape) == ((4, 3, 24, 24), (4, 4, 6, 6), (4, 2))
    assert_close(latents, small_autoencoder().encode(crops))
    assert not latents.requires_grad
    pictures = to_float(objective.images.pixels)
    assert all(any(is_crop_of(crop, picture) for picture in pictures) for crop in crops)


def test_its_latents_have_a_little_noise_of_different_levels(images, monkeypatch):
    objective = own(images)
    config = settings(batch_size=16)
    crops, noisy, _ = prepared(objective, config)
    off = (noisy - objective.autoencoder.encode(crops)).flatten(1).std(dim=1)
    assert off.max() < 0.12
    assert off.max() > 2 * off.min() > 0


def test_its_encoder_stays_bit_for_bit_as_it_is(images, tmp_path):
    before = small_autoencoder().state_dict()
    run = trainer(settings(), own(images), tmp_path)
    assert run.train()
    assert not any(p.requires_grad for p in run.objective.autoencoder.encoder.parameters())
    for name, tensor in load_codec(tmp_path / WEIGHTS_NAME).state_dict().items():
        same = torch.equal(tensor, before[name].half().float())
        assert same == name.startswith(("encoder.", "mean", "std")), name


def test_the_decoder_improves(images, tmp_path):
    objective = own(images)
    objective.to(CPU)
    before = objective.heldout(objective.autoencoder)
    run = trainer(settings(**FAST), objective, tmp_path)
    assert run.train()
    assert run.progress.last_loss < 0.92 * before


# -- both halves ------------------------------------------------------------------------------


def test_with_a_teacher_both_halves_get_its_latents(images, monkeypatch):
    monkeypatch.setattr(codec_training, "LATENT_NOISE", 0.0)
    objective = taught(images)
    seen = set()
    for step in range(6):
        crops, latents, _, pictures, wanted = prepared(objective, step=step)
        assert (pictures.shape, wanted.shape) == ((4, 3, SIZE, SIZE), (4, *SHAPE))
        # The teacher is linear: its latents are told from the very pictures.
        small = nn.functional.avg_pool2d(pictures, 4)
        expected = torch.cat([small, small.mean(1, keepdim=True)], 1) * 3 + 1
        assert_close(wanted, objective.autoencoder.normalize(expected), atol=0.01, rtol=0.01)
        small = nn.functional.avg_pool2d(crops, 4)
        expected = torch.cat([small, small.mean(1, keepdim=True)], 1) * 3 + 1
        assert_close(latents, objective.autoencoder.normalize(expected), atol=0.01, rtol=0.01)
        for picture in pictures:
            seen |= {
                turned
                for turned in (False, True)
                for one in to_float(objective.images.pixels)
                if torch.equal(picture, one.flip(2) if turned else one)
            }
    assert seen == {False, True}


@pytest.mark.parametrize("how", ["setting", "one version"])
def test_without_mirrored_latents_pictures_are_not_mirrored(images, how):
    config = settings(mirror=how != "setting", batch_size=16)
    objective = taught(images, latents=teacher(images, mirrored=how == "setting"))
    pictures = prepared(objective, config)[3]
    originals = to_float(objective.images.pixels)
    assert all(any(torch.equal(p, one) for one in originals) for p in pictures)


def test_a_new_autoencoder_normalizes_the_latents_of_its_teacher(images):
    latents = teacher(images)
    autoencoder = new_autoencoder(AUTOENCODER, latents, seed=0)
    normal = autoencoder.normalize(latents[0].float())
    assert_close(normal.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    assert_close(normal.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)


def test_one_that_goes_on_keeps_its_normalization(images):
    init = small_autoencoder()
    init.mean[0] = 5
    objective = CodecTraining(settings(), init, images, latents=teacher(images))
    assert objective.autoencoder.mean[0] == 5
    assert objective.learns("encoder.conv_in.weight")


def test_the_loss_of_a_row_is_the_sum_of_what_both_halves_miss(images):
    distance = Darker()
    objective = taught(images, perceptual=distance)
    crops, latents, looks, pictures, wanted = rows = prepared(objective)
    decoded = objective.autoencoder.decode(latents)
    encoded = objective.autoencoder.encode(pictures)
    darker = torch.stack([
        (crop - one)[:, top : top + 16, left : left + 16].mean()
        for one, crop, (top, left) in zip(decoded, crops, looks.tolist(), strict=True)
    ])  # fmt: skip
    expected = (decoded - crops).abs().mean((1, 2, 3)) + 0.5 * darker
    expected = expected + (encoded - wanted).square().mean((1, 2, 3))
    assert_close(objective.loss(*rows), expected)
    assert distance.sizes == [(4, 3, 16, 16)]
    assert len(set(map(tuple, looks.tolist()))) > 1
    assert_close(objective.loss(*(row[1:2] for row in rows)), expected[1:2])


def test_both_halves_learn_in_one_run(images, tmp_path):
    objective = taught(images)
    objective.to(CPU)
    pictures = to_float(objective.heldout_images.pixels)
    small = nn.functional.avg_pool2d(pictures, 4)
    wanted = torch.cat([small, small.mean(1, keepdim=True)], 1) * 3 + 1

    @torch.no_grad()
    def miss(autoencoder) -> float:
        off = autoencoder.encode(pictures) - autoencoder.normalize(wanted)
        return float(off.square().mean())

    before = objective.heldout(objective.autoencoder), miss(objective.autoencoder)
    run = trainer(settings(**FAST), objective, tmp_path)
    assert run.train()
    assert run.progress.last_loss < 0.85 * before[0]
    assert miss(run.ema.module) < 0.5 * before[1]


# -- what is measured, shown and written ------------------------------------------------------


def test_the_heldout_figure_stands_for_the_mean_psnr(images):
    objective = own(images)
    objective.to(CPU)
    assert (len(objective.images), len(objective.heldout_images)) == (22, 2)
    pictures = objective.heldout_images.pixels
    codec = LatentCodec(small_autoencoder(), 8, sigma_data=1.0)
    error = (codec.decode(codec.encode(pictures)).float() - pictures.float()).square()
    expected = (10 * torch.log10(255**2 / error.mean((1, 2, 3)))).mean()
    assert_close(psnr(objective.heldout(objective.autoencoder)), float(expected))


def test_the_heldout_figure_is_of_the_precision_that_was_asked_for(images, monkeypatch):
    objective = own(images)
    objective.to(CPU)
    exact = objective.heldout(objective.autoencoder)
    monkeypatch.setattr(device, "fast_bf16", lambda device: True)
    assert objective.heldout(objective.autoencoder) == exact  # "fp32", as ``settings`` say
    objective.precision = "auto"
    assert objective.heldout(objective.autoencoder) != exact


def test_without_heldout_pictures_there_is_no_figure(images):
    objective = CodecTraining(settings(holdout=0), small_autoencoder(), images)
    objective.to(CPU)
    assert objective.heldout(objective.autoencoder) is None
    assert len(objective.images) == 24


def test_samples_are_rows_of_originals_above_their_reconstructions(images):
    objective = own(images)
    objective.to(CPU)
    shown = objective.samples(objective.autoencoder)
    pictures = objective.images.pixels[:8]
    codec = LatentCodec(small_autoencoder(), 8, sigma_data=1.0)
    again = codec.decode(codec.encode(pictures))
    assert torch.equal(shown, torch.cat([pictures[:4], again[:4], pictures[4:], again[4:]]))


def test_samples_are_of_heldout_pictures_where_there_are_enough(images):
    four_times = images.subset(list(range(24)) * 4)
    many = replace(four_times, names=tuple(f"{i}.png" for i in range(96)))
    objective = own(many)
    objective.to(CPU)
    shown = objective.samples(objective.autoencoder)
    assert torch.equal(shown[:4], objective.heldout_images.pixels[:4])


def test_what_is_saved_has_a_preview_that_fits(images, tmp_path):
    objective = own(images)
    objective.to(CPU)
    objective.save(objective.autoencoder, tmp_path / "codec.safetensors", images=77)
    assert read_tensors(tmp_path / "codec.safetensors")[1]["images_seen"] == 77
    saved = load_codec(tmp_path / "codec.safetensors")
    pictures = to_float(objective.images.pixels)
    colours = nn.functional.avg_pool2d(pictures, 4)

    def miss(autoencoder) -> float:
        off = autoencoder.preview(autoencoder.encode(pictures)) - colours
        return float(off.square().mean())

    assert miss(saved) < 0.5 * miss(objective.autoencoder)
    assert torch.equal(objective.autoencoder.preview_bias, small_autoencoder().preview_bias)


@pytest.mark.parametrize("kind", [own, taught])
def test_a_resumed_run_equals_an_unbroken_one(images, tmp_path, kind):
    whole = trainer(settings(), kind(images), tmp_path / "whole")
    assert whole.train()
    assert not trainer(settings(), kind(images), tmp_path / "parts").train(stop=after(3))
    torch.manual_seed(99)
    assert trainer(settings(), kind(images), tmp_path / "parts").train()
    for name in (STATE_NAME, WEIGHTS_NAME):
        one, other = (read_tensors(tmp_path / run / name)[0] for run in ("whole", "parts"))
        assert set(one) == set(other)
        assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_a_run_of_another_codec_or_other_latents_is_not_gone_on_with(images, tmp_path):
    trainer(settings(), own(images), tmp_path).train(stop=after(1))
    other = CodecTraining(settings(), small_autoencoder(seed=4), images)
    with pytest.raises(ValueError, match="another --init"):
        trainer(settings(), other, tmp_path)
    more = own(images, latents=teacher(images))
    with pytest.raises(ValueError, match=r"Choose another --out\."):
        trainer(settings(), more, tmp_path)


def test_a_square_is_cut_from_each_map():
    maps = torch.arange(2 * 36).reshape(2, 1, 6, 6)
    pieces = cut(maps, torch.tensor([[0, 1], [4, 3]]), 2)
    assert pieces[:, 0].tolist() == [[[1, 2], [7, 8]], [[63, 64], [69, 70]]]


def test_psnr_is_of_the_full_range():
    assert psnr(2.0) == 0
    assert math.isclose(psnr(0.02), 40)


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def codec(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr(PerceptualDistance, "load", Darker)
    save_codec(small_autoencoder(), tmp_path / "small.safetensors")
    return str(tmp_path / "small.safetensors")


def command(folder: Path, out: Path, *more: str) -> list[str]:
    budget = ["--size", str(SIZE), "--images", "8", "--precision", "fp32"]
    return ["train-codec", "--data", str(folder), "--out", str(out), *budget, *more]


def test_the_command_trains_goes_on_and_tells(folder, codec, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(folder, out, "--init", codec)) == 0
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-2] == f"Finished: 8 images, {out}"
    line = json.loads((out / METRICS_NAME).read_text().splitlines()[-1])
    figure = f"{psnr(line['heldout_loss']):.2f} dB"
    assert told[-1] == f"Held-out pictures, encoded and decoded: {figure}"
    assert grid_path(out, 8).is_file()
    assert load_codec(out / WEIGHTS_NAME).config == AUTOENCODER
    assert main(command(folder, out, "--init", codec, "--images", "12")) == 0
    assert read_tensors(out / STATE_NAME)[1]["progress"]["images"] == 12


def test_the_command_takes_a_teachers_latents(folder, images, codec, tmp_path):
    path, out = tmp_path / "latents.safetensors", tmp_path / "run"
    names = {"names": json.dumps(list(images.names))}
    save_file({"latents": teacher(images)}, path, metadata=names)
    assert main(command(folder, out, "--init", codec, "--latents", str(path))) == 0
    before, now = small_autoencoder().encoder, load_codec(out / WEIGHTS_NAME).encoder
    assert not torch.equal(now.conv_in.weight, before.conv_in.weight.half().float())


def test_every_mistake_is_a_sentence(folder, codec, tmp_path, capsys):
    init, out = ["--init", codec], tmp_path / "run"
    wrong = tmp_path / "wrong.safetensors"
    names = {"names": json.dumps(["cat-000.png"])}
    save_file({"latents": torch.zeros(1, 1, 4, 4, 4)}, wrong, metadata=names)
    for arguments, words in (
        ([], "Give --latents to learn from, a codec to go on with (--init), or both."),
        ([*init, "--size", "30"], "The size must be a multiple of 4 pixels, at most 1024, not 30."),
        ([*init, "--size", "0"], "must be a multiple of 4 pixels"),
        (["--init", "nobody"], "There is no checkpoint 'nobody'"),
        ([*init, "--latents", "none"], "There is no file of latents at none."),
        ([*init, "--latents", str(wrong)], "4 channels at 4x4"),
        ([*init, "--augment", "1"], "--augment"),
    ):
        assert words in refused(capsys, *command(folder, out, *arguments))
    assert not out.exists()
