"""Cats between cats: what a point of the map and a moment of a dream say as recipes."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from helpers import SMALL

from diffusion import Denoiser
from diffusion.checkpoint import CheckpointInfo
from studio.drawing.blend import MAX_PARTS, as_corner, in_dream, on_map
from studio.drawing.recipe import Recipe, build_start, variations

LABELS = ("black", "grey", "tabby", "white")


@pytest.fixture(scope="module")
def denoiser():
    config = dataclasses.replace(SMALL, image_size=32, num_classes=len(LABELS))
    info = CheckpointInfo(config, labels=LABELS, label_counts=(1, 1, 1, 1))
    return Denoiser.from_config(config, info=info)


def corners(info, *coats):
    coats = coats or LABELS
    return [
        as_corner(Recipe(seed=seed, coat=coat, model="m"), info)
        for seed, coat in zip((5, 17, 29, 31), coats, strict=True)
    ]


def noise(denoiser, recipe):
    return build_start(denoiser, [recipe]).noise[0].flatten()


def test_each_corner_of_the_map_is_its_own_cat_to_the_letter(denoiser):
    cats = corners(denoiser.info)
    cats[2] = dataclasses.replace(cats[2], towards_seed=4, towards_coat="grey", towards=1 / 3)
    for cat, place in zip(cats, [(0, 0), (1, 0), (0, 1), (1, 1)], strict=True):
        assert on_map(cats, *place) == cat


def test_a_point_blends_the_noises_on_their_sphere(denoiser):
    cats = corners(denoiser.info)
    x, y = 0.3, 0.8
    there = noise(denoiser, on_map(cats, x, y))
    across, down = math.pi / 2 * x, math.pi / 2 * y
    weights = [
        math.cos(across) * math.cos(down), math.sin(across) * math.cos(down),
        math.cos(across) * math.sin(down), math.sin(across) * math.sin(down),
    ]  # fmt: skip
    expected = sum(w * noise(denoiser, cat) for w, cat in zip(weights, cats, strict=True))
    assert torch.cosine_similarity(there, expected, dim=0) > 0.995
    assert there.norm() == pytest.approx(noise(denoiser, cats[0]).norm().item(), rel=0.05)


def test_a_small_move_is_a_small_change_everywhere_on_the_map(denoiser):
    cats = corners(denoiser.info)
    grid = [i / 10 for i in range(11)]
    for x in grid:
        for y in grid:
            here = noise(denoiser, on_map(cats, x, y))
            for dx, dy in ((0.005, 0), (0, 0.005)):
                if x + dx <= 1 and y + dy <= 1:
                    near = noise(denoiser, on_map(cats, x + dx, y + dy))
                    assert (near - here).norm() / here.norm() < 0.02, (x, y, dx, dy)


def test_coats_blend_as_well(denoiser):
    labels = build_start(denoiser, [on_map(corners(denoiser.info), 0.5, 0.5)]).labels[0]
    assert labels.sum() == pytest.approx(1)
    assert (labels[:4] > 0.15).all()
    assert (labels[:4] < 0.4).all()
    assert labels[4] == 0  # of no coat


def test_a_blend_can_be_a_corner_and_stays_the_cat_that_it_was(denoiser):
    cats = corners(denoiser.info)
    blend = on_map(cats, 0.4, 0.7)
    again = on_map([cats[1], blend, cats[2], cats[3]], 1, 0)
    assert again == blend
    half = on_map([cats[1], blend, cats[2], cats[3]], 0.5, 0)
    expected = noise(denoiser, cats[1]) + noise(denoiser, blend)
    assert torch.cosine_similarity(noise(denoiser, half), expected, dim=0) > 0.98


def test_blends_of_blends_stay_recipes_that_can_be_varied(denoiser):
    cats = corners(denoiser.info)
    for _ in range(4):
        cats = [on_map(cats, x, y) for x, y in ((0.2, 0.3), (0.8, 0.3), (0.2, 0.7), (0.7, 0.8))]
    assert len(cats[0].turns) == MAX_PARTS - 1
    assert variations(cats[0], count=1, strength=0.2, first_seed=1)[0].towards == 0.2


def test_of_too_many_seeds_those_that_matter_least_are_left_out(denoiser):
    one = corners(denoiser.info)
    many = [
        on_map([dataclasses.replace(cat, seed=cat.seed + 100 * i) for cat in one], 0.5, 0.5)
        for i in range(4)
    ]
    many.append(on_map([dataclasses.replace(cat, seed=cat.seed + 500) for cat in one], 0.4, 0.4))
    twenty = on_map([many[0], on_map(many[1:], 0.5, 0.5), *many[:2]], 0.85, 0.05)
    there = noise(denoiser, twenty)
    assert len(twenty.turns) == MAX_PARTS - 1
    assert torch.cosine_similarity(there, noise(denoiser, on_map(many[1:], 0.5, 0.5)), dim=0) > 0.9


def test_a_blend_survives_being_written_down(denoiser):
    blend = on_map(corners(denoiser.info), 0.31, 0.77)
    assert Recipe.from_dict(blend.to_dict()) == blend


@pytest.mark.parametrize(("x", "y"), [(-0.01, 0), (0, 1.01), (math.nan, 0), (0, math.inf)])
def test_a_point_outside_the_map_is_a_sentence(denoiser, x, y):
    with pytest.raises(ValueError, match="must lie on the map"):
        on_map(corners(denoiser.info), x, y)


def test_corners_of_different_models_are_a_sentence(denoiser):
    cats = corners(denoiser.info)
    cats[2] = dataclasses.replace(cats[2], model="other")
    with pytest.raises(ValueError, match="different models: m, other"):
        on_map(cats, 0.5, 0.5)


def test_three_corners_are_a_sentence(denoiser):
    with pytest.raises(ValueError, match="four cats"):
        on_map(corners(denoiser.info)[:3], 0.5, 0.5)


def test_a_corner_has_the_coat_of_its_seed_and_the_sampling_of_its_model(denoiser):
    cat = as_corner(Recipe(seed=3, any_coat=True, steps=50, guidance=3.0), denoiser.info)
    assert cat.coat == denoiser.info.any_label(3) != ""
    assert (cat.steps, cat.guidance) == (12, 1.7)


def test_no_corner_is_made_from_a_picture_or_has_an_unknown_coat(denoiser):
    with pytest.raises(ValueError, match="from a picture"):
        as_corner(Recipe(picture="x"), denoiser.info)
    with pytest.raises(ValueError, match="pink"):
        as_corner(Recipe(coat="pink"), denoiser.info)
    with pytest.raises(ValueError, match="pink"):
        as_corner(Recipe(towards=0.5, towards_coat="pink"), denoiser.info)


def test_a_dream_goes_from_seed_to_seed(denoiser):
    info = denoiser.info
    assert in_dream(info, "m", 7, 2).seed == 9
    assert not in_dream(info, "m", 7, 2).turns
    between = in_dream(info, "m", 7, 2.5)
    assert (between.seed, between.towards_seed, between.towards) == (9, 10, 0.5)
    assert between.towards_coat == info.any_label(10)


def test_a_dream_has_no_jumps(denoiser):
    moments = [i / 50 for i in range(126)]
    cats = [noise(denoiser, in_dream(denoiser.info, "m", 7, moment)) for moment in moments]
    for before, after in pairwise(cats):
        assert (after - before).norm() / before.norm() < 0.06


@pytest.mark.parametrize("moment", [-0.1, math.nan, math.inf, 2e6])
def test_a_moment_that_no_dream_has_is_a_sentence(denoiser, moment):
    with pytest.raises(ValueError, match="moment of a dream"):
        in_dream(denoiser.info, "m", 7, moment)


def test_a_dream_of_an_unknown_coat_is_a_sentence(denoiser):
    with pytest.raises(ValueError, match="pink"):
        in_dream(denoiser.info, "m", 7, 0.5, "pink")
