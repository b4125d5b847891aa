"""The upscaler: sizes, what it begins as, and how it is put into a model and a file."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from drawing import cats, write_zip
from helpers import (
    LATENT,
    SMALL,
    UPSCALER,
    latent_denoiser,
    small_denoiser,
    small_upscaler,
    upscaled_denoiser,
)
from torch.testing import assert_close

from diffusion import Denoiser, generate
from diffusion.checkpoint import WEIGHTS_NAME, CheckpointInfo, read_checkpoint, read_tensors
from diffusion.cli.main import main
from diffusion.codec_file import load_autoencoder, load_codec, save_codec
from diffusion.config import FinetuneConfig, UpscalerConfig, codec_config
from diffusion.networks.upscaler import Upscaler
from diffusion.training import finetune, replays


@pytest.mark.parametrize("factor", [2, 4])
def test_pictures_become_larger_by_the_factor_and_shrink_again(factor):
    network = small_upscaler(replace(UPSCALER, factor=factor))
    small = torch.rand(2, 3, 8, 12) * 2 - 1
    large = network(small)
    assert large.shape == (2, 3, 8 * factor, 12 * factor)
    assert network.shrink(large).shape == small.shape
    bicubic = F.interpolate(small, scale_factor=factor, mode="bicubic")
    assert_close(Upscaler(network.config)(small), bicubic)
    assert (large - bicubic).abs().mean() > 0.01
    assert codec_config(json.loads(json.dumps(network.config.to_dict()))) == network.config


def test_a_pixel_depends_on_its_neighbourhood_alone():
    network, small = small_upscaler(), torch.rand(1, 3, 48, 48)
    large, moved = network(small), network(small.roll(2, 3))
    assert_close(moved[..., 20:-16, 24:-20], large[..., 20:-16, 20:-24], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"factor": 3}, "2 or 4, not 3"),
        ({"widths": (4, 8, 16)}, "two whole numbers"),
        ({"blocks": (1, 0)}, "two whole numbers"),
        ({"blocks": (1, 10**6)}, "at most 64"),
    ],
)
def test_impossible_shapes_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        UpscalerConfig(**change)


@pytest.fixture
def files(tmp_path):
    """A model of small pictures, an upscaler, and where the two together go."""
    model, codec, out = (str(tmp_path / f"{name}.safetensors") for name in ("m", "up", "out"))
    guide = replace(SMALL, channels=8)
    small_denoiser(replace(SMALL, num_classes=2), guide=guide).save(model)
    save_codec(small_upscaler(), codec, images_seen=9)
    return model, codec, out


def test_a_model_with_an_upscaler_draws_what_the_model_draws_only_larger(files):
    model, codec, out = files
    assert main(["codec", "--checkpoint", model, "--codec", codec, "--out", out]) == 0
    small, large = Denoiser.load(model), Denoiser.load(out)
    info = large.info
    assert (info.picture_size, info.training_size, info.in_latents) == (16, 8, False)
    assert replace(info, codec=None) == small.info
    pictures = generate(large, [1, 2], class_labels=[0, 1])
    assert pictures.shape == (2, 3, 16, 16)
    x0 = generate(small, [1, 2], class_labels=[0, 1])
    expected = small_upscaler()(x0.float() / 127.5 - 1)  # of x0 rounded to uint8
    shown = pictures.float() / 127.5 - 1
    assert (shown - expected.clamp(-1, 1)).abs().mean() < 0.02
    loaded = load_codec(out)
    assert loaded.config == UPSCALER
    assert_close(loaded.conv_in.weight, small_upscaler().conv_in.weight, rtol=1e-3, atol=1e-3)


def test_another_upscaler_takes_the_place_of_the_first(files, tmp_path):
    model, codec, out = files
    arguments = ["codec", "--codec", codec, "--out", out, "--checkpoint"]
    assert main([*arguments, model]) == 0
    better = small_upscaler(seed=5)
    save_codec(better, codec)
    before = read_tensors(out)[0]
    assert main([*arguments, out]) == 0
    after = read_tensors(out)[0]
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {f"codec.{name}" for name in better.state_dict()}


def test_a_model_with_an_upscaler_is_fine_tuned_at_the_small_size(tmp_path, monkeypatch):
    monkeypatch.setattr(replays, "REPLAYS", 6)
    monkeypatch.setattr(finetune, "SAMPLES", 2)
    base, run = tmp_path / "base.safetensors", tmp_path / "run"
    upscaled_denoiser(replace(SMALL, num_classes=2)).save(base)
    photos = write_zip(tmp_path / "mia.zip", cats(16, 32))
    sizes, drawn = [], replays.draw_replays
    monkeypatch.setattr(
        finetune,
        "draw_replays",
        lambda b, like, *rest: sizes.append(like.image_size) or drawn(b, like, *rest),
    )
    config = FinetuneConfig(label="Mia", images=16, batch_size=4)
    assert finetune.finetune(base, photos, run, config)
    assert sizes == [8]
    tuned = Denoiser.load(run / WEIGHTS_NAME)
    assert (tuned.info.labels, tuned.info.picture_size) == (("label 0", "label 1", "Mia"), 16)
    assert generate(tuned, [1], class_labels=[2]).shape == (1, 3, 16, 16)
    before, after = read_checkpoint(base)[0], read_checkpoint(run / WEIGHTS_NAME)[0]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "conv_in.weight" in changed
    assert not any(name.startswith("codec.") for name in changed)


def test_what_does_not_fit_is_a_sentence(files, tmp_path, capsys):
    model, codec, out = files
    latent = str(tmp_path / "latent.safetensors")
    latent_denoiser().save(latent)
    arguments = ["codec", "--checkpoint", latent, "--codec", codec, "--out", out]
    assert main(arguments) == 1
    assert "draws latents, which an upscaler cannot enlarge" in capsys.readouterr().err
    assert main(["grow", "--checkpoint", model, "--codec", codec, "--out", out]) == 1
    assert "carries an upscaler, which has no latents" in capsys.readouterr().err
    with pytest.raises(ValueError, match="upscaler"):
        load_autoencoder(codec)
    with pytest.raises(ValueError, match="other channels"):
        CheckpointInfo(LATENT, codec=UPSCALER)
