"""Samplers against exact distributions, and against diffusers after every step."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
)
from helpers import Counted, Gaussian, Nonlinear, Points
from torch.testing import assert_close

from diffusion.denoiser import Denoiser
from diffusion.parameterizations import EDM
from diffusion.samplers import (
    SAMPLERS,
    SeededNoise,
    sample_ddim,
    sample_ddpm,
    sample_dpmpp_2m,
    sample_euler,
    sample_heun,
)
from diffusion.schedules import ddpm_sigmas, karras_sigmas, sigmas_from_alpha_bar

F64 = torch.float64
GENERAL = [name for name in SAMPLERS if name != "fitted"]  # for any noise levels


def uneven_grid(num_steps: int, sigma_from: float, sigma_to: float) -> torch.Tensor:
    """Steps in ln(sigma) of lengths 2, 1, 2, 1, ...: a grid that forgives no wrong step ratio."""
    lengths = torch.tensor([2.0, 1.0] * (num_steps // 2), dtype=F64)
    share = torch.cat([torch.zeros(1, dtype=F64), lengths.cumsum(0) / lengths.sum()])
    return sigma_from * (sigma_to / sigma_from) ** share


# -- exact Gaussian data ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(sample_euler, 1), (sample_ddim, 1), (sample_heun, 2), (sample_dpmpp_2m, 2)],
)
def test_the_error_falls_with_the_order_of_the_sampler(sampler, order):
    data, x = Gaussian(), torch.linspace(-6, 6, 12, dtype=F64).view(2, 1, 2, 3)
    # The last sigma is not 0, where all solutions meet at D and would hide the order.
    exact = data.solution(x, 3.0, 0.1)
    errors = [
        (sampler(data, x, uneven_grid(n, 3.0, 0.1)) - exact).abs().max() for n in (64, 128, 256)
    ]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert_close(slopes, [float(order)] * 2, rtol=0, atol=0.12)


@pytest.mark.parametrize("name", ["dpmpp_2m", "euler", "heun", "ddim"])
def test_deterministic_samplers_reach_the_solution_at_sigma_zero(name):
    data, x = Gaussian(), 80 * torch.randn(2, 3, 4, 4, dtype=F64)
    result = SAMPLERS[name](data, x, karras_sigmas(1000))
    assert_close(result, data.solution(x, 80.0, 0.0), rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("sampler", "sigmas", "options"),
    [
        (sample_ddpm, ddpm_sigmas(1000), {}),
        (sample_ddim, ddpm_sigmas(500), {"eta": 0.5}),
    ],
    ids=["ddpm", "ddim-eta"],
)
def test_stochastic_samplers_keep_mean_and_variance(sampler, sigmas, options):
    data, num = Gaussian(mean=0.3, std=0.5), 20_000
    start = data.mean + (data.std**2 + sigmas[0] ** 2).sqrt() * torch.randn(1, 1, 100, 200)
    result = sampler(data, start, sigmas, **options)
    assert_close(result.mean().item(), 0.3, rtol=0, atol=4 * 0.5 / num**0.5)
    assert_close(result.std().item(), 0.5, rtol=4 * (2 * num) ** -0.5, atol=0)
    # The noise is really fresh: the result is no function of the start alone.
    correlation = torch.corrcoef(torch.stack([start.flatten(), result.flatten()]))[0, 1]
    assert correlation < 0.9


def test_ancestral_steps_draw_from_the_exact_posterior_of_a_point():
    # For data that is one point, q(x_next | x, x0) is Gaussian with known mean and variance.
    point, sigma, sigma_next = 0.7, 2.0, 1.2
    x = torch.full((1, 1, 100, 200), 3.0, dtype=F64)
    seen = []
    sample_ddpm(
        lambda x, sigma, labels: torch.full_like(x, point),
        x,
        torch.tensor([sigma, sigma_next, 0.0], dtype=F64),
        callback=lambda step: seen.append(step.x),
    )
    ratio = sigma_next**2 / sigma**2
    mean, variance = point + ratio * (3.0 - point), sigma_next**2 * (1 - ratio)
    assert_close(seen[0].mean().item(), mean, rtol=0, atol=4 * (variance / 20_000) ** 0.5)
    assert_close(seen[0].var().item(), variance, rtol=4 * (2 / 20_000) ** 0.5, atol=0)


# -- mixtures and finite data -----------------------------------------------------------------


@pytest.mark.parametrize("name", GENERAL)
def test_samples_of_a_mixture_are_in_the_right_modes_as_often_as_they_should(name):
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=F64)
    points = torch.tensor([[-0.8, 0.6], [0.9, 0.5], [0.1, -0.9]], dtype=F64).view(3, 1, 1, 2)
    sigmas, num, std = karras_sigmas(80, sigma_min=0.01, sigma_max=20.0), 3000, 0.05
    x = sigmas[0] * torch.randn(num, 1, 1, 2, dtype=F64)
    result = SAMPLERS[name](Points(points, weights, std), x, sigmas)
    distance = (result - points.squeeze(1)).flatten(2).norm(dim=2)
    nearest, mode = distance.min(dim=1)
    assert nearest.max() < 5 * std
    frequencies = torch.bincount(mode, minlength=3) / num
    error = (weights * (1 - weights) / num).sqrt()
    assert ((frequencies - weights).abs() < 4 * error).all(), frequencies
    # Around its mode the spread is that of the mode (the step to 0 from sigma 0.01 is coarse).
    spread = (result - points[mode]).std().item()
    assert_close(spread, std, rtol=0.1, atol=0)


@pytest.mark.parametrize("name", GENERAL)
def test_the_ideal_denoiser_of_a_data_set_gives_back_its_pictures(name):
    data = torch.rand(6, 3, 2, 2, dtype=F64) * 2 - 1
    sigmas = karras_sigmas(24)
    x = sigmas[0] * torch.randn(80, 3, 2, 2, dtype=F64)
    result = SAMPLERS[name](Points(data), x, sigmas)
    distance, index = (result[:, None] - data).flatten(2).norm(dim=2).min(dim=1)
    assert distance.max() < 1e-6
    assert len(index.unique()) == 6


# -- peers, step by step ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "peer"),
    [
        (sample_euler, EDMEulerScheduler(sigma_data=0.4)),
        (sample_dpmpp_2m, EDMDPMSolverMultistepScheduler(sigma_data=0.4)),
    ],
    ids=["euler", "dpmpp_2m"],
)
@pytest.mark.parametrize("num_steps", [1, 2, 10, 20])
def test_edm_samplers_take_the_steps_of_diffusers(sampler, peer, num_steps):
    network, shape = Nonlinear(), (2, 3, 4, 4)
    denoiser = Denoiser(network, EDM(sigma_data=0.4))
    peer.set_timesteps(num_steps)
    x = peer.sigmas[0] * torch.randn(shape)
    steps = []
    sampler(denoiser, x, karras_sigmas(num_steps), callback=steps.append)

    for step, t in zip(steps, peer.timesteps, strict=True):
        output = network(peer.scale_model_input(x, t), t.expand(2))
        x = peer.step(output, t, x).prev_sample
        # The peer computes in float32.
        assert_close(step.x, x, rtol=1e-4, atol=1e-4 * max(step.sigma, 0.1))


def nonlinear_denoiser(x, sigma, class_labels=None):
    """D(x; sigma) in data units, float64, nonlinear in x."""
    return torch.tanh(x + 0.5 * x.roll(1, -1) + 0.1 * math.log(sigma))


def vp_steps(peer, x, sigmas, **options):
    """The peer's x after each of its steps, divided by sqrt(alpha_bar) as ours is."""
    for t, sigma in zip(peer.timesteps, sigmas[:-1].tolist(), strict=True):
        signal = peer.alphas_cumprod[t].sqrt()
        noise = (x - nonlinear_denoiser(x, sigma)) / sigma
        x = peer.step(noise, t, x * signal, **options).prev_sample
        following = int((peer.timesteps == t).nonzero()) + 1
        if following < len(peer.timesteps):
            x = x / peer.alphas_cumprod[peer.timesteps[following]].sqrt()
        yield x


