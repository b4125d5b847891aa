"""The raw network: its start at zero, its shapes, and what its output may depend on."""

from dataclasses import replace

import pytest
import torch
from helpers import SMALL, network, randomize_
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from diffusion.denoiser import build_unet
from diffusion.networks.unet import ResidualBlock, SelfAttention
from diffusion.presets import PRESETS


@pytest.mark.parametrize("changes", [{}, {"num_classes": 3, "augment_channels": 6}])
def test_an_untrained_network_outputs_exactly_zero(changes):
    x, c_noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    assert not build_unet(replace(SMALL, **changes))(x, c_noise).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_starts_at_zero(preset):
    model = PRESETS[preset].model
    x = torch.randn(1, model.image_channels, 64, 64)
    with torch.no_grad():
        output = build_unet(model)(x, torch.zeros(1))
    assert output.shape == x.shape
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
    "cat-256-lite": (10e6, 1e9, 1.5e9),
    "cat-256-guide": (2.5e6, 0.2e9, 0.4e9),
    "cat-256": (50e6, 3e9, 8e9),
    "ddpm-2020": (30e6, 2e9, 8e9),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_stay_within_their_budget(preset):
    most_parameters, fewest, most = BUDGETS[preset]
    with torch.device("meta"):
        net = build_unet(PRESETS[preset].model)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model = PRESETS[preset].model
            size = model.image_size
            net(torch.empty(1, model.image_channels, size, size), torch.empty(1))
    assert sum(p.numel() for p in net.parameters()) <= most_parameters
    assert fewest <= counter.get_total_flops() / 2 <= most
