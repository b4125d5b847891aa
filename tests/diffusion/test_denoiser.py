"""The boundary D(x; sigma) -> x0: preconditioning, loss, parameterizations, guidance."""

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler
from helpers import SMALL, Nonlinear, small_denoiser
from torch import nn
from torch.testing import assert_close

from diffusion import device
from diffusion.config import ModelConfig
from diffusion.denoiser import Denoiser, build_unet
from diffusion.parameterizations import (
    EDM,
    Epsilon,
    Velocity,
    build_parameterization,
    training_sigma,
)
from diffusion.samplers import sample_heun
from diffusion.schedules import cosine_alpha_bar, karras_sigmas, linear_alpha_bar

F64 = torch.float64
SIGMAS = torch.tensor([0.002, 0.05, 0.3, 0.5, 2.0, 80.0], dtype=F64)
DISCRETE = [(Epsilon, linear_alpha_bar), (Velocity, cosine_alpha_bar)]


class Ideal(nn.Module):
    """A network that returns the right answer, whatever it is asked, and keeps the question."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x_in, c_noise, class_labels=None, augment=None):
        self.x_in, self.c_noise, self.class_labels = x_in, c_noise, class_labels
        self.augment = augment
        return self.answer


def per_image(values):
    return values[:, None, None, None]


# -- EDM --------------------------------------------------------------------------------------


def test_edm_coefficients_are_those_of_table_1():
    sigma_data = 0.4
    c_skip, c_out, c_in, c_noise = EDM(sigma_data=sigma_data).coefficients(SIGMAS)
    variance = SIGMAS**2 + sigma_data**2
    assert_close(c_skip, sigma_data**2 / variance)
    assert_close(c_out, SIGMAS * sigma_data / variance.sqrt())
    assert_close(c_in, 1 / variance.sqrt())
    assert_close(c_noise, SIGMAS.log() / 4)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_edm_gives_the_network_unit_variance_in_and_out(sigma):
    # What c_in, c_out and c_skip are for (Karras et al. 2022, App. B.6).
    x0 = 0.5 * torch.randn(4, 3, 64, 64, dtype=F64)
    noise = torch.randn_like(x0)
    network = Ideal(torch.zeros_like(x0))
    loss = Denoiser(network, EDM(sigma_data=0.5)).loss(
        x0, torch.full((4,), sigma, dtype=F64), noise
    )
    assert_close(network.x_in.std().item(), 1.0, rtol=0.02, atol=0)
    assert_close(loss.mean().item(), 1.0, rtol=0.03, atol=0)


@pytest.mark.parametrize("parameterization", [EDM(), Epsilon(), Velocity()])
def test_the_loss_is_the_x0_error_weighted_by_1_over_c_out_squared(parameterization):
    denoiser = Denoiser(Nonlinear(), parameterization)
    x0, noise = torch.randn(2, 6, 3, 4, 4, dtype=F64)
    sigma = SIGMAS.clamp(0.02, 50.0)
    loss = denoiser.loss(x0, sigma, noise)
    error = (denoiser(x0 + per_image(sigma) * noise, sigma) - x0).square().mean(dim=(1, 2, 3))
    assert loss.shape == (6,)
    # float32: the loss is computed from a network output in single precision.
    assert_close(loss, error / parameterization.coefficients(sigma).c_out ** 2, rtol=1e-4, atol=0)


def test_an_untrained_unet_has_an_expected_loss_of_1_at_every_sigma():
    denoiser = Denoiser.from_config(SMALL)
    x0, noise = torch.randn(2, 256, 3, 8, 8)
    for sigma in SIGMAS.tolist():
        loss = denoiser.loss(0.5 * x0, torch.full((256,), sigma), noise)
        assert_close(loss.mean().item(), 1.0, rtol=0.03, atol=0)


def test_an_untrained_unet_is_the_exact_denoiser_of_a_gaussian():
    config = ModelConfig(**{**SMALL.to_dict(), "sigma_data": 0.7})
    denoiser = Denoiser.from_config(config)
    x = torch.randn(6, 3, 8, 8)
    sigma = SIGMAS.float()
    assert_close(denoiser(x, sigma), x * per_image(0.49 / (0.49 + sigma**2)))


def test_an_untrained_unet_samples_the_gaussian():
    denoiser = Denoiser.from_config(SMALL)
    sigmas = karras_sigmas(60)
    x = sigmas[0].float() * torch.randn(4, 3, 8, 8)
    expected = x * 0.5 / (80.0**2 + 0.5**2) ** 0.5
    assert_close(sample_heun(denoiser, x, sigmas), expected, rtol=0.01, atol=0)


def test_edm_trains_at_its_lognormal_density():
    generator = torch.Generator().manual_seed(0)
    log_sigma = training_sigma(EDM(), 4096, P_mean=-0.6, P_std=0.9, generator=generator).log()
    assert_close(log_sigma.mean().item(), -0.6, rtol=0, atol=0.01)
    assert_close(log_sigma.std().item(), 0.9, rtol=0, atol=0.01)


# -- noise prediction and v-prediction --------------------------------------------------------


def test_noise_prediction_gives_back_x0_from_the_exact_noise():
    x0, noise = torch.randn(2, 6, 3, 4, 4, dtype=F64)
    denoiser = Denoiser(Ideal(noise), Epsilon())
    assert_close(denoiser(x0 + per_image(SIGMAS) * noise, SIGMAS), x0)
    assert_close(denoiser.loss(x0, SIGMAS, noise), torch.zeros(6, dtype=F64), atol=1e-6, rtol=0)


def test_v_prediction_gives_back_x0_from_the_exact_v():
    x0, noise = torch.randn(2, 6, 3, 4, 4, dtype=F64)
    alpha = per_image(1 / (1 + SIGMAS**2).sqrt())
    v = alpha * noise - per_image(SIGMAS) * alpha * x0
    denoiser = Denoiser(Ideal(v), Velocity())
    assert_close(denoiser(x0 + per_image(SIGMAS) * noise, SIGMAS), x0)
    assert_close(denoiser.loss(x0, SIGMAS, noise), torch.zeros(6, dtype=F64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("parameterization", [Epsilon(), Velocity()])
def test_discrete_networks_see_the_variance_preserving_image(parameterization):
    x0, noise = torch.randn(2, 5, 3, 4, 4, dtype=F64)
    t = torch.tensor([0, 3, 400, 800, 998])
    sigma = parameterization.sigmas[t]
    alpha_bar = per_image(1 / (1 + sigma**2))
    network = Ideal(torch.zeros_like(x0))
    Denoiser(network, parameterization)(x0 + per_image(sigma) * noise, sigma)
    assert_close(network.x_in, alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise)
    assert_close(network.c_noise, t / 1000.0, check_dtype=False)


@pytest.mark.parametrize(
    ("parameterization", "prediction", "betas"),
    [
        (Epsilon(), "epsilon", "linear"),
        (Velocity(), "v_prediction", "squaredcos_cap_v2"),
    ],
)
def test_discrete_networks_are_read_as_diffusers_reads_them(parameterization, prediction, betas):
    peer = DDIMScheduler(prediction_type=prediction, beta_schedule=betas, clip_sample=False)
    peer.alphas_cumprod = peer.alphas_cumprod.double()
    peer.set_timesteps(10)
    sample, output = torch.randn(2, 1, 3, 4, 4, dtype=F64)
    for t in peer.timesteps:
        expected = peer.step(output, t, sample).pred_original_sample
        denoiser = Denoiser(Ideal(output), parameterization)
        x0 = denoiser(sample / peer.alphas_cumprod[t].sqrt(), parameterization.sigmas[t])
        assert_close(x0, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "alpha_bar"), DISCRETE)
def test_the_timestep_of_a_level_is_its_index(kind, alpha_bar):
    parameterization = kind()
    t = torch.arange(1000, dtype=F64)
    sigmas = ((1 - alpha_bar()) / alpha_bar()).sqrt()
    assert_close(parameterization.timestep(sigmas), t)
    # In single precision, as in sampling.
    assert_close(parameterization.timestep(sigmas.float()), t.float(), rtol=0, atol=1e-2)


@pytest.mark.parametrize(("kind", "alpha_bar"), DISCRETE)
def test_timesteps_between_levels_are_linear_in_log_sigma(kind, alpha_bar):
    parameterization = kind()
    levels = parameterization.sigmas
    between = levels[:-1] ** 0.75 * levels[1:] ** 0.25
    assert_close(parameterization.timestep(between), torch.arange(999, dtype=F64) + 0.25)
    outside = torch.tensor([1e-5, 1e6], dtype=F64)
    assert_close(parameterization.timestep(outside).tolist(), [0.0, 999.0])


@pytest.mark.parametrize("kind", [Epsilon, Velocity])
def test_discrete_networks_train_at_all_their_levels_alike(kind):
    parameterization = kind()
    generator = torch.Generator().manual_seed(0)
    sigma = training_sigma(parameterization, 20_000, generator=generator)
    assert sigma.dtype == torch.float32
    assert torch.isin(sigma, parameterization.sigmas.float()).all()
    t = parameterization.timestep(sigma.double())
    counts = torch.histc(t, bins=4, min=-0.5, max=999.5)
    assert_close(counts, torch.full((4,), 5000.0, dtype=F64), rtol=0, atol=4 * 5000**0.5)
    assert t.round().min() == 0
    assert t.round().max() == 999


# -- the denoiser and its network -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [("edm", EDM), ("epsilon", Epsilon), ("velocity", Velocity)]
)
def test_a_config_names_its_parameterization(name, kind):
    config = ModelConfig(parameterization=name, sigma_data=0.3)
    parameterization = build_parameterization(config)
    assert type(parameterization) is kind
    if name == "edm":
        assert parameterization.sigma_data == 0.3


def test_sigma_may_be_a_number_or_one_per_image():
    denoiser = Denoiser(Nonlinear())
    x = torch.randn(3, 3, 4, 4, dtype=F64)
    expected = denoiser(x, torch.full((3,), 0.7, dtype=F64))
    assert torch.equal(denoiser(x, 0.7), expected)
    assert torch.equal(denoiser(x, torch.tensor(0.7, dtype=F64)), expected)
    assert expected.dtype == F64


def test_labels_and_augmentation_reach_the_network():
    x0, labels, augment = torch.randn(2, 3, 4, 4), torch.tensor([1, 0]), torch.randn(2, 6)
    network = Ideal(torch.zeros_like(x0))
    Denoiser(network).loss(x0, torch.ones(2), torch.randn_like(x0), labels, augment)
    assert network.class_labels is labels
    assert network.augment is augment
    Denoiser(network)(x0, 1.0, labels)
    assert network.class_labels is labels
    assert network.augment is None


def test_a_network_in_bfloat16_leaves_the_skip_path_exact():
    # Near sigma 0 D must return x itself, to the last bit of float32.
    x = torch.randn(2, 3, 4, 4)
    denoiser = Denoiser(Ideal(torch.ones_like(x).bfloat16()))
    result = denoiser(x, 1e-9)
    assert result.dtype == torch.float32
    assert_close(result, x, rtol=0, atol=1e-6)


def test_the_network_is_built_to_the_shape_of_its_config():
    network = build_unet(ModelConfig(**{**SMALL.to_dict(), "num_classes": 3}))
    assert network.num_classes == 3
    assert network(torch.zeros(1, 3, 8, 8), torch.zeros(1)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("bf16", [False, True])
def test_what_samples_is_kept_in_the_type_that_it_draws_in(tmp_path, monkeypatch, bf16):
    monkeypatch.setattr(device, "fast_bf16", lambda device: bf16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    denoiser = small_denoiser(guide=dataclasses.replace(SMALL, channels=8))
    denoiser.save(tmp_path / "small.safetensors")
    loaded = Denoiser.load_for_sampling(tmp_path / "small.safetensors")
    for module in loaded.modules():
        wide = isinstance(module, nn.GroupNorm) or not bf16
        for weight in module.parameters(recurse=False):
            assert weight.dtype == (torch.float32 if wide else torch.bfloat16)
    assert loaded(torch.randn(1, 3, 8, 8), 0.5).dtype == torch.float32
