"""Guidance and repainting: wrappers that a sampler takes for a denoiser."""

import dataclasses

import pytest
import torch
from helpers import SMALL, latent_denoiser, randomize_, small_denoiser
from torch import nn
from torch.testing import assert_close

from diffusion.config import ModelConfig
from diffusion.denoiser import Denoiser
from diffusion.guidance import Guided, Repaint

F64 = torch.float64


def per_image(values):
    return values[:, None, None, None]


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


def test_a_guide_knows_the_latents_of_the_same_encoder():
    denoiser, guide = latent_denoiser(), latent_denoiser()
    assert denoiser.guided_by(guide).guide is guide
    next(guide.codec.network.encoder.parameters()).data += 1
    with pytest.raises(ValueError, match="another encoder"):
        denoiser.guided_by(guide)


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
