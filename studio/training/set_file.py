"""What is known of the pictures of a set, as it lies in ``set.json``."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion.data.copies import LOOK_SIDE, MIN_SIDE, look_of
from diffusion.data.sources import Skipped

MAX_LEFT_OUT = 2000  # lines that are kept; more are counted


@dataclass(frozen=True)
class Picture:
    """One picture of a set. ``look`` tells what its square looks like (``look_of``), in base64."""

    number: int
    name: str
    width: int  # of the stored picture
    height: int
    digest: str  # SHA-256 of the file that it came in
    look: str
    square: tuple[int, int, int] | None = None  # left, top, side in stored pixels; None: centre
    removed: bool = False
    kept: bool = False  # whatever it repeats

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the square that the network will see."""
        side = min(self.width, self.height)
        left, top = (self.width - side) // 2, (self.height - side) // 2
        if self.square is not None:
            left, top, side = self.square
        return left, top, left + side, top + side


@dataclass
class Contents:
    """What set.json holds."""

    pictures: dict[int, Picture] = field(default_factory=dict)
    left_out: list[Skipped] = field(default_factory=list)
    more_left_out: int = 0

    def leave_out(self, name: str, reason: str) -> None:
        if len(self.left_out) < MAX_LEFT_OUT:
            self.left_out.append(Skipped(name, reason))
        else:
            self.more_left_out += 1


def pack(look: np.ndarray) -> str:
    return base64.b64encode(look.tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(LOOK_SIDE, LOOK_SIDE)


def read_contents(folder: Path) -> Contents:
    """What set.json says; nothing of it is believed if it is damaged."""
    try:
        values = json.loads((folder / "set.json").read_text())
        pictures = {}
        for item in values["pictures"].values():
            square = item.pop("square")
            square = None if square is None else tuple(square)
            if "hash" in item:  # as sets were written before
                del item["hash"], item["mirror"]
                picture = Picture(**item, square=square, look="")
                with Image.open(folder / "pictures" / f"{picture.number:04d}.png") as image:
                    picture = replace(picture, look=pack(look_of(image.crop(picture.box))))
            else:
                picture = Picture(**item, square=square)
                unpack(picture.look)
            pictures[picture.number] = picture
        left_out = [Skipped(**item) for item in values["left_out"]]
        return Contents(pictures, left_out, values["more_left_out"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Contents()


def read_square(value: object, picture: Picture) -> tuple[int, int, int]:
    """A square that a browser asks for. Raises ValueError unless it lies inside the picture."""
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    if len(numbers) != 3 or not all(type(n) in (int, float) and n == n for n in numbers):
        raise ValueError("A square has three numbers: left, top and side.")
    if any(abs(n) > 1e6 for n in numbers):
        raise ValueError("The square is not inside the picture.")
    left, top, side = (round(n) for n in numbers)
    if side < MIN_SIDE:
        raise ValueError(
            f"The square is too small. It must cover at least {MIN_SIDE} pixels of the picture."
        )
    if left < 0 or top < 0 or left + side > picture.width or top + side > picture.height:
        raise ValueError("The square is not inside the picture.")
    return left, top, side
