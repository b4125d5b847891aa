"""Augmentation: what moves where, and what the network is told of it."""

import math

import pytest
import torch
from torch.testing import assert_close

from diffusion.data.augment import AUGMENT_CHANNELS, Augment, warp

LOG_SCALE, STRETCH_COS, STRETCH_SIN, TURNS, SHIFT_X, SHIFT_Y = range(AUGMENT_CHANNELS)


def parameters(**values: float) -> torch.Tensor:
    row = torch.zeros(1, AUGMENT_CHANNELS)
    for name, value in values.items():
        row[0, globals()[name.upper()]] = value
    return row


def smooth(num: int = 1, size: int = 16) -> torch.Tensor:
    """Random pictures without sharp edges, on which interpolation is nearly exact."""
    coarse = torch.rand(num, 3, 4, 4) * 1.6 - 0.8
    picture = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return picture.clamp(-1, 1)


def middle(images: torch.Tensor, margin: int = 4) -> torch.Tensor:
    """Without the borders, into which the warp reflects."""
    return images[..., margin:-margin, margin:-margin]


def box(half_width: int, half_height: int, size: int = 32) -> torch.Tensor:
    """A bright box in the middle of a dark picture."""
    image, centre = torch.full((1, 1, size, size), -1.0), size // 2
    rows = slice(centre - half_height, centre + half_height)
    image[..., rows, centre - half_width : centre + half_width] = 1
    return image


def test_zero_parameters_return_the_images_bit_for_bit():
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    assert torch.equal(warp(images, torch.zeros(3, AUGMENT_CHANNELS)), images)


def test_zero_rows_are_left_alone_beside_others():
    images = smooth(3)
    rows = torch.cat([parameters(), parameters(turns=0.3), parameters()])
    warped = warp(images, rows)
    assert torch.equal(warped[[0, 2]], images[[0, 2]])
    assert (warped[1] - images[1]).abs().max() > 0.05


def test_augmentation_at_probability_zero_changes_nothing():
    images = torch.rand(5, 3, 8, 8) * 2 - 1
    augmented, labels = Augment(0.0)(images, torch.Generator().manual_seed(0))
    assert torch.equal(augmented, images)
    assert torch.equal(labels, torch.zeros(5, AUGMENT_CHANNELS))


def test_a_shift_of_one_moves_an_eighth_of_the_picture_right_or_down():
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    right, down = warp(images, parameters(shift_x=1)), warp(images, parameters(shift_y=1))
    assert_close(right[..., :, 2:], images[..., :, :-2], rtol=0, atol=1e-4)
    assert_close(down[..., 2:, :], images[..., :-2, :], rtol=0, atol=1e-4)


def test_a_turn_of_one_half_is_a_quarter_of_a_circle():
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    # The angle is in units of pi, and grows clockwise, as y points down.
    quarter, half = warp(images, parameters(turns=0.5)), warp(images, parameters(turns=1.0))
    assert_close(quarter, images.rot90(-1, (2, 3)), rtol=0, atol=1e-3)
    assert_close(half, images.flip(2, 3), rtol=0, atol=1e-3)


def test_scale_is_told_as_its_logarithm():
    bright = (warp(box(4, 4), parameters(log_scale=math.log(2))) + 1) / 2
    # A box of 8 by 8 becomes one of 16 by 16, still in the middle.
    assert_close(bright.sum(dim=3).max().item(), 16.0, rtol=0.03, atol=0)
    assert_close(bright.sum(dim=2).max().item(), 16.0, rtol=0.03, atol=0)
    assert_close(bright.sum().item(), 256.0, rtol=0.03, atol=0)
    assert_close(bright, bright.flip(2, 3), rtol=0, atol=1e-4)


def test_stretch_along_x_widens_and_flattens():
    stretched = warp(box(8, 8), parameters(stretch_cos=math.log(1.5)))
    # exp(S) keeps the area: width times 1.5, height over 1.5.
    bright = (stretched + 1) / 2
    assert_close(bright.sum(dim=3).max().item(), 16 * 1.5, rtol=0.03, atol=0)
    assert_close(bright.sum(dim=2).max().item(), 16 / 1.5, rtol=0.03, atol=0)
    assert_close(bright.sum().item(), 256.0, rtol=0.03, atol=0)


