"""Growing: what the large network answers is what the small one answers, at twice the noise."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import SMALL, randomize_, small_denoiser
from torch.testing import assert_close

from diffusion import Denoiser
from diffusion.checkpoint import CheckpointInfo
from diffusion.config import PRESETS
from diffusion.denoiser import build_unet
from diffusion.grow import grow

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
