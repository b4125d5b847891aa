"""How cats and frames look when nobody else asks: what strangers' pictures are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np

from benchmarks.clients import PATIENCE, ask, not_busy, picture_of, pixels_of

SEEDS = range(2000, 2008)  # that visitors draw
CORNERS = [2000, 2001, 2002, 2003]  # of the map that they explore
POINTS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.2, 0.6))  # of that map
DREAMERS = range(2100, 2103)  # seeds of cats that dreams begin with
ROUNDED = 1.0  # mean difference in levels of 255 below which two pictures are the same


class Pictures:
    """Pictures [H, W, 3] by what was asked for."""

    def __init__(self, pictures: Mapping[Any, np.ndarray]) -> None:
        self.pictures = dict(pictures)
        for key, picture in self.pictures.items():
            for other, its in self.pictures.items():
                if other != key and apart(picture, its) < 2 * ROUNDED:
                    raise ValueError(f"{key} and {other} look the same, so they prove nothing.")

    def word(self, key: Any, picture: np.ndarray) -> str:
        """What a picture that was asked for by ``key`` is (see ``compared``)."""
        return compared(self.pictures[key], picture)


def compared(known: np.ndarray, picture: np.ndarray) -> str:
    """The same pixels; the same but for the rounding of another batch; or a wrong cat."""
    if known.shape == picture.shape and (known == picture).all():
        return "same pixels"
    return "rounded" if apart(known, picture) < ROUNDED else "wrong"


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference in levels of 255; infinite for two sizes."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one.astype(int) - other).mean())


class Known:
    """Each kind of picture that visitors ask for, drawn one after the other."""

    def __init__(self, address: str, model: str) -> None:
        with httpx.Client(base_url=address, timeout=PATIENCE) as http:
            self.cats = Pictures({seed: ask(http, seed, model)[0] for seed in SEEDS})
            self.points = Pictures({at: explored(http, at, model) for at in POINTS})
            self.drags = Pictures({at: dragged(http, at, model) for at in POINTS})
            self.dreams = Pictures({seed: dreamt(http, seed, 0.0, model) for seed in DREAMERS})


def explored(http: httpx.Client, at: tuple[float, float], model: str) -> np.ndarray:
    """A point of the map, as a script asks for it."""
    return picture_of(http, "explore", [CORNERS, *at, None, model, False])[0]


def dragged(http: httpx.Client, at: tuple[float, float], model: str) -> np.ndarray:
    """The same as the page asks for it."""
    corners = [{"seed": seed, "model": model} for seed in CORNERS]
    return _live(http, {"corners": corners, "x": at[0], "y": at[1]})


def dreamt(http: httpx.Client, seed: int, moment: float, model: str) -> np.ndarray:
    """A moment of a dream, as the page asks for it."""
    return _live(http, {"seed": seed, "moment": moment, "model": model, "coat": ""})


def _live(http: httpx.Client, values: dict[str, Any]) -> np.ndarray:
    answer = not_busy(http.post("/live", json=values))
    return pixels_of(answer.raise_for_status().content)
