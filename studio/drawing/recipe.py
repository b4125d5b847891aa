"""A recipe is all that it takes to draw one picture again, pixel for pixel."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import torch
from PIL import Image
from torch import Tensor

from diffusion import SAMPLERS, Denoiser, SampleConfig, __version__
from diffusion.checkpoint import CheckpointInfo
from diffusion.data.images import fit_square
from diffusion.fitted import FEWEST, MOST
from diffusion.output.pictures import from_image
from diffusion.sampling import Start, check_seed, label_weights, seed_noise, slerp

MAX_NAME = 200  # characters of a coat, a model and so on
MAX_TURNS = 16  # of a variation of a variation of …
MAX_STOPS = 8  # of a morph
PICTURE_STRENGTH = 0.55  # usual where a picture is given
LEAST_STRENGTH = 1e-12  # of a recipe of before that took the last step alone
LARGEST_PICTURE = 256  # pixels: pictures up to this width fit into a recipe, whatever they show


def embedded_length(size: int) -> int:
    """The most characters that a picture of ``size`` pixels takes as a base64 PNG: noise, which
    no compression makes smaller."""
    rows = size * (3 * size + 1)
    return 4 * math.ceil((1.001 * rows + 500) / 3)


MAX_EMBEDDED = embedded_length(LARGEST_PICTURE)  # characters of a picture or mask inside a recipe


def step_limits(sampler: str) -> tuple[int, int]:
    """The fewest and the most steps that the page takes with a sampler: only the ancestral one
    wants many, and the fitted one knows few. Raises ValueError for a sampler that there is not."""
    if sampler not in SAMPLERS:
        raise ValueError(f"There is no sampler '{sampler[:40]}'.")
    return {"ddpm": (1, 1000), "fitted": (FEWEST, MOST)}.get(sampler, (1, 100))


def usual_steps(sampler: str, info: CheckpointInfo) -> int:
    """How many steps are taken with a sampler unless somebody says otherwise."""
    least, most = step_limits(sampler)
    return most if sampler == "ddpm" else min(max(info.sampling.num_steps, least), most)


@dataclass(frozen=True)
class Recipe:
    """How one picture is made. Raises ValueError with a sentence if that is not possible."""

    seed: int = 0
    coat: str = ""  # a label of the model; empty is none
    any_coat: bool = False  # the seed chooses the coat, as often as each is in the training data
    steps: int = SampleConfig.num_steps
    sampler: str = SampleConfig.sampler
    guidance: float = SampleConfig.guidance
    model: str = ""  # name in the model library; empty is the default
    model_hash: str = ""  # start of the SHA-256 of its weights; empty if not yet known
    version: str = __version__  # of the program
    # Variations and morphs: how far the noise (and the coat) is turned towards another seed's.
    towards_seed: int = 0
    towards_coat: str = ""
    towards: float = 0.0  # 0 is this seed alone, 1 the other
    turned: str = ""  # turns before that one, of what was itself a variation: see ``turns``
    # Start from a picture, or repaint a part of it: base64 PNGs at the model's size.
    picture: str = ""
    mask: str = ""  # white is painted anew, the rest is kept
    strength: float = 1.0  # how much noise is laid over the picture (``noise_level``)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = type(field.default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ValueError(f"'{field.name}' of the recipe must be a {kind.__name__}.")
        named = (self.coat, self.towards_coat, self.model, self.model_hash, self.version)
        if max(map(len, named)) > MAX_NAME:
            raise ValueError("A name inside the recipe is too long.")
        check_seed(self.seed)
        check_seed(self.towards_seed)
        least, most = step_limits(self.sampler)
        if not least <= self.steps <= most:
            raise ValueError(f"Steps must be between {least} and {most} with this sampler.")
        if not 0 <= self.guidance <= 10:
            raise ValueError("Guidance must be between 0 and 10.")
        if not 0 <= self.towards <= 1:
            raise ValueError("The strength of a variation must be between 0 and 1.")
        if self.turned:
            _check_turns(self.turned)
        if not 0 < self.strength <= 1:
            raise ValueError("Strength must be above 0 and at most 1.")
        if max(len(self.picture), len(self.mask)) > MAX_EMBEDDED:
            raise ValueError("The picture inside the recipe is too large.")
        if self.mask and not self.picture:
            raise ValueError("A recipe with a mask needs a picture.")

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults, and those that name the picture."""
        always = ("seed", "coat", "steps", "sampler", "guidance", "model", "model_hash", "version")
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in always or getattr(self, field.name) != field.default
        }

    @classmethod
    def from_dict(cls, values: Any) -> Recipe:
        """Inverse of ``to_dict``, for text that anybody may have written."""
        if not isinstance(values, dict):
            raise ValueError("A recipe must be a JSON object.")
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError("The recipe contains settings that this version does not know.")
        return cls(**values)

    def with_coat(self, info: CheckpointInfo) -> Recipe:
        """With the coat that the seed chooses, if it is to choose one and has not. A picture to
        start from shows a coat of its own."""
        if not self.any_coat or self.coat or self.picture:
            return self
        return dataclasses.replace(self, coat=info.any_label(self.seed))

    def as_taught(self, info: CheckpointInfo) -> Recipe:
        """With the sampling that a student learned, which can draw in no other way."""
        if not info.teacher:
            return self
        return dataclasses.replace(self, **usual_sampling(info.sampling))

    def config(self, sampling: SampleConfig) -> SampleConfig:
        """The sampler's settings; what the recipe does not say is the model's own ``sampling``."""
        return dataclasses.replace(
            sampling,
            sampler=self.sampler,
            num_steps=self.steps,
            guidance=self.guidance,
            strength=self.strength if self.picture else 1.0,
        )

    @property
    def steps_to_take(self) -> int:
        """Steps that the sampler takes: with a picture, only the last part of the grid."""
        return self.config(SampleConfig()).steps_to_take

    @property
    def turns(self) -> list[tuple[int, str, float]]:
        """How the noise and the coat are turned, one after the other: towards which seed and which
        coat, and how far."""
        before = [tuple(turn) for turn in json.loads(self.turned)] if self.turned else []
        last = [(self.towards_seed, self.towards_coat, self.towards)] if self.towards else []
        return before + last

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """Recipes with equal keys can be drawn together."""
        settings = self.config(SampleConfig())
        return self.model, settings, bool(self.picture), bool(self.mask)

    def describe(self) -> str:
        """One line for people: what made this picture, without what is as usual. What guidance is
        usual differs by model; the form shows it."""
        anyhow = self.any_coat or not self.coat
        coat = ": ".join(["any coat"] * anyhow + [self.coat] * bool(self.coat))
        parts = [f"seed {self.seed}", coat]
        for seed, coat, share in self.turns:
            other = f" {coat}" if coat != self.coat else ""
            parts.append(f"{share:.0%} towards seed {seed}{other}")
        if self.picture:
            kind = (
                "partly repainted" if self.mask else f"from a picture, strength {self.strength:.3g}"
            )
            parts.append(kind)
        parts.append(f"{self.steps} steps" if self.steps > 1 else "1 step")
        if self.sampler != SampleConfig.sampler:
            parts.append(self.sampler)
        return " · ".join([*parts, self.model] if self.model else parts)


