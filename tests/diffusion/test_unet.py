"""The raw network: its start at zero, its shapes, and what its output may depend on."""

import copy
import pickle
import platform
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import SMALL, randomize_
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from diffusion.config import PRESETS
from diffusion.denoiser import build_unet
from diffusion.layers import (
    Conv2d,
    GroupNorm,
    NoiseEmbedding,
    attention,
    can_pack_weights,
    cast_weights_,
    pack_weights_,
)
from diffusion.unet import ResidualBlock, SelfAttention, UNet

CPU = torch.device("cpu")


def network(**changes) -> UNet:
    torch.manual_seed(2)
    return randomize_(build_unet(replace(SMALL, **changes))).eval().requires_grad_(False)


@pytest.mark.parametrize("changes", [{}, {"num_classes": 3, "augment_channels": 6}])
def test_an_untrained_network_outputs_exactly_zero(changes):
    x, c_noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    assert not build_unet(replace(SMALL, **changes))(x, c_noise).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_starts_at_zero(preset):
    with torch.no_grad():
        output = build_unet(PRESETS[preset].model)(torch.randn(1, 3, 64, 64), torch.zeros(1))
    assert output.shape == (1, 3, 64, 64)
    assert not output.any()


def test_untrained_blocks_are_the_identity():
    x, emb = torch.randn(2, 16, 4, 4), torch.randn(2, 64)
    assert torch.equal(ResidualBlock(16, 16, 64, 0.0)(x, emb), x)
    assert torch.equal(SelfAttention(16, 8)(x), x)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (24, 40), (64, 64)])
@pytest.mark.parametrize(("patch_size", "fine_channels"), [(1, 0), (2, 0), (4, 8)])
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_any_multiple_of_the_coarsest_patch_is_a_possible_size(
    size, patch_size, fine_channels, num_blocks
):
    net = network(patch_size=patch_size, fine_channels=fine_channels, num_blocks=num_blocks)
    output = net(torch.randn(1, 3, *size), torch.zeros(1))
    assert output.shape == (1, 3, *size)
    assert output.std() > 0.01


def test_three_levels_work_at_any_multiple_of_eight():
    net = network(channel_mult=(1, 2, 3), image_size=64, attention_resolutions=(8,))
    for size in (8, 24, 64):
        assert net(torch.randn(1, 3, size, size), torch.zeros(1)).shape == (1, 3, size, size)


def test_a_refinement_adds_to_what_the_patches_say():
    coarse = network(patch_size=4, image_size=16)
    fine = network(patch_size=4, image_size=16, fine_channels=8)
    fine.load_state_dict(coarse.state_dict(), strict=False)
    x, c_noise = torch.randn(2, 3, 16, 16), torch.randn(2)
    added = fine(x, c_noise) - coarse(x, c_noise)
    assert added.std() > 0.01
    torch.nn.init.zeros_(fine.fine.conv_out.weight)
    torch.nn.init.zeros_(fine.fine.conv_out.bias)
    assert torch.equal(fine(x, c_noise), coarse(x, c_noise))


def test_a_refinement_is_told_of_noise_and_of_the_features():
    fine = network(patch_size=4, image_size=16, fine_channels=8).fine
    x, features, emb = torch.randn(1, 12, 8, 8), torch.randn(1, 16, 4, 4), torch.randn(1, 64)
    output = fine(x, features, emb)
    assert output.shape == (1, 12, 8, 8)
    for changed in ((x + 1, features, emb), (x, features + 1, emb), (x, features, emb + 1)):
        assert (fine(*changed) - output).abs().max() > 1e-3


def test_no_label_is_the_null_class():
    net = network(num_classes=3)
    x, c_noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    assert torch.equal(net(x, c_noise), net(x, c_noise, torch.full((2,), 3)))


def test_labels_may_be_weights_that_mix_their_embeddings():
    net = network(num_classes=3)
    c_noise, labels = torch.randn(4), torch.tensor([0, 1, 2, 3])
    x, weights = torch.randn(4, 3, 8, 8), torch.nn.functional.one_hot(labels, 4).float()
    assert_close(net(x, c_noise, weights), net(x, c_noise, labels))
    net.class_embedding.weight[2] = 0.25 * net.class_embedding.weight[0]
    net.class_embedding.weight[2] += 0.75 * net.class_embedding.weight[1]
    mixed = torch.tensor([[0.25, 0.75, 0.0, 0.0]]).expand(4, 4)
    assert_close(net(x, c_noise, mixed), net(x, c_noise, torch.full((4,), 2)))


def test_output_depends_on_image_noise_level_label_and_augmentation():
    net = network(num_classes=3, augment_channels=6)
    x, c_noise = torch.randn(1, 3, 8, 8), torch.randn(1)
    label, augment = torch.tensor([1]), torch.randn(1, 6)
    output = net(x, c_noise, label, augment)
    others = [
        net(x + 0.1, c_noise, label, augment),
        net(x, c_noise + 0.1, label, augment),
        net(x, c_noise, torch.tensor([2]), augment),
        net(x, c_noise, label, augment + 1),
    ]
    for other in others:
        assert (other - output).abs().max() > 1e-3


