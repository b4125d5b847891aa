"""Layers of networks: the same as PyTorch's own, and packed weights that draw the same."""

import copy
import pickle
import platform
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import network, randomize_
from torch import nn
from torch.testing import assert_close

from diffusion.networks.layers import (
    PACKING,
    Conv2d,
    GroupNorm,
    NoiseEmbedding,
    attention,
    can_pack_weights,
    cast_weights_,
    pack_weights_,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [2, 16, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_norm_is_pytorchs_at_every_size(size, dtype):
    norm = randomize_(GroupNorm(24))
    x = (3 + 2 * torch.randn(2, 24, size, size)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    double = norm.weight.double(), norm.bias.double()
    expected = F.group_norm(x.double(), norm.num_groups, *double, norm.eps)
    normed = norm(x)
    assert normed.dtype == dtype
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert_close(normed.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_attention_is_pytorchs(dtype):
    q, k, v = torch.randn(3, 2, 4, 9, 8, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(q, k, v)
    attended = attention(q.to(dtype), k.to(dtype), v.to(dtype))
    assert attended.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert_close(attended.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("size", "changes"), [(8, {}), (80, {"patch_size": 4, "fine_channels": 8})]
)
def test_weights_in_bfloat16_leave_the_noise_level_as_it_is(size, changes):
    """Rounded frequencies would tell another noise level: up to 0.4 % of 100 radians."""
    exact, net = (network(**{"image_size": size} | changes) for _ in range(2))
    cast_weights_(net, torch.bfloat16)
    x, c_noise = torch.randn(4, 3, size, size), torch.tensor([-1.5, -0.3, 0.4, 1.1])
    output = net(x, c_noise)
    assert output.dtype == torch.bfloat16
    assert torch.equal(net.noise_embedding(c_noise), exact.noise_embedding(c_noise))
    assert (output - exact(x, c_noise)).std() < 0.02 * exact(x, c_noise).std()


@pytest.mark.parametrize(
    ("machine", "where", "dtype", "packs"),
    [
        ("x86_64", "cpu", torch.float32, True),
        ("AMD64", "cpu", torch.float32, True),
        ("x86_64", "cpu", torch.bfloat16, False),
        ("x86_64", "cuda", torch.float32, False),
        ("arm64", "cpu", torch.float32, False),  # nobody has measured it
    ],
)
def test_weights_are_packed_where_onednn_can(monkeypatch, machine, where, dtype, packs):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert can_pack_weights(torch.device(where), dtype) is packs


def test_without_pytorchs_private_operators_all_is_drawn_as_ever(monkeypatch):
    net, x, c_noise = network(), torch.randn(1, 3, 8, 8), torch.tensor([0.5])
    before = net(x, c_noise)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for dtype in (torch.float32, torch.bfloat16):
        for private in PACKING:
            others = SimpleNamespace(**{name: None for name in PACKING if name != private})
            monkeypatch.setattr(torch.ops, "mkldnn", others)
            assert not can_pack_weights(CPU, dtype)
    pack_weights_(net)
    assert torch.equal(net(x, c_noise), before)


@pytest.mark.skipif(
    not can_pack_weights(CPU, torch.float32), reason="oneDNN is not here, or on another processor"
)
class TestPackedWeights:
    @pytest.mark.parametrize(
        "dtype",
        [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack_weights(CPU, dtype)],
    )
    @pytest.mark.parametrize("changes", [{}, {"patch_size": 4, "fine_channels": 8}])
    def test_they_draw_the_same(self, changes, dtype):
        plain, packed = (network(**changes) for _ in range(2))
        for net in (plain, packed):
            cast_weights_(net, dtype)
        pack_weights_(packed)
        c_noise = torch.tensor([-0.3])
        with torch.inference_mode():
            for size in (16, 16, 32, 16):
                x = torch.randn(1, 3, size, size)
                assert_close(packed(x, c_noise), plain(x, c_noise), atol=1e-4, rtol=1e-4)

    def test_one_picture_is_drawn_with_them_several_and_gradients_are_not(self):
        conv = Conv2d(4, 6, 3, padding=1)
        pack_weights_(conv)
        x = torch.randn(2, 4, 8, 8)
        with torch.no_grad():
            first = conv(x[:1])
            nn.init.zeros_(conv.weight)
            assert torch.equal(conv(x[:1]), first)
            assert torch.equal(conv(x)[0, :, 0, 0], conv.bias)
        assert torch.equal(conv(x[:1])[0, :, 0, 0], conv.bias)
        assert conv(x[:1]).requires_grad

    def test_they_do_not_outlive_a_change_of_type(self):
        net = network()
        pack_weights_(net)
        x, c_noise = torch.randn(1, 3, 8, 8), torch.tensor([0.5])
        with torch.no_grad():
            net(x, c_noise)
            assert net.double()(x.double(), c_noise).dtype == torch.float64

    def test_where_they_cannot_be_packed_all_is_drawn_as_ever(self, monkeypatch):
        monkeypatch.setattr(platform, "machine", lambda: "arm64")
        conv = Conv2d(4, 6, 3, padding=1)
        pack_weights_(conv)
        with torch.no_grad():
            conv(torch.randn(1, 4, 8, 8))
        assert conv._packed is None

    def test_they_do_not_outlive_other_weights(self):
        conv = Conv2d(4, 6, 3, padding=1)
        pack_weights_(conv)
        x = torch.randn(1, 4, 8, 8)
        with torch.no_grad():
            conv(x)
            conv.load_state_dict({"weight": torch.zeros(6, 4, 3, 3), "bias": torch.ones(6)})
            assert (conv(x) == 1).all()

    def test_a_network_that_has_drawn_is_copied_and_pickled(self):
        net, x, c_noise = network(), torch.randn(1, 3, 8, 8), torch.tensor([0.5])
        pack_weights_(net)
        with torch.no_grad():
            drawn = net(x, c_noise)
            for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
                assert torch.equal(copied(x, c_noise), drawn)

    def test_they_are_in_no_checkpoint(self):
        net = network()
        names = list(net.state_dict())
        pack_weights_(net)
        with torch.no_grad():
            net(torch.randn(1, 3, 8, 8), torch.tensor([0.5]))
        assert list(net.state_dict()) == names


def test_noise_embedding_tells_noise_levels_apart():
    # From sigma 0.002 to 80, c_noise = ln(sigma) / 4; neighbours in a 100-step grid differ.
    c_noise = torch.linspace(-1.55, 1.1, 100)
    embedding = NoiseEmbedding(64)(c_noise)
    assert embedding.shape == (100, 64)
    distance = torch.cdist(embedding, embedding) + 100 * torch.eye(100)
    assert distance.min() > 0.3


def test_noise_embedding_is_cosines_and_sines_of_the_noise_level():
    embedding = NoiseEmbedding(4, lowest=1.0, highest=10.0)(torch.tensor([0.3]))
    angles = torch.tensor([0.3, 3.0])
    assert_close(embedding, torch.cat([angles.cos(), angles.sin()])[None])