def _check_turns(text: str) -> None:
    """Raises ValueError unless ``turned`` of a recipe lists seeds, coats and shares."""
    try:
        turns = json.loads(text) if len(text) <= MAX_EMBEDDED else None
        if not isinstance(turns, list):
            raise ValueError
        for seed, coat, share in turns:
            named = type(seed) is int and isinstance(coat, str) and len(coat) <= MAX_NAME
            if not (named and type(share) in (int, float) and 0 <= share <= 1):
                raise ValueError
            check_seed(seed)
    except (ValueError, TypeError, RecursionError):
        raise ValueError("The variations inside the recipe are damaged.") from None
    if len(turns) >= MAX_TURNS:  # and one more is turned now
        raise ValueError(f"This cat has been varied {MAX_TURNS} times, which is the limit.")


def build_start(denoiser: Denoiser, recipes: Sequence[Recipe]) -> Start:
    """The start of sampling for recipes of one batch key. Raises ValueError for an unknown coat."""
    label_index = denoiser.info.label_index
    noise = seed_noise(denoiser, [recipe.seed for recipe in recipes])
    labels = label_weights(denoiser, [label_index(r.coat) for r in recipes], len(recipes))
    for row, recipe in enumerate(recipes):
        for seed, coat, share in recipe.turns:
            noise[row] = slerp(noise[row], seed_noise(denoiser, [seed])[0], share)
            other = label_weights(denoiser, [label_index(coat)], 1)[0]
            labels[row] = torch.lerp(labels[row], other, share)
    picture = keep = None
    size = denoiser.info.picture_size
    if recipes[0].picture:
        picture = torch.stack([_embedded_pixels(r.picture, size) for r in recipes])
    if recipes[0].mask:
        masks = [_embedded_pixels(r.mask, size) for r in recipes]
        keep = torch.stack(masks)[:, :1] < 128
    return Start(tuple(recipe.seed for recipe in recipes), noise, labels, picture, keep)


