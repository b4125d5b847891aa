"""From what a form or a script sends to recipes, with a sentence for every mistake."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gradio.utils import get_upload_folder
from PIL import Image

from diffusion.checkpoint import CheckpointInfo
from diffusion.data.decoding import in_decoder
from diffusion.data.images import decode_image
from diffusion.names import composed

from ..drawing.library import ModelLibrary
from ..drawing.png_metadata import MAX_UPLOAD_BYTES
from ..drawing.recipe import (
    MAX_NAME,
    MAX_STOPS,
    Recipe,
    consecutive,
    embed_mask,
    embed_picture,
    morph,
    usual_steps,
)
from ..safety.shares import Shares

T = TypeVar("T")

ANY_COAT = "any"
UNKNOWN = "unknown"  # stands for the weights of a model that is not here
MAX_CATS = 16
MAX_LAYER_SIDE = 4096  # pixels of what was painted
MAX_BEING_READ = 4  # pictures of one client

_being_read = Shares(MAX_BEING_READ)


def random_seed() -> int:
    """A seed short enough to be read aloud."""
    return secrets.randbelow(2**31)


def whole_number(value: Any, what: str) -> int:
    """An int from a JSON number. Raises ValueError for text, fractions, infinities and None."""
    if value is None:
        raise ValueError(f"{what} is missing.")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise ValueError(f"{what} must be a whole number, not {str(value)[:40]!r}.")
    return int(value)


def number(value: Any, what: str) -> float:
    """A float from a JSON number. Raises ValueError for anything else."""
    if value is None:
        raise ValueError(f"{what} is missing.")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what} must be a number, not {str(value)[:40]!r}.")
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        raise ValueError(f"{what} is too large.") from None


def text(value: Any, what: str) -> str:
    """A short string, with one code point a letter; None is the empty one."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise ValueError(f"{what} must be a short text.")
    return composed(value)


def read_recipe_form(
    seed: Any, coat: Any, steps: Any, sampler: Any, guidance: Any, model: Any
) -> Recipe:
    """The recipe that the main controls describe."""
    coat = text(coat, "The coat")
    any_coat = coat in ("", ANY_COAT)
    return Recipe(
        seed=whole_number(seed, "The seed"),
        coat="" if any_coat else coat,
        any_coat=any_coat,
        steps=whole_number(steps, "The number of steps"),
        sampler=text(sampler, "The sampler"),
        guidance=number(guidance, "Guidance"),
        model=text(model, "The model"),
    )


def current_recipe(recipe: dict | None) -> Recipe:
    """The recipe of the cat on the stage. Raises ValueError if there is none."""
    if not recipe:
        raise ValueError("There is no cat yet. Generate one first.")
    return Recipe.from_dict(recipe)


def read_link(query: Mapping[str, str], library: ModelLibrary) -> list[Recipe]:
    """The recipes of a link such as ``/?seed=42&steps=12&coat=tabby``; see ``recipe.to_query``.
    What a link written by hand leaves out is as on the page.

    Raises ValueError, OverflowError, or KeyError where there is no seed.
    """
    seed, model = int(query["seed"]), query.get("model", "")
    here = model in library.names  # else the default model draws it, and says so
    if not query.keys() >= {"coat", "steps", "sampler", "guidance"}:
        query = {**_usual(library.get(model if here else "").info, query), **query}
    coat = query["coat"]
    first = Recipe(
        seed=seed,
        coat="" if coat == ANY_COAT else coat,
        any_coat=coat == ANY_COAT or query.get("any_coat") == "True",
        steps=int(query["steps"]),
        sampler=query["sampler"],
        guidance=float(query["guidance"]),
        model=model if here else "",
        model_hash=query.get("model_hash", "" if here or not model else UNKNOWN),
        towards_seed=int(query.get("towards_seed", 0)),
        towards_coat=query.get("towards_coat", ""),
        towards=float(query.get("towards", 0)),
        turned=query.get("turned", ""),
    )
    return consecutive(first, read_count(int(query.get("count", 1))))


def _usual(info: CheckpointInfo, query: Mapping[str, str]) -> dict[str, str]:
    """What the page would choose with a model, as a link says it."""
    sampler = query.get("sampler", info.sampling.sampler)
    return {
        "coat": info.taught_label or ANY_COAT,
        "steps": str(usual_steps(sampler, info)),
        "sampler": sampler,
        "guidance": str(info.sampling.guidance),
    }


