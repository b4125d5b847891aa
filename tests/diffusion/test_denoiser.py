"""The boundary D(x; sigma) -> x0: preconditioning, loss, parameterizations, guidance."""

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler
from helpers import SMALL, Nonlinear, randomize_, small_denoiser
from torch import nn
from torch.testing import assert_close

from diffusion import device
from diffusion.config import ModelConfig
from diffusion.denoiser import Denoiser, build_unet
from diffusion.guidance import Guided, Repaint
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


# -- guidance ---------------------------------------------------------------------------------


class Labelled(nn.Module):
    """A denoiser whose answer depends on the label, and that records what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def forward(self, x, sigma, class_labels=None):
        self.calls.append((x, sigma, class_labels))
        if class_labels is None:
            return torch.sin(x)
        scale = per_image(torch.as_tensor(sigma) + x.new_ones(len(x)))
        return torch.sin(x + per_image(class_labels.to(x))) / scale


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.5])
@pytest.mark.parametrize("sigma", [1.5, torch.tensor([0.5, 2.0, 3.0], dtype=F64)])
def test_guidance_is_the_linear_combination(guidance, sigma):
    denoiser, labels = Labelled(), torch.tensor([0, 1, 0])
    x = torch.randn(3, 1, 2, 32, dtype=F64)
    with_label, without = denoiser(x, sigma, labels), denoiser(x, sigma, torch.full((3,), 2))
    denoiser.calls.clear()
    guided = Guided(denoiser, guidance, null_label=2)(x, sigma, labels)
    assert_close(guided, without + guidance * (with_label - without))
    assert len(denoiser.calls) == 1  # both halves in one batch


def test_guidance_of_1_is_the_unguided_denoiser_at_its_cost():
    denoiser, labels = Labelled(), torch.tensor([0, 1, 0])
    x = torch.randn(3, 1, 2, 2, dtype=F64)
    expected = denoiser(x, 1.5, labels)
    denoiser.calls.clear()
    assert torch.equal(Guided(denoiser, 1.0, null_label=2)(x, 1.5, labels), expected)
    assert len(denoiser.calls) == 1
    assert len(denoiser.calls[0][0]) == 3


def test_guidance_without_a_label_is_the_unguided_denoiser():
    denoiser, x = Labelled(), torch.randn(3, 1, 2, 2, dtype=F64)
    guided = Guided(denoiser, 4.0, null_label=2)(x, 1.5)
    assert torch.equal(guided, torch.sin(x))
    assert len(denoiser.calls) == 1


def test_guidance_towards_the_null_label_changes_nothing_in_a_network():
    config = ModelConfig(**{**SMALL.to_dict(), "num_classes": 2})
    denoiser = randomize_(Denoiser.from_config(config)).requires_grad_(False)
    x, null = torch.randn(2, 3, 8, 8), torch.full((2,), 2)
    expected = denoiser(x, 0.8)
    assert_close(Guided(denoiser, 3.0, null_label=2)(x, 0.8, null), expected)
    labelled = Guided(denoiser, 3.0, null_label=2)(x, 0.8, torch.tensor([0, 1]))
    assert (labelled - expected).abs().max() > 1e-3


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 0])])
def test_a_guide_is_what_guidance_leads_away_from(labels):
    denoiser, guide = Labelled(), Labelled()
    x = torch.randn(3, 1, 2, 32, dtype=F64)
    strong, weak = denoiser(x, 1.5, labels), torch.cos(x)
    guide.forward = lambda x, sigma, class_labels=None: torch.cos(x)
    for guidance in (0.0, 0.5, 2.5):
        guided = Guided(denoiser, guidance, null_label=2, guide=guide)
        assert_close(guided(x, 1.5, labels), weak + guidance * (strong - weak))
    denoiser.calls.clear()
    guide.forward = None  # at 1 it is not asked
    assert torch.equal(Guided(denoiser, 1, null_label=2, guide=guide)(x, 1.5, labels), strong)
    assert len(denoiser.calls) == 1


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


@pytest.mark.parametrize(("width", "limit"), [(64, 8.0), (128, 16.0)])
@pytest.mark.parametrize("guide", [None, Labelled()], ids=["label", "guide"])
def test_in_much_noise_the_denoiser_answers_alone(guide, width, limit):
    denoiser, labels = Labelled(), torch.tensor([0, 1])
    x = torch.randn(2, 1, 2, width, dtype=F64)
    guided = Guided(denoiser, 2.5, null_label=2, guide=guide, below=limit)
    above, below = limit + 0.1, limit - 0.1
    for sigma, alone in ((above, True), (limit, False), (torch.tensor([above, 80.0]), True),
                         (torch.tensor([below, 80.0]), False)):  # fmt: skip
        expected = denoiser(x, sigma, labels)
        for asked in filter(None, (denoiser, guide)):
            asked.calls.clear()
        assert torch.equal(guided(x, sigma, labels), expected) == alone
        if guide:
            assert bool(guide.calls) == (not alone)
        else:
            assert len(denoiser.calls[0][0]) == (2 if alone else 4)


@pytest.mark.parametrize("guide", [None, Labelled()], ids=["null label", "guide"])
def test_texture_is_guided_less(guide):
    denoiser, labels = Labelled(), torch.tensor([0, 1])
    x = torch.randn(2, 1, 2, 32, dtype=F64)
    guided = Guided(denoiser, 2.5, null_label=2, guide=guide, texture_below=0.3, texture_share=0.4)
    just_below = 0.3 - 1e-3
    for sigma, weight in ((0.3, 2.5), (just_below, 1.6), (torch.tensor([0.02, 1]), 2.5),
                          (torch.tensor([0.02, just_below]), 1.6)):  # fmt: skip
        strong = denoiser(x, sigma, labels)
        weak = guide(x, sigma) if guide else denoiser(x, sigma, torch.full((2,), 2))
        assert_close(guided(x, sigma, labels), weak + weight * (strong - weak))


def test_another_guide_takes_its_place():
    weak = small_denoiser(dataclasses.replace(SMALL, channels=8))
    first = small_denoiser(dataclasses.replace(SMALL, num_classes=2))
    guided = first.guided_by(weak)
    assert guided.info.guide == weak.info.model
    assert guided.info.history == ("guide: 0 images of unnamed data",)
    assert guided.guide is weak
    assert guided.model is first.model
    assert first.guide is None
    weaker = small_denoiser(dataclasses.replace(SMALL, channels=4))
    again = guided.guided_by(weaker)
    assert again.info.guide == weaker.info.model
    assert len(again.info.history) == 1
    with pytest.raises(ValueError, match="without CheckpointInfo"):
        Denoiser(first.model).guided_by(weak)
    for misfit, sentence in (
        ({"num_classes": 1}, "must not have labels"),
        ({"image_size": 16}, "same size"),
    ):
        with pytest.raises(ValueError, match=sentence):
            first.guided_by(small_denoiser(dataclasses.replace(SMALL, **misfit)))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_labels_as_weights_guide_as_labels_do(guidance):
    config = ModelConfig(**{**SMALL.to_dict(), "num_classes": 2})
    denoiser = randomize_(Denoiser.from_config(config)).requires_grad_(False)
    x, labels = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2])
    weights = torch.nn.functional.one_hot(labels, 3).float()
    guided = Guided(denoiser, guidance, null_label=2)
    assert_close(guided(x, 0.8, weights), guided(x, 0.8, labels))


def test_repainting_knows_the_kept_part_and_asks_for_the_rest():
    denoiser, labels = Labelled(), torch.tensor([0, 1])
    x, picture = torch.randn(2, 2, 3, 4, 4, dtype=F64)
    keep = torch.rand(2, 1, 4, 4) > 0.5
    result = Repaint(denoiser, picture, keep)(x, 1.5, labels)
    expected = torch.where(keep, picture, denoiser(x, 1.5, labels))
    assert torch.equal(result, expected)