def same_noise(seed: int, shape):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=F64)


@pytest.mark.parametrize("num_steps", [10, 100, 1000])
def test_ddpm_takes_the_steps_of_diffusers(num_steps):
    peer = DDPMScheduler(
        variance_type="fixed_small", clip_sample=False, timestep_spacing="linspace"
    )
    peer.alphas_cumprod = peer.alphas_cumprod.double()  # what differs is then not rounding
    peer.set_timesteps(num_steps)
    sigmas, shape = ddpm_sigmas(num_steps, peer.alphas_cumprod), (2, 3, 4, 4)
    assert_close(sigmas[:-1], sigmas_from_alpha_bar(peer.alphas_cumprod[peer.timesteps]))
    x = sigmas[0] * torch.randn(shape, dtype=F64)
    steps = []
    sample_ddpm(nonlinear_denoiser, x, sigmas, noise=same_noise(7, shape), callback=steps.append)
    theirs = vp_steps(peer, x, sigmas, generator=torch.Generator().manual_seed(7))
    for step, expected in zip(steps, theirs, strict=True):
        assert_close(step.x, expected)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_takes_the_steps_of_diffusers(eta):
    peer = DDIMScheduler(clip_sample=False, timestep_spacing="leading")
    peer.alphas_cumprod = peer.alphas_cumprod.double()
    peer.set_timesteps(20)
    sigmas = sigmas_from_alpha_bar(peer.alphas_cumprod[peer.timesteps])
    sigmas, shape = torch.cat([sigmas, sigmas.new_zeros(1)]), (2, 3, 4, 4)
    x = sigmas[0] * torch.randn(shape, dtype=F64)
    steps = []
    sample_ddim(
        nonlinear_denoiser, x, sigmas, noise=same_noise(7, shape), callback=steps.append, eta=eta
    )
    theirs = vp_steps(peer, x, sigmas, eta=eta, generator=torch.Generator().manual_seed(7))
    for step, expected in zip(steps, theirs, strict=True):
        assert_close(step.x, expected)


