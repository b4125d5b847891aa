"""The perceptual distance, with random weights of the real shapes' kind."""

import pytest
import torch
from torch.testing import assert_close

from diffusion.training import perceptual
from diffusion.training.perceptual import STAGES, PerceptualDistance

WIDTHS = (4, 6, 8)


@pytest.fixture
def distance() -> PerceptualDistance:
    """As the package's data file names its tensors, with fewer channels."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / 3

    weights = {
        "scaling_layer.shift": torch.full((1, 3, 1, 1), 0.1),
        "scaling_layer.scale": torch.full((1, 3, 1, 1), 0.5),
    }
    before = 3
    for stage, (indices, width) in enumerate(zip(STAGES, WIDTHS, strict=True)):
        name = f"net.slice{stage + 1}"
        if stage:
            weights[f"{name}.{indices[0] - 1}.filt"] = torch.full((before, 1, 3, 3), 1 / 9)
        for index in indices:
            weights[f"{name}.{index}.weight"] = random(width, before, 3, 3)
            weights[f"{name}.{index}.bias"] = random(width)
            before = width
        weights[f"lin{stage}.model.1.weight"] = random(1, width, 1, 1).abs()
    return PerceptualDistance(weights)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(2))


def test_it_is_a_number_for_each_pair_and_zero_for_equal_ones(distance):
    one, other = pair()
    apart = distance(one, other)
    assert apart.shape == (2,)
    assert (apart > 0).all()
    assert_close(distance(one, one), torch.zeros(2))
    assert_close(distance(other, one), apart)
    assert_close(distance(one[1:], other[1:]), apart[1:])
    near = distance(one, torch.lerp(one, other, 0.1))
    assert (near < apart / 4).all()


def test_features_are_unit_vectors_at_half_the_size_of_the_stage_before(distance):
    maps = distance.features(pair()[0])
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 16), (2, 6, 8, 8), (2, 8, 4, 4)]
    for stage in maps:
        norms = stage.norm(dim=1)
        assert_close(norms[norms > 0.5], torch.ones_like(norms[norms > 0.5]))


def test_every_stage_counts(distance):
    one, other = pair()
    whole = distance(one, other)
    for stage in range(3):
        weight = distance.get_buffer(f"lin{stage}_model_1_weight")
        before = weight.clone()
        weight.zero_()
        assert (distance(one, other) < whole).all()
        weight.copy_(before)


def test_the_gradient_is_that_of_the_pictures_alone(distance):
    one, other = pair()
    one.requires_grad_(True)
    other.requires_grad_(True)
    distance(one, other).sum().backward()
    assert one.grad.abs().sum() > 0
    assert other.grad is None
    assert not list(distance.parameters())


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps stlpips-pytorch"):
        PerceptualDistance.load()