def read_count(value: Any) -> int:
    """How many cats at once."""
    count = whole_number(value, "The number of cats")
    if not 1 <= count <= MAX_CATS:
        raise ValueError(f"Choose 1 to {MAX_CATS} cats at once.")
    return count


def read_seeds(value: Any) -> list[int]:
    """Seeds from text such as ``1, 2, 3`` or from a list of numbers."""
    if isinstance(value, str):
        parts: list[Any] = value.replace(",", " ").split()
        if not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts):
            raise ValueError("Write the seeds as whole numbers with commas between them.")
        return [int(part) for part in parts]
    if isinstance(value, list):
        return [whole_number(item, "A seed") for item in value]
    raise ValueError("Write the seeds as whole numbers with commas between them.")


def read_morph_form(
    seeds: Any, coats: list[Any], frames: Any, steps: Any, sampler: Any, guidance: Any, model: Any,
    library: ModelLibrary,
) -> list[Recipe]:  # fmt: skip
    """The recipes of a morph from seed to seed; the coats take turns."""
    info = library.get(text(model, "The model")).info
    stops = [
        read_recipe_form(seed, coats[i % len(coats)], steps, sampler, guidance, model)
        for i, seed in enumerate(read_seeds(seeds)[: MAX_STOPS + 1])  # one too many is refused
    ]
    stops = [stop.with_coat(info) for stop in stops]
    return morph(stops, frames=whole_number(frames, "The number of frames"))


def read_upload(path: Any, use: Callable[[Image.Image], T], what: str = "The picture") -> T:
    """What ``use`` makes of an uploaded picture, upright RGB. Raises ValueError with a sentence.

    The picture, which may be large, must not outlive this call: a visitor may wait for a long time.
    Any path but one in Gradio's upload folder is refused: a script can name what it likes.
    """
    file = uploaded(path, what)

    def decode() -> T:
        try:
            image = decode_image(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{what} cannot be used: {error}.") from None
        return use(image)

    return _in_decoder(decode)


def _in_decoder(work: Callable[[], T]) -> T:
    """As ``in_decoder``, but a client has a few turns at once, or its pictures would hold up those
    of all others. Raises ValueError for more."""
    refusal = ValueError("Your last pictures are still being read. Try again in a moment.")
    with _being_read.one_more(refusal):
        return in_decoder(work)


def uploaded(path: Any, what: str = "The picture") -> Path:
    """The file of an upload, not looked into. Raises ValueError, as ``read_upload`` does."""
    if not isinstance(path, str) or not path:
        raise ValueError(f"{what} is missing.")
    file = _uploaded(path)
    if file is None:
        raise ValueError(f"{what} must be an uploaded file, not a web address.")
    if file.stat().st_size > MAX_UPLOAD_BYTES:
        raise ValueError(f"{what} is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB.")
    return file


def read_picture(path: Any, size: int) -> str:
    """An uploaded picture as it goes into a recipe. Raises ValueError, as ``read_upload`` does."""
    return read_upload(path, lambda picture: embed_picture(picture, size))


def read_mask_layer(path: Any, size: int) -> str:
    """What was painted on an uploaded layer of the editor, as it goes into a recipe."""
    file = _uploaded(path) if isinstance(path, str) and path else None
    if file is None:
        raise ValueError("Nothing is marked. Paint over the part to redraw.")
    return _in_decoder(lambda: embed_mask(_opacity(file), size))


def _opacity(file: Path) -> Image.Image:
    try:
        with Image.open(file, formats=["PNG", "WEBP"]) as layer:
            small = max(layer.size) <= MAX_LAYER_SIDE
            opacity = layer.convert("RGBA").getchannel("A") if small else None
    except Exception:  # a broken file surfaces as almost any exception
        raise ValueError("The mask cannot be read: it is damaged or incomplete.") from None
    if opacity is None:
        raise ValueError(f"The mask is larger than {MAX_LAYER_SIDE}x{MAX_LAYER_SIDE}.")
    return opacity


def _uploaded(path: str) -> Path | None:
    """The file, if there is one of that name in the upload folder."""
    try:
        file = Path(path).resolve()
        inside = file.is_relative_to(Path(get_upload_folder()).resolve())
        return file if inside and file.is_file() else None
    except (ValueError, OSError):  # a null byte, a name too long, a loop of links
        return None
