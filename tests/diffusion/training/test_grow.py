"""Growing: what the large network answers is what the small one answers, at twice the noise."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    AUTOENCODER,
    SMALL,
    latent_denoiser,
    randomize_,
    small_autoencoder,
    small_denoiser,
    upscaled_denoiser,
)
from torch.testing import assert_close

from diffusion import Denoiser
from diffusion.checkpoint import CheckpointInfo
from diffusion.config import AutoencoderConfig
from diffusion.denoiser import build_unet
from diffusion.networks.autoencoder import Autoencoder
from diffusion.presets import LATENT_SAMPLING, PRESETS
from diffusion.training.grow import grow, grow_into_latents

LABELLED = replace(SMALL, num_classes=3, augment_channels=6)


def enlarged(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_the_means_of_pixels_are_answered_as_the_small_picture_was(patch_size):
    small = small_denoiser(replace(LABELLED, patch_size=patch_size))
    large = grow(small)
    x, c_noise, labels = torch.randn(4, 3, 16, 16), torch.randn(4), torch.tensor([0, 1, 2, 3])
    answer = large.model(x, c_noise + math.log(2) / 4, labels)
    expected = small.model(2 * F.avg_pool2d(x, 2), c_noise, labels)
    assert_close(answer, enlarged(expected), rtol=1e-4, atol=1e-4)


def test_where_noise_prevails_the_denoiser_answers_alike():
    small = small_denoiser()
    large, x0, noise = grow(small), torch.rand(2, 3, 16, 16) - 0.5, torch.randn(2, 3, 16, 16)
    x = x0 + 1000 * noise
    mean = F.avg_pool2d(x, 2)  # with half the noise
    assert_close(large(x, 1000.0), enlarged(small(mean, 500.0)), rtol=1e-2, atol=1e-2)


def test_it_says_what_it_is():
    info = grow(small_denoiser(LABELLED)).info
    assert (info.model.image_size, info.model.patch_size) == (16, 4)
    assert info.model.fine_channels == 8
    assert info.labels == ("label 0", "label 1", "label 2")
    assert info.history[-1] == "grown from 8 to 16 pixels"
    assert info.preset == ""


@pytest.mark.parametrize("kind", ["lite", "guide"])
def test_the_presets_of_64_pixels_grow_into_those_of_128(kind):
    config = replace(PRESETS[f"cat-64-{kind}"].model, num_classes=2)
    info = CheckpointInfo(config, labels=("a", "b"))
    assert grow(Denoiser.from_config(config, info=info)).info.preset == f"cat-128-{kind}"


def test_it_can_be_saved_and_loaded_and_the_refinement_begins_at_zero(tmp_path):
    large = grow(small_denoiser())
    large.save(tmp_path / "large.safetensors")
    loaded = Denoiser.load(tmp_path / "large.safetensors")
    assert not loaded.model.fine.conv_out.weight.any()
    x = torch.randn(1, 3, 16, 16)
    assert_close(loaded(x, 1.0), large(x, 1.0), rtol=0.02, atol=0.02)  # half precision


def test_a_guide_of_the_old_size_is_left_behind():
    large = grow(small_denoiser().guided_by(small_denoiser(replace(SMALL, channels=8))))
    assert large.guide is None
    assert large.info.guide is None
    assert large.info.history == ("grown from 8 to 16 pixels",)


def test_it_is_ready_to_draw():
    large = grow(small_denoiser(replace(SMALL, dropout=0.5)))
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(large(x, 1.0), large(x, 1.0))
    assert not any(parameter.requires_grad for parameter in large.parameters())


def test_what_cannot_grow_is_refused_by_a_sentence():
    with pytest.raises(ValueError, match="EDM"):
        grow(small_denoiser(replace(SMALL, parameterization="epsilon")))
    with pytest.raises(ValueError, match="EDM"):
        grow(Denoiser(randomize_(build_unet(SMALL))))  # without info
    with pytest.raises(ValueError, match="1024"):
        grow(small_denoiser(replace(SMALL, image_size=1024)))
    with pytest.raises(ValueError, match="once"):
        grow(grow(small_denoiser()))


# -- into latents -------------------------------------------------------------------------------


def test_a_network_of_latents_begins_with_the_inner_weights(tmp_path):
    old = small_denoiser(replace(LABELLED, patch_size=2))
    grown = grow_into_latents(old, small_autoencoder())
    before, after = old.model.state_dict(), grown.model.state_dict()
    inner = [name for name in before if not name.startswith(("conv_in.", "conv_out."))]
    assert len(inner) > 20
    assert all(torch.equal(after[name], before[name]) for name in inner)
    assert not after["conv_out.weight"].any()
    assert after["conv_in.weight"].shape[1] == 4  # channels of the latents
    x = torch.randn(2, 4, 4, 4)
    assert_close(grown(x, 1.0), 0.2 * x)  # c_skip alone: 0.25 / (1 + 0.25)


def test_the_network_of_latents_says_what_it_is_and_is_ready_to_draw(tmp_path):
    old = small_denoiser(replace(LABELLED, patch_size=2, dropout=0.5))
    old = old.guided_by(small_denoiser(replace(SMALL, channels=8)))
    grown = grow_into_latents(old, small_autoencoder())
    info = grown.info
    model = info.model
    assert (model.image_size, model.image_channels, model.patch_size) == (4, 4, 1)
    assert (info.picture_size, grown.codec.picture_size, grown.codec.shape) == (16, 16, (4, 4, 4))
    assert (info.codec, info.sampling, info.guide) == (AUTOENCODER, LATENT_SAMPLING, None)
    assert info.labels == old.info.labels
    assert info.history == ("grown from 8 pixels into latents",)
    assert not grown.training
    assert not any(parameter.requires_grad for parameter in grown.parameters())
    grown.save(tmp_path / "grown.safetensors")
    assert Denoiser.load(tmp_path / "grown.safetensors").info == info


def test_a_refinement_is_left_behind():
    fine = small_denoiser(replace(SMALL, image_size=16, patch_size=4, fine_channels=4))
    grown = grow_into_latents(fine, small_autoencoder())
    assert grown.info.model.fine_channels == 0
    assert not any(name.startswith("fine.") for name in grown.model.state_dict())


@pytest.mark.parametrize(
    ("size", "kind"), [(64, "-lite"), (64, "-guide"), (128, "-lite"), (128, "-guide"), (64, "")]
)
def test_presets_grow_into_those_of_256_pixels(size, kind):
    config = replace(PRESETS[f"cat-{size}{kind}"].model, num_classes=2)
    info = CheckpointInfo(config, labels=("a", "b"))
    with torch.device("meta"):  # shapes alone
        small = Denoiser(build_unet(config), info=info)
        grown = grow_into_latents(small, Autoencoder(AutoencoderConfig()))
    assert (grown.info.preset, grown.info.picture_size) == (f"cat-256{kind}", 256)
    assert grown.info.sampling == PRESETS[f"cat-256{kind}"].sampling


def test_what_cannot_draw_latents_is_refused_by_a_sentence():
    for denoiser, sentence in (
        (small_denoiser(replace(SMALL, parameterization="epsilon")), "EDM"),
        (Denoiser(build_unet(SMALL)), "EDM"),  # without info
        (latent_denoiser(), "latents already"),
    ):
        with pytest.raises(ValueError, match=sentence):
            grow_into_latents(denoiser, small_autoencoder())
    with pytest.raises(ValueError, match="latents cannot grow"):
        grow(latent_denoiser())


def test_neither_an_upscaler_nor_a_student_grows():
    student = small_denoiser()
    student.info = replace(student.info, teacher="a" * 12)
    for denoiser, sentence in ((upscaled_denoiser(), "without an upscaler"), (student, "student")):
        with pytest.raises(ValueError, match=sentence):
            grow(denoiser)
        with pytest.raises(ValueError, match=sentence):
            grow_into_latents(denoiser, small_autoencoder())
