"""Noise schedules against their formulas, against diffusers, and by their properties."""

import math

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler
from torch.testing import assert_close

from diffusion.schedules import (
    cosine_alpha_bar,
    ddpm_sigmas,
    karras_sigmas,
    linear_alpha_bar,
    lognormal_sigma,
    sigmas_from_alpha_bar,
)


def falling(sigmas: torch.Tensor) -> bool:
    return bool((sigmas[1:] < sigmas[:-1]).all())


@pytest.mark.parametrize("num_steps", [2, 3, 12, 100])
def test_karras_grid_falls_from_sigma_max_over_sigma_min_to_zero(num_steps):
    sigmas = karras_sigmas(num_steps, sigma_min=0.01, sigma_max=50.0)
    assert sigmas.shape == (num_steps + 1,)
    assert sigmas.dtype == torch.float64
    assert falling(sigmas)
    assert sigmas[-1] == 0
    assert_close(sigmas[[0, -2]].tolist(), [50.0, 0.01])


def test_karras_grid_follows_equation_5():
    n, low, high, rho = 7, 0.02, 30.0, 5.0
    expected = [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        for i in range(n)
    ]
    sigmas = karras_sigmas(n, sigma_min=low, sigma_max=high, rho=rho)
    assert_close(sigmas.tolist(), [*expected, 0.0])


def test_karras_grid_is_that_of_diffusers_by_default():
    peer = EDMEulerScheduler()
    peer.set_timesteps(18)
    assert_close(karras_sigmas(18).float(), peer.sigmas)


def test_karras_grid_of_one_step_goes_from_sigma_max_to_zero():
    assert_close(karras_sigmas(1).tolist(), [80.0, 0.0])


@pytest.mark.parametrize(
    ("num_steps", "sigma_min", "sigma_max"),
    [(0, 0.002, 80.0), (5, 0.0, 80.0), (5, -1.0, 80.0), (5, 2.0, 2.0), (5, 3.0, 2.0)],
)
def test_karras_grid_refuses_an_empty_range(num_steps, sigma_min, sigma_max):
    with pytest.raises(ValueError, match=r"must be .*\."):
        karras_sigmas(num_steps, sigma_min=sigma_min, sigma_max=sigma_max)


@pytest.mark.parametrize(
    ("alpha_bar", "peer"),
    [
        (linear_alpha_bar(), DDPMScheduler(beta_schedule="linear")),
        (cosine_alpha_bar(), DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
    ],
    ids=["linear", "cosine"],
)
def test_betas_are_those_of_diffusers(alpha_bar, peer):
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    betas = 1 - alpha_bar / before
    assert_close(betas, peer.betas.double(), rtol=1e-5, atol=1e-8)
    assert betas.max() <= 0.999 + 1e-12


def test_cosine_products_follow_equation_17_before_the_cap():
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert_close(cosine_alpha_bar()[:-1], (f / start)[:-1])


def test_sigma_of_a_variance_preserving_schedule_is_noise_over_signal():
    alpha_bar = linear_alpha_bar()
    sigmas = sigmas_from_alpha_bar(alpha_bar)
    # x0 and noise are weighted by sqrt(alpha_bar) and sqrt(1 - alpha_bar).
    assert_close(sigmas, (1 - alpha_bar).sqrt() / alpha_bar.sqrt())
    assert falling(sigmas.flip(0))


def test_ddpm_grid_of_all_steps_visits_every_timestep():
    sigmas = ddpm_sigmas(1000)
    assert_close(sigmas[:-1].flip(0), sigmas_from_alpha_bar(linear_alpha_bar()))
    assert sigmas[-1] == 0


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50, 999])
def test_ddpm_grid_falls_from_the_last_timestep_to_the_first_and_zero(num_steps):
    every = sigmas_from_alpha_bar(linear_alpha_bar())
    sigmas = ddpm_sigmas(num_steps)
    assert sigmas.shape == (num_steps + 1,)
    assert falling(sigmas)
    assert sigmas[0] == every[-1]
    assert sigmas[-1] == 0
    if num_steps > 1:
        assert sigmas[-2] == every[0]
    assert torch.isin(sigmas[:-1], every).all()


@pytest.mark.parametrize("num_steps", [0, -1, 1001])
def test_ddpm_grid_refuses_a_number_of_steps_outside_1_to_T(num_steps):
    with pytest.raises(ValueError, match="between 1 and 1000"):
        ddpm_sigmas(num_steps)


def test_training_sigma_is_lognormal():
    generator = torch.Generator().manual_seed(0)
    log_sigma = lognormal_sigma(20_000, P_mean=-0.7, P_std=1.3, generator=generator).log()
    assert log_sigma.dtype == torch.float32
    assert_close(log_sigma.mean().item(), -0.7, rtol=0, atol=2e-3)
    assert_close(log_sigma.std().item(), 1.3, rtol=2e-3, atol=0)
    # The whole distribution, not only its moments: the cdf of the values is uniform.
    cdf = torch.special.ndtr((log_sigma.double().sort().values + 0.7) / 1.3)
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert_close(cdf, uniform, rtol=0, atol=1e-3)


def test_every_place_in_a_small_batch_has_the_whole_density():
    # Stratified draws are dependent within a batch; each of them alone must not be.
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([lognormal_sigma(3, generator=generator) for _ in range(4000)]).log()
    error = 1.2 / 4000**0.5
    assert_close(draws.mean(dim=0), torch.full((3,), -1.2), rtol=0, atol=4 * error)
    assert_close(draws.std(dim=0), torch.full((3,), 1.2), rtol=0, atol=4 * error)


def test_stratified_draws_have_one_value_in_each_slice_of_probability():
    generator = torch.Generator().manual_seed(0)
    sigma = lognormal_sigma(64, generator=generator)
    slices = (torch.special.ndtr((sigma.log() + 1.2) / 1.2) * 64).long()
    assert sorted(slices.tolist()) == list(range(64))
    assert slices.tolist() != list(range(64))


def test_training_sigma_follows_its_generator():
    first, second = (
        lognormal_sigma(8, generator=torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, second)