def of_this_version(recipe: Recipe) -> Recipe:
    """The recipe as this version would write it, to draw the same pixels.

    Up to version 0.7, a strength was the share of the steps that were taken, rounded to whole ones.
    """
    strength, steps = recipe.strength, recipe.steps
    numbers = re.match(r"(\d{1,9})\.(\d{1,9})", recipe.version)
    if strength < 1 and numbers and (int(numbers[1]), int(numbers[2])) <= (0, 7):
        taken = max(1, round(steps * strength))
        strength = 1.0 if steps == 1 else max((taken - 1) / (steps - 1), LEAST_STRENGTH)
    return dataclasses.replace(recipe, strength=strength, version=__version__)


def plain_recipe(sampling: SampleConfig, **values: Any) -> Recipe:
    """A recipe with the sampling that suits its model (``info.sampling``), where ``values`` do not
    say otherwise."""
    return Recipe(**(usual_sampling(sampling) | values))


def usual_sampling(sampling: SampleConfig) -> dict[str, Any]:
    """What a recipe says of a model's own sampling."""
    return {
        "steps": sampling.num_steps,
        "sampler": sampling.sampler,
        "guidance": sampling.guidance,
    }


def consecutive(first: Recipe, count: int) -> list[Recipe]:
    """``count`` recipes that differ in their seeds alone, counted up from the first."""
    return [dataclasses.replace(first, seed=first.seed + i) for i in range(count)]


def to_query(recipes: Sequence[Recipe]) -> str:
    """The query of a link that draws these again (the first alone, if they are no series).

    Empty where a picture would have to be in it. ``forms.read_link`` is the inverse.
    """
    first = recipes[0]
    if first.picture:
        return ""
    unchosen = [dataclasses.replace(r, coat="") if r.any_coat else r for r in recipes]
    series = len(recipes) > 1 and unchosen == consecutive(unchosen[0], len(recipes))
    shown = unchosen[0] if series else first
    values = {**shown.to_dict(), "count": len(recipes) if series else 1}
    del values["version"]
    return urlencode(values)


def variations(recipe: Recipe, *, count: int, strength: float, first_seed: int) -> list[Recipe]:
    """``count`` recipes around one, each turned by ``strength`` towards a seed of its own."""
    if not 1 <= count <= 16:
        raise ValueError("The number of variations must be between 1 and 16.")
    start = dataclasses.replace(recipe, turned=json.dumps(recipe.turns) if recipe.turns else "")
    return [
        dataclasses.replace(
            start, towards_seed=first_seed + i, towards_coat=recipe.coat, towards=float(strength)
        )
        for i in range(count)
    ]


def morph(stops: Sequence[Recipe], *, frames: int) -> list[Recipe]:
    """``frames`` recipes on the way from each stop to the next, and from the last to the first."""
    if not 2 <= len(stops) <= MAX_STOPS:
        raise ValueError(f"A morph needs 2 to {MAX_STOPS} seeds.")
    if not 2 <= frames <= 32:
        raise ValueError("A morph has 2 to 32 frames between two seeds.")
    return [
        dataclasses.replace(a, towards_seed=b.seed, towards_coat=b.coat, towards=ease(i / frames))
        for a, b in zip(stops, [*stops[1:], stops[0]], strict=True)
        for i in range(frames)
    ]


def ease(t: float) -> float:
    """Slow near the seeds and faster between them, so that each cat is seen for a moment."""
    return (1 - math.cos(math.pi * t)) / 2


def embed_picture(image: Image.Image, size: int) -> str:
    """A picture as it goes into a recipe: a square of ``size`` pixels, base64 PNG."""
    return _base64_png(fit_square(image, size))


def embed_mask(painted: Image.Image, size: int) -> str:
    """A mask (white is painted anew) as it goes into a recipe. Raises ValueError if it is empty."""
    small = fit_square(painted.convert("L"), size).point(lambda value: 255 if value >= 64 else 0)
    if small.getbbox() is None:
        raise ValueError("Nothing is marked. Paint over the part to redraw.")
    return _base64_png(small.convert("1"))


def _base64_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, icc_profile=None)  # which may be larger than it
    return base64.b64encode(buffer.getvalue()).decode()


def _embedded_pixels(text: str, size: int) -> Tensor:
    """uint8 [3, size, size] of a picture inside a recipe. Raises ValueError.

    Its size is looked at before its pixels are: a small text can unpack to a huge picture.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as png:
            fits = png.size == (size, size)
            pixels = from_image(png) if fits else None
    except Exception:  # a broken PNG surfaces as almost any exception
        raise ValueError("The picture inside the recipe is damaged.") from None
    if pixels is None:
        raise ValueError(
            f"The picture inside the recipe is not {size}x{size}, as this model needs."
        )
    return pixels