def test_deterministic_ddim_is_euler():
    sigmas, x = karras_sigmas(9), 80 * torch.randn(1, 3, 4, 4, dtype=F64)
    results = [sample(nonlinear_denoiser, x, sigmas) for sample in (sample_euler, sample_ddim)]
    assert_close(*results)


# -- the contract of every sampler ------------------------------------------------------------

NFE = {
    "dpmpp_2m": lambda n: n,
    "euler": lambda n: n,
    "heun": lambda n: 2 * n - 1,
    "ddim": lambda n: n,
    "ddpm": lambda n: n,
}


def test_every_sampler_has_a_known_cost():
    assert set(NFE) == set(GENERAL)


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_network_evaluations_are_as_many_as_documented(name, num_steps):
    denoiser = Counted(nonlinear_denoiser)
    SAMPLERS[name](denoiser, torch.zeros(1, 1, 2, 2, dtype=F64), karras_sigmas(num_steps))
    assert denoiser.nfe == NFE[name](num_steps)


@pytest.mark.parametrize("name", GENERAL)
def test_the_callback_sees_every_step(name):
    sigmas, steps = karras_sigmas(5), []
    x = sigmas[0] * torch.randn(2, 1, 2, 2, dtype=F64)
    result = SAMPLERS[name](nonlinear_denoiser, x, sigmas, callback=steps.append)
    assert [step.index for step in steps] == [1, 2, 3, 4, 5]
    assert {step.total for step in steps} == {5}
    assert [step.sigma for step in steps] == sigmas[1:].tolist()
    assert torch.equal(steps[-1].x, result)
    # Each step's estimate is that of the x before it.
    assert_close(steps[0].denoised, nonlinear_denoiser(x, 80.0))
    assert_close(steps[1].denoised, nonlinear_denoiser(steps[0].x, float(sigmas[1])))


@pytest.mark.parametrize("name", GENERAL)
def test_a_callback_that_returns_true_stops_and_gets_the_estimate(name):
    denoiser, steps = Counted(nonlinear_denoiser), []

    def stop_at_three(step):
        steps.append(step)
        return step.index == 3

    x = 80 * torch.randn(2, 1, 2, 2, dtype=F64)
    result = SAMPLERS[name](denoiser, x, karras_sigmas(8), callback=stop_at_three)
    assert len(steps) == 3
    assert torch.equal(result, steps[-1].denoised)
    assert denoiser.nfe == (6 if name == "heun" else 3)


@pytest.mark.parametrize("name", GENERAL)
def test_the_last_step_returns_the_denoised_image(name):
    # At sigma 0 no noise may be left, nor be added.
    steps = []
    x = 80 * torch.randn(2, 1, 2, 2, dtype=F64)
    result = SAMPLERS[name](nonlinear_denoiser, x, karras_sigmas(6), callback=steps.append)
    assert_close(result, steps[-1].denoised)


def test_ancestral_sampling_draws_noise_for_every_step_but_the_last():
    draws = []

    def noise():
        draws.append(torch.randn(1, 1, 2, 2, dtype=F64))
        return draws[-1]

    x = torch.zeros(1, 1, 2, 2, dtype=F64)
    sample_ddpm(nonlinear_denoiser, x, karras_sigmas(6), noise=noise)
    assert len(draws) == 5


@pytest.mark.parametrize("name", GENERAL)
def test_labels_reach_the_denoiser_and_the_start_is_left_alone(name):
    labels, x = torch.tensor([4, 2]), torch.randn(2, 1, 2, 2, dtype=F64)
    before = x.clone()

    def denoiser(x, sigma, class_labels):
        return class_labels.to(x)[:, None, None, None].expand_as(x)

    result = SAMPLERS[name](denoiser, x, karras_sigmas(4), class_labels=labels)
    assert_close(result, labels.to(x)[:, None, None, None].expand_as(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", GENERAL)
def test_samplers_keep_the_dtype_of_float32_images(name):
    result = SAMPLERS[name](nonlinear_denoiser, 80 * torch.randn(1, 1, 2, 2), karras_sigmas(4))
    assert result.dtype == torch.float32


def test_seeded_noise_belongs_to_the_seed_and_the_call():
    together, alone = SeededNoise([5, 9, 7], (3, 4, 4)), SeededNoise([9], (3, 4, 4))
    first, second = together(), together()
    assert first.shape == (3, 3, 4, 4)
    assert torch.equal(first[1:2], alone())
    assert torch.equal(second[1:2], alone())
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_seeded_noise_is_unit_normal():
    noise = SeededNoise(range(4), (3, 64, 64))()
    assert_close(noise.mean().item(), 0.0, rtol=0, atol=0.02)
    assert_close(noise.std().item(), 1.0, rtol=0, atol=0.02)