def test_no_augmentation_is_all_parameters_zero():
    # What makes the augmentation non-leaking: sampling passes None.
    net = network(augment_channels=6)
    x, c_noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    assert_close(net(x, c_noise), net(x, c_noise, None, torch.zeros(2, 6)))


def test_images_of_a_batch_do_not_see_each_other():
    net = network(num_classes=3)
    x, c_noise, labels = torch.randn(3, 3, 8, 8), torch.randn(3), torch.tensor([0, 3, 1])
    together = net(x, c_noise, labels)
    for i in range(3):
        alone = net(x[i : i + 1], c_noise[i : i + 1], labels[i : i + 1])
        assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("size", [8, 16, 24])
def test_memory_layout_changes_nothing(size):
    net = network()
    x, c_noise = torch.randn(2, 3, size, size), torch.randn(2)
    output = net(x, c_noise)
    assert_close(net(x.to(memory_format=torch.channels_last), c_noise), output)
    assert_close(network().to(memory_format=torch.contiguous_format)(x, c_noise), output)


def test_weights_are_channels_last():
    weight = network().down[0].block.conv_out.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_every_parameter_takes_part():
    net = network(num_classes=2, augment_channels=6).requires_grad_(True)
    labels = torch.tensor([0, 1, 2])
    net(
        torch.randn(3, 3, 8, 8), torch.randn(3), labels, torch.randn(3, 6)
    ).square().sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_every_pixel_of_the_input_can_reach_every_pixel_of_the_output():
    # Pixel (un)shuffling, skips and attention all lie on this path.
    net = network()
    x = torch.randn(1, 3, 8, 8)
    changed = x.clone()
    changed[0, 0, 0, 0] += 1
    difference = net(changed, torch.zeros(1)) - net(x, torch.zeros(1))
    assert (difference != 0).all()


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_the_way_up_is_given_the_features_of_the_way_down_last_first(num_blocks):
    net, down, up = network(num_blocks=num_blocks), [], []
    for module in (net.conv_in, *net.down):
        module.register_forward_hook(lambda module, inputs, output: down.append(output))
    for level in net.up:
        level.register_forward_pre_hook(lambda module, inputs: up.append(inputs[0]))
    net(torch.randn(1, 3, 8, 8), torch.zeros(1))
    # 8 pixels are 4 patches; the second level halves them.
    assert [features.shape[-1] for features in down] == [4] * (1 + num_blocks) + [2] * num_blocks
    for features, given in zip(reversed(down), up, strict=True):
        assert torch.equal(given[:, -features.shape[1] :], features)


def test_attention_is_softmax_attention_over_positions():
    attention = randomize_(SelfAttention(16, 8)).eval()
    x = torch.randn(2, 16, 3, 5).to(memory_format=torch.channels_last)
    q, k, v = attention.qkv(attention.norm(x)).flatten(2).view(2, 3, 2, 8, 15).unbind(1)
    weights = torch.einsum("nhdi,nhdj->nhij", q, k).div(8**0.5).softmax(dim=-1)
    h = torch.einsum("nhij,nhdj->nhdi", weights, v).reshape(2, 16, 3, 5)
    assert_close(attention(x), x + attention.out(h))


def test_attention_sits_where_the_resolution_asks_for_it():
    net = network(image_size=64, channel_mult=(1, 2, 3), attention_resolutions=(16,))
    # Feature resolutions: 32, 16, 8 down; 8, 8 in the middle; 8, 16, 32, 32 up.
    has = [isinstance(level.attention, SelfAttention) for level in (*net.down, *net.up)]
    assert has == [False, True, False, False, True, False, False]
    assert not isinstance(net.middle[0].attention, SelfAttention)


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


def test_dropout_acts_in_training_only():
    net = network(dropout=0.5)
    x, c_noise = torch.randn(1, 3, 8, 8), torch.zeros(1)
    assert torch.equal(net(x, c_noise), net(x, c_noise))
    net.train()
    assert not torch.equal(net(x, c_noise), net(x, c_noise))


def test_small_config_builds_the_same_network_as_its_arguments():
    assert sum(p.numel() for p in build_unet(SMALL).parameters()) == sum(
        p.numel() for p in network().parameters()
    )


# name: (most parameters, fewest and most multiply-adds for one image)
BUDGETS = {
    "cat-64": (30e6, 2.5e9, 6e9),
    "cat-64-lite": (10e6, 1e9, 1.5e9),
    "cat-64-guide": (2.5e6, 0.2e9, 0.4e9),
    "cat-128-lite": (10e6, 1e9, 1.5e9),
    "cat-128-guide": (2.5e6, 0.2e9, 0.4e9),
    "ddpm-2020": (30e6, 2e9, 8e9),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_stay_within_their_budget(preset):
    most_parameters, fewest, most = BUDGETS[preset]
    with torch.device("meta"):
        net = build_unet(PRESETS[preset].model)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            size = PRESETS[preset].model.image_size
            net(torch.empty(1, 3, size, size), torch.empty(1))
    assert sum(p.numel() for p in net.parameters()) <= most_parameters
    assert fewest <= counter.get_total_flops() / 2 <= most
