"""Cats between other cats: under a point on a map of four, and at a moment of a dream.

Both are plain recipes, whose turns say where they lie, so a PNG, a link and an older page can draw
them. A turn by a share t leaves cos(90° t) of the noise before it and adds sin(90° t) of the other:
two noises are at right angles, but for a degree or two. So weights whose squares add up to 1 can be
written as turns, and turns can be read as weights. The coats follow the turns of the noises.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

from diffusion.checkpoint import CheckpointInfo

from .recipe import MAX_TURNS, Recipe, ease, plain_recipe, usual_sampling

MAX_PARTS = MAX_TURNS  # seeds in one cat, so that it can be varied once more
MAX_MOMENT = 1e6  # cats after the first of a dream
QUARTER = math.pi / 2

Part = tuple[int, str, float]  # seed, coat and weight of its noise


def as_corner(recipe: Recipe, info: CheckpointInfo) -> Recipe:
    """A cat as a corner of a map: with the coat that its seed chose, and the sampling that suits
    its model. Raises ValueError for a cat made from a picture, and for a coat the model lacks."""
    if recipe.picture:
        raise ValueError("A cat that was made from a picture cannot be a corner.")
    recipe = recipe.with_coat(info)
    for coat in (recipe.coat, *(coat for _, coat, _ in recipe.turns)):
        info.label_index(coat)
    return dataclasses.replace(
        recipe, any_coat=False, strength=1.0, model_hash="", **usual_sampling(info.sampling)
    )


def on_map(corners: Sequence[Recipe], x: float, y: float) -> Recipe:
    """The cat under a point: ``corners`` are top left, top right, bottom left and bottom right, x
    goes from 0 (left) to 1 (right), y from 0 (top) to 1 (bottom).

    The noises are blended on their sphere, along x and then along y. At a corner it is the recipe
    of that corner. Raises ValueError for a point outside the map and corners of different models.
    """
    if len(corners) != 4:
        raise ValueError("A map has four cats, one at each corner.")
    if not (0 <= x <= 1 and 0 <= y <= 1):  # NaN is no such number
        raise ValueError("The point must lie on the map: x and y go from 0 to 1.")
    models = list(dict.fromkeys(corner.model for corner in corners))
    if len(models) > 1:
        raise ValueError(f"The cats at the corners are of different models: {', '.join(models)}.")
    across, down = QUARTER * x, QUARTER * y
    weights = [
        along * height
        for height in (math.cos(down), math.sin(down))
        for along in (math.cos(across), math.sin(across))
    ]
    return _blended(corners, weights)


def in_dream(info: CheckpointInfo, model: str, seed: int, moment: float, coat: str = "") -> Recipe:
    """The cat of a dream after ``moment`` cats: at 0 that of ``seed``, at 1 that of the next seed,
    and so on. Without a coat, each seed chooses its own. Raises ValueError."""
    if not 0 <= moment <= MAX_MOMENT:
        raise ValueError(f"The moment of a dream must be between 0 and {MAX_MOMENT:.0f}.")
    coat = coat or info.taught_label
    info.label_index(coat)
    whole = int(moment)
    first, second = (
        plain_recipe(info.sampling, seed=seed + i, coat=coat, any_coat=not coat, model=model)
        .with_coat(info)
        for i in (whole, whole + 1)
    )  # fmt: skip
    share = round(ease(moment - whole), 6)
    if share == 0:
        return first
    return dataclasses.replace(
        first, towards_seed=second.seed, towards_coat=second.coat, towards=share
    )


def _blended(cats: Sequence[Recipe], weights: Sequence[float]) -> Recipe:
    """Cats as one, by the weights of their noises. The squares of the weights add up to 1."""
    there = [(cat, weight) for cat, weight in zip(cats, weights, strict=True) if weight > 1e-6]
    if len(there) == 1:
        return there[0][0]
    parts = [
        (seed, coat, weight * share) for cat, weight in there for seed, coat, share in _parts(cat)
    ]
    least = sorted((weight for *_, weight in parts), reverse=True)[:MAX_PARTS][-1]
    kept = [part for part in parts if part[2] >= least][:MAX_PARTS]
    return _of_parts(there[0][0], kept)


def _parts(recipe: Recipe) -> list[Part]:
    """The seeds of a recipe, with the weights of their noises."""
    parts: list[Part] = [(recipe.seed, recipe.coat, 1.0)]
    for seed, coat, share in recipe.turns:
        left, added = math.cos(QUARTER * share), math.sin(QUARTER * share)
        parts = [(s, c, weight * left) for s, c, weight in parts] + [(seed, coat, added)]
    return parts


def _of_parts(settings: Recipe, parts: Sequence[Part]) -> Recipe:
    """The recipe that turns from the first part to the next, and so on: inverse of ``_parts``."""
    (seed, coat, length), *others = parts
    turns = []
    for other, its_coat, weight in others:
        turns.append((other, its_coat, round(math.atan2(weight, length) / QUARTER, 6)))
        length = math.hypot(length, weight)
    *before, (towards_seed, towards_coat, towards) = turns or [(0, "", 0.0)]
    return dataclasses.replace(
        settings, seed=seed, coat=coat, turned=json.dumps(before) if before else "",
        towards_seed=towards_seed, towards_coat=towards_coat, towards=towards,
    )  # fmt: skip