def test_the_sine_part_stretches_along_the_diagonal():
    # Turning by 45 degrees, stretching along x, and turning back.
    images, amount = smooth(size=32), 0.3
    direct = warp(images, parameters(stretch_sin=amount))
    turned = warp(images, parameters(turns=-0.25))
    turned = warp(turned, parameters(stretch_cos=amount))
    turned = warp(turned, parameters(turns=0.25))
    assert_close(middle(direct, 10), middle(turned, 10), rtol=0, atol=0.03)


def test_stretch_comes_before_rotation_and_shift_last():
    images = smooth(size=32)
    at_once = warp(images, parameters(stretch_cos=0.2, turns=0.25, shift_x=0.5))
    one_by_one = warp(images, parameters(stretch_cos=0.2))
    one_by_one = warp(one_by_one, parameters(turns=0.25))
    one_by_one = warp(one_by_one, parameters(shift_x=0.5))
    assert_close(middle(at_once, 10), middle(one_by_one, 10), rtol=0, atol=0.03)


def test_the_mirror_image_is_warped_by_the_mirrored_parameters():
    images = smooth(4)
    rows = torch.randn(4, AUGMENT_CHANNELS) * 0.3
    mirrored = rows.clone()
    mirrored[:, [STRETCH_SIN, TURNS, SHIFT_X]] *= -1
    assert_close(warp(images.flip(3), mirrored), warp(images, rows).flip(3), rtol=0, atol=1e-4)


def test_opposite_turns_cancel():
    images = smooth(size=32)
    back = warp(warp(images, parameters(turns=0.1)), parameters(turns=-0.1))
    assert_close(middle(back, 8), middle(images, 8), rtol=0, atol=0.03)


def test_warped_pictures_stay_in_range():
    # Bicubic interpolation overshoots at edges.
    warped = warp(torch.rand(8, 3, 16, 16).round() * 2 - 1, torch.randn(8, AUGMENT_CHANNELS) * 0.2)
    assert warped.abs().max() <= 1


def test_each_group_of_parameters_is_on_with_its_probability():
    rows = Augment(0.12).parameters(20_000, torch.Generator().manual_seed(0))
    on = rows != 0
    error = 4 * (0.12 * 0.88 / 20_000) ** 0.5
    expected = torch.full((AUGMENT_CHANNELS,), 0.12)
    assert_close(on.float().mean(dim=0), expected, rtol=0, atol=error)
    assert torch.equal(on[:, STRETCH_COS], on[:, STRETCH_SIN])
    assert torch.equal(on[:, SHIFT_X], on[:, SHIFT_Y])
    # The groups are switched apart from each other.
    groups = on[:, [LOG_SCALE, STRETCH_COS, TURNS, SHIFT_X]].float()
    assert_close(torch.corrcoef(groups.T), torch.eye(4), rtol=0, atol=0.03)


def test_parameters_have_their_documented_spread():
    rows = Augment(1.0).parameters(20_000, torch.Generator().manual_seed(0))
    assert_close(rows.mean(dim=0), torch.zeros(AUGMENT_CHANNELS), rtol=0, atol=0.03)
    assert_close(torch.corrcoef(rows.T), torch.eye(AUGMENT_CHANNELS), rtol=0, atol=0.03)
    stretch = rows[:, [STRETCH_COS, STRETCH_SIN]].norm(dim=1)
    spread = torch.stack(
        [
            rows[:, LOG_SCALE].std(),
            stretch.square().mean().sqrt(),
            rows[:, SHIFT_X].std(),
            rows[:, SHIFT_Y].std(),
        ]
    )
    assert_close(spread, torch.tensor([0.2, 0.2, 1.0, 1.0]), rtol=0.03, atol=0)
    assert rows[:, TURNS].abs().max() <= 1
    assert_close(rows[:, TURNS].std().item(), 3**-0.5, rtol=0.03, atol=0)


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_the_network_is_told_what_was_done(p):
    images, generator = smooth(6), torch.Generator().manual_seed(1)
    augmented, labels = Augment(p)(images, generator)
    assert_close(augmented, warp(images, labels))
    again, labels_again = Augment(p)(images, torch.Generator().manual_seed(1))
    assert torch.equal(augmented, again)
    assert torch.equal(labels, labels_again)
