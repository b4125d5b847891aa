"""What visitors take with them: one cat, a sheet of several, or all of their strip.

Files are made when they are asked for, so that no drawing waits for them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

from PIL import Image

from ..drawing.png_metadata import read_recipe
from ..drawing.recipe import Recipe
from ..drawing.worker import ENDING, Busy, Studio
from .files import SCALES, enlarge, save_png, save_sheet, save_zip, still_there

MAX_ALL = 100  # cats in one zip: forty, and those with a star
BRUSH_SIDE = 512  # pixels of a picture to paint on
NO_CAT = "There is no cat yet. Generate one first."
GONE = "This cat is no longer stored here. Draw it again, then save it."


class SaveActions:
    """Files of cats, most of which are still there from when they were drawn."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def save_cat(self, shown: str | None, scale: Any, pixels: Any) -> str:
        """The cat on the stage in the size that was chosen. Raises ValueError."""
        return enlarge(_require_file(shown), scale if scale in SCALES else 1, pixels=bool(pixels))

    def save_sheet(self, carried: Any, paths: list[str]) -> str:
        """The cats on the stage side by side. Raises ValueError."""
        return save_sheet(self._files(carried, paths))

    def save_all(self, carried: Any, paths: list[str]) -> str | None:
        """A zip of the cats of the strip. Raises ValueError."""
        return save_zip(self._files(carried, paths))

    def take_cat(self, shown: str | None) -> Any:
        """The cat on the stage as the picture to paint on, large enough for a brush. Raises
        ValueError."""
        with Image.open(_require_file(shown)) as image:
            large = image.convert("RGB").resize((BRUSH_SIDE, BRUSH_SIDE), Image.Resampling.NEAREST)
        return {"background": large, "layers": [], "composite": None}

    def _files(self, carried: Any, paths: Sequence[str]) -> list[str]:
        """A file for each recipe of a JSON list that the browser sent, drawn again if it must be.

        Those that cannot be drawn any more, as their model or coat has gone, are left out. Raises
        ValueError where none is left, and Busy where the page closes.
        """
        try:
            listed = json.loads(carried)
        except (ValueError, TypeError, RecursionError):
            listed = None
        if not isinstance(listed, list):
            raise ValueError("These cats cannot be read.")
        if not 1 <= len(listed) <= MAX_ALL:
            raise ValueError(NO_CAT if not listed else f"Save {MAX_ALL} cats at the most.")
        recipes, problem = [], None
        for values in listed:
            try:
                recipes.append(Recipe.from_dict(values))
            except ValueError as error:
                problem = error
        files: dict[Recipe, str] = {}
        for path in still_there(paths):
            with suppress(ValueError):  # half a cat, or cleared away just now
                files[read_recipe(path)] = path
        missing = [recipe for recipe in recipes if recipe not in files]
        groups = [list(alike) for _, alike in groupby(missing, key=lambda r: r.batch_key)]
        while groups:
            wanted = groups.pop(0)
            try:
                job = self.studio.draw(wanted)
            except ValueError as error:
                problem = error
                groups += [[one] for one in wanted] if len(wanted) > 1 else []
                continue
            if job.stopped or job.pictures is None:
                raise Busy(ENDING)
            for asked, picture, drawn in zip(wanted, job.pictures, job.recipes, strict=True):
                files[asked] = save_png(picture, drawn)
        found = [files[recipe] for recipe in recipes if recipe in files]
        if problem and not found:
            raise problem
        return found


def _require_file(shown: str | None) -> str:
    """The file of the cat on the stage. Raises ValueError where there is none, or none any more."""
    if shown is None or not still_there([shown]):
        raise ValueError(GONE if shown else NO_CAT)
    return shown
