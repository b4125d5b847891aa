"""What visitors take with them: one cat, a sheet of several, or all of their strip.

Files are made when they are asked for, so that no drawing waits for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, TypedDict

import gradio as gr
from PIL import Image

from ...drawing.png_metadata import read_recipe
from ...drawing.recipe import Recipe
from ...drawing.worker import Busy
from ..files import SCALES, enlarge, save_png, save_sheet, save_zip, still_there
from ..stage import status_html
from ..visits import Visits

MAX_ALL = 100  # cats in one zip: forty, and those with a star
BRUSH_SIDE = 512  # pixels of a picture to paint on
NO_CAT = "There is no cat yet. Generate one first."
GONE = "This cat is no longer stored here. Draw it again, then save it."
STOPPED = "Stopped. Nothing was saved."


class Saved(TypedDict, total=False):
    """What saving several cats changes on the page."""

    saved: str | None  # the file for the browser to save; None: there is none
    status: str  # HTML


class SaveActions:
    """Files of cats, most of which are still there from when they were drawn."""

    def __init__(self, visits: Visits) -> None:
        self.visits = visits

    def save_cat(self, shown: str | None, scale: Any, pixels: Any) -> str:
        """The cat on the stage in the size that was chosen. Raises ValueError."""
        return enlarge(_require_file(shown), scale if scale in SCALES else 1, pixels=bool(pixels))

    def save_sheet(self, carried: Any, paths: list[str], request: gr.Request) -> Iterator[Saved]:
        """The cats on the stage side by side."""
        yield from self._save(save_sheet, carried, paths, request)

    def save_all(self, carried: Any, paths: list[str], request: gr.Request) -> Iterator[Saved]:
        """A zip of the cats of the strip."""
        yield from self._save(save_zip, carried, paths, request)

    def take_cat(self, shown: str | None) -> Any:
        """The cat on the stage as the picture to paint on, large enough for a brush. Raises
        ValueError."""
        with Image.open(_require_file(shown)) as image:
            large = image.convert("RGB").resize((BRUSH_SIDE, BRUSH_SIDE), Image.Resampling.NEAREST)
        return {"background": large, "layers": [], "composite": None}

    def _save(
        self, write: Callable[[Sequence[str]], str], carried: Any, paths: Sequence[str],
        request: gr.Request,
    ) -> Iterator[Saved]:  # fmt: skip
        """One file of the cats that the browser lists. Those that are stored no longer are drawn
        again, which takes a while: the page tells how far that is, and Stop ends it."""
        try:
            recipes, problem = _listed(carried)
            files = _stored(paths)
            missing = [recipe for recipe in recipes if recipe not in files]
            problem = (yield from self._draw_again(missing, files, request)) or problem
            found = [files[recipe] for recipe in recipes if recipe in files]
            if problem and not found:
                raise problem
            saved: Saved = {"saved": write(found)}
        except (ValueError, Busy) as error:
            yield {"saved": None, "status": status_html(str(error), error=True)}
            return
        if missing:
            saved["status"] = status_html(f"Saved {len(found)} of {len(recipes)} cats.")
        yield saved

    def _draw_again(
        self, missing: Sequence[Recipe], files: dict[Recipe, str], request: gr.Request
    ) -> Generator[Saved, None, ValueError | None]:
        """Add the files of cats that are drawn anew; those that cannot be drawn any more, as their
        model or coat has gone, are left out, and the last reason is returned. Raises ValueError
        where it was stopped, and Busy where the page closes."""
        problem, done = None, 0
        groups = [list(alike) for _, alike in groupby(missing, key=lambda r: r.batch_key)]
        while groups:
            wanted = groups.pop(0)
            try:
                job = self.visits.studio.submit(wanted)
                for update in self.visits.watch(job, request):
                    now = done + int(update.share * len(wanted))
                    text = f"Drawing cats that are stored no longer: {now} of {len(missing)}"
                    yield {"status": status_html(text, working=True)}
            except ValueError as error:
                problem = error
                groups += [[one] for one in wanted] if len(wanted) > 1 else []
                continue
            if job.stopped or job.pictures is None:
                raise job.why or ValueError(STOPPED)
            done += len(wanted)
            for asked, picture, drawn in zip(wanted, job.pictures, job.recipes, strict=True):
                files[asked] = save_png(picture, drawn)
        return problem


def _listed(carried: Any) -> tuple[list[Recipe], ValueError | None]:
    """The recipes of a JSON list that the browser sent, and what is wrong with one of the others.
    Raises ValueError for anything else."""
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
    return recipes, problem


def _stored(paths: Sequence[str]) -> dict[Recipe, str]:
    """The files that are still there, by the cats that they show."""
    files: dict[Recipe, str] = {}
    for path in still_there(paths):
        with suppress(ValueError):  # half a cat, or cleared away just now
            files[read_recipe(path)] = path
    return files


def _require_file(shown: str | None) -> str:
    """The file of the cat on the stage. Raises ValueError where there is none, or none any more."""
    if shown is None or not still_there([shown]):
        raise ValueError(GONE if shown else NO_CAT)
    return shown
