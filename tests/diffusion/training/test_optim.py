"""Muon by what it promises: orthogonal updates of a known size."""

from dataclasses import replace

import pytest
import torch
from helpers import SMALL
from torch import nn
from torch.testing import assert_close

from diffusion.denoiser import build_unet
from diffusion.training.optim import Muon, build_optimizers, orthogonalize


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8), (1, 12)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape):
    result = orthogonalize(torch.randn(shape))
    values = torch.linalg.svdvals(result)
    assert result.shape == shape
    # The quintic of Jordan et al. ends between 0.7 and 1.2; small singular values lag behind.
    assert values.max() < 1.25
    assert values.median() > 0.65


def test_orthogonalization_keeps_the_singular_vectors():
    u, _ = torch.linalg.qr(torch.randn(12, 6, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    values = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    inner = u.T @ orthogonalize(u @ values.diag() @ v.T) @ v
    off_diagonal = inner - inner.diag().diag()
    assert off_diagonal.abs().max() < 1e-9
    assert (inner.diag() - 1).abs().max() < 0.35


def newton_schulz(x: torch.Tensor) -> torch.Tensor:
    """As Jordan et al. print it."""
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def spread(values: torch.Tensor) -> torch.Tensor:
    """A wide matrix with these singular values."""
    u, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(9 * len(values), len(values), dtype=torch.float64))
    return u @ values.diag() @ v.T


@pytest.mark.parametrize("lowest", [-1, -6])
def test_orthogonalization_is_newton_schulz(lowest):
    matrix = spread(torch.logspace(0, lowest, 32, dtype=torch.float64))
    exact = newton_schulz(matrix)
    assert_close(orthogonalize(matrix), exact, rtol=0, atol=1e-7)
    assert (orthogonalize(matrix.float()) - exact).norm() < 2e-3 * exact.norm()


def test_directions_without_a_gradient_do_not_grow_out_of_rounding():
    matrix = spread(torch.tensor([3.0, 1.0] + [0.0] * 30, dtype=torch.float64)).float()
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert (values[:2] - 1).abs().max() < 0.35
    assert values[2:].max() < 0.05


@pytest.mark.parametrize("scale", [1e-4, 1e5])
def test_orthogonalization_does_not_depend_on_the_scale(scale):
    matrix = torch.randn(8, 20, dtype=torch.float64)
    assert_close(orthogonalize(scale * matrix), orthogonalize(matrix), rtol=1e-3, atol=1e-3)


def test_orthogonalizing_the_transpose_transposes():
    matrix = torch.randn(8, 20)
    assert_close(orthogonalize(matrix.T), orthogonalize(matrix).T, rtol=1e-4, atol=1e-4)


def test_a_zero_gradient_moves_nothing():
    weight = nn.Parameter(torch.randn(4, 4))
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight.detach(), before)


@pytest.mark.parametrize("shape", [(32, 16, 3, 3), (16, 64, 1, 1), (64, 16, 1, 1)])
def test_an_update_has_an_rms_of_a_fifth_of_the_learning_rate(shape):
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = 1e3 * torch.randn(shape)
    Muon([weight], lr=0.01).step()
    assert_close(weight.detach().square().mean().sqrt().item(), 0.2 * 0.01, rtol=0.2, atol=0)


def test_a_step_goes_downhill():
    # Muon's update has a positive inner product with the gradient.
    weight, target = nn.Parameter(torch.zeros(8, 3, 3, 3)), torch.randn(8, 3, 3, 3)
    optimizer, losses = Muon([weight], lr=0.05), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (weight - target).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[1] < losses[0]
    assert losses[-1] < 0.8 * losses[0]


def test_momentum_is_nesterovs():
    first, second = torch.randn(2, 6, 4, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
    optimizer = Muon([weight], lr=1.0, momentum=0.9)
    for gradient in (first, second):
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
    momentum = 0.9 * 0.1 * first + 0.1 * second
    direction = orthogonalize(0.1 * second + 0.9 * momentum)
    assert_close(weight.detach() - before, -0.2 * 6**0.5 * direction)


def test_weight_decay_shrinks_by_the_learning_rate():
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert_close(weight.detach(), torch.full((4, 4), 0.95))


def test_parameters_without_a_gradient_are_left_out():
    weight = nn.Parameter(torch.ones(4, 4))
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weight.detach(), torch.ones(4, 4))


def options(name: str) -> dict:
    return {"name": name, "lr": 1e-3, "muon_lr": 2e-2, "weight_decay": 0.1, "fused": False}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_has_exactly_one_optimizer(name):
    net = build_unet(SMALL)
    optimizers = build_optimizers(net, **options(name))
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert len(optimizers) == (2 if name == "muon" else 1)
    assert sorted(held) == sorted(id(p) for p in net.parameters())


def test_muon_gets_the_inner_convolutions_only():
    net = build_unet(replace(SMALL, fine_channels=8))
    adamw, muon = build_optimizers(net, **options("muon"))
    names = {id(p): name for name, p in net.named_parameters()}
    held = {names[id(p)] for p in muon.param_groups[0]["params"]}
    assert "down.0.block.conv_in.weight" in held
    assert "middle.0.attention.qkv.weight" in held
    assert "fine.block.conv_in.weight" in held
    assert not held & {"conv_in.weight", "conv_out.weight", "noise_mlp.0.weight"}
    assert not held & {"fine.conv_in.weight", "fine.conv_out.weight"}
    assert all(p.ndim == 4 for p in muon.param_groups[0]["params"])
    assert (adamw.param_groups[0]["lr"], muon.param_groups[0]["lr"]) == (1e-3, 2e-2)
    assert muon.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_labels_may_learn_at_a_rate_of_their_own(name):
    net = build_unet(replace(SMALL, num_classes=3))
    optimizers = build_optimizers(net, **{**options(name), "label_lr": 0.5})
    held = [p for o in optimizers for p in o.param_groups[0]["params"]]
    assert sorted(map(id, held)) == sorted(map(id, net.parameters()))
    rates = {o.param_groups[0]["lr"]: o.param_groups[0]["params"] for o in optimizers}
    assert [id(p) for p in rates[0.5]] == [id(net.class_embedding.weight)]


def test_the_labels_alone_need_no_other_optimizer():
    net = build_unet(replace(SMALL, num_classes=3)).requires_grad_(False)
    net.class_embedding.requires_grad_(True)
    (only,) = build_optimizers(net, **{**options("adamw"), "label_lr": 0.5})
    assert only.param_groups[0]["lr"] == 0.5
