"""The cats that stand for a model: the same seeds each time, drawn once and kept."""

from __future__ import annotations

from ..drawing.library import ModelLibrary
from ..drawing.recipe import Recipe, consecutive, plain_recipe, to_query
from ..page.examples import FIRST_SEED
from ..training.tuned import ModelCard

CATS = 8  # of a model, in one row
SIDE = 256  # pixels of each


def cats_of(card: ModelCard) -> list[Recipe]:
    """A model's cats, of its newest label."""
    coat = card.info.labels[-1] if card.info.labels else ""
    first = plain_recipe(card.info.sampling, seed=FIRST_SEED, coat=coat, model=card.name)
    return consecutive(first, CATS)


def cats_before(card: ModelCard, library: ModelLibrary) -> list[Recipe]:
    """What the model that it was made of draws from the same seeds, without a label.

    Raises ValueError if that is not here.
    """
    if not card.base:
        raise ValueError("The model that this one was made of is no longer here.")
    sampling = library.get(card.base).info.sampling
    return consecutive(plain_recipe(sampling, seed=FIRST_SEED, model=card.base), CATS)


def link_to(card: ModelCard, number: int = 0) -> str:
    """The address, from the page's own, that draws one of a model's cats."""
    return f"./?{to_query([cats_of(card)[number]])}"
