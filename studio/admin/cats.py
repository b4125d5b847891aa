"""The cats that stand for a model: the same seeds each time, drawn once and kept."""

from __future__ import annotations

from ..drawing.library import ModelLibrary
from ..drawing.recipe import Recipe, plain_recipe, to_query
from ..page.examples import FIRST_SEED
from ..training.tuned import ModelCard

CATS = 8  # of a model that is ready
COMPARED = 4  # pairs of before and after
SIDE = 256  # pixels of their pictures


def cat_of(card: ModelCard, number: int) -> Recipe:
    """One of a model's cats, of its newest label."""
    coat = card.info.labels[-1] if card.info.labels else ""
    seed = FIRST_SEED + number
    return plain_recipe(card.info.sampling, seed=seed, coat=coat, model=card.name)


def cat_before(card: ModelCard, number: int, library: ModelLibrary) -> Recipe:
    """What the model that it was made of draws from the same seed, without a label.

    Raises ValueError if that is not here.
    """
    if not card.base:
        raise ValueError("The model that this one was made of is no longer here.")
    seed = FIRST_SEED + number
    return plain_recipe(library.get(card.base).info.sampling, seed=seed, model=card.base)


def link_to(card: ModelCard, number: int = 0) -> str:
    """The address, from the page's own, that draws one of a model's cats."""
    return f"./?{to_query([cat_of(card, number)])}"
