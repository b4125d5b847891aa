"""Sampling through a codec that loses something: latents, and small pictures."""

import dataclasses

import pytest
import torch
from helpers import Counted, Gaussian, latent_denoiser, upscaled_denoiser
from torch.testing import assert_close

from diffusion import SAMPLERS, SampleConfig, generate
from diffusion.guidance import Guided
from diffusion.sampling import Start, draw, from_seeds, paste_kept

WITH_CODEC = pytest.mark.parametrize("make", [latent_denoiser, upscaled_denoiser])


def coded_start(denoiser, keep: torch.Tensor | None = None) -> Start:
    picture = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    start = from_seeds(denoiser, [1, 2])
    return dataclasses.replace(start, picture=picture, keep=keep)


def test_kept_pixels_are_pasted_and_the_others_fade_into_them():
    keep = torch.zeros(1, 1, 12, 24, dtype=torch.bool)
    keep[..., :12] = True
    drawn = torch.full((1, 3, 12, 24), 200, dtype=torch.uint8)
    picture = torch.full((1, 3, 12, 24), 60, dtype=torch.uint8)
    pasted = paste_kept(drawn, picture, keep)
    row = [60] * 12 + [140, 160, 180] + [200] * 9  # 3/7, 2/7 and 1/7 of the difference
    assert pasted.dtype == torch.uint8
    assert pasted[0].tolist() == [[row] * 12] * 3


def test_pasting_keeps_all_or_nothing():
    drawn, picture = torch.randint(0, 256, (2, 2, 3, 16, 16), dtype=torch.uint8)
    everything = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    assert torch.equal(paste_kept(drawn, picture, everything), picture)
    assert torch.equal(paste_kept(drawn, picture, ~everything), drawn)


@WITH_CODEC
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_repainting_with_a_lossy_codec_keeps_pixels_exactly(sampler, make):
    denoiser = make()
    keep = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    keep[0, :, :7] = True  # not on the border of a latent
    keep[1, :, :, 3:11] = True
    start = coded_start(denoiser, keep)
    drawn = draw(denoiser, start, SampleConfig(sampler=sampler, num_steps=4))
    keep = keep.expand_as(drawn)
    assert torch.equal(drawn[keep], start.picture[keep])
    assert (drawn[~keep] != start.picture[~keep]).float().mean() > 0.5


@WITH_CODEC
def test_a_picture_to_start_from_is_encoded(make):
    """Little noise and one step: what comes out is what the codec makes of the picture."""
    denoiser = make()
    start = coded_start(denoiser)
    config = SampleConfig(num_steps=1, sigma_min=1e-4, sigma_max=1e-3)
    drawn = draw(denoiser, start, config)
    codec = denoiser.codec
    expected = codec.decode(codec.encode(start.picture))
    assert (drawn.int() - expected.int()).abs().max() <= 3
    assert (drawn.int() - start.picture.int()).abs().float().mean() > 10  # the codec is untrained


@WITH_CODEC
def test_a_picture_that_is_stopped_is_decoded(make):
    denoiser = make()
    seen = []
    config = SampleConfig(num_steps=6)
    drawn = generate(
        denoiser, [5], config, callback=lambda step: seen.append(step.denoised) or len(seen) == 2
    )
    assert len(seen) == 2
    assert torch.equal(drawn, denoiser.codec.decode(seen[-1]))


def test_guidance_begins_below_its_level():
    """Above ``below`` not even the guide is asked."""
    strong, weak = Counted(Gaussian(mean=0.5)), Counted(Gaussian(mean=-0.5))
    guided = Guided(strong, 3.0, null_label=0, guide=weak, below=2.0)
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(guided(x, 2.1), strong.denoiser(x, 2.1))
    assert weak.nfe == 0
    for sigma in (2.0, 0.1):
        one, other = strong.denoiser(x, sigma), weak.denoiser(x, sigma)
        assert_close(guided(x, sigma), other + 3 * (one - other))
    assert weak.sigmas == [2.0, pytest.approx(0.1)]
