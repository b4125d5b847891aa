"""The cats that a visit finds on the page before it has any of its own."""

from __future__ import annotations

import threading
import traceback

from ..drawing.png_metadata import encode_png
from ..drawing.recipe import Recipe, plain_recipe
from ..drawing.worker import Busy, Studio
from .files import png_name, save_file

EXAMPLES = 8
FIRST_SEED = 25
PATIENCE = 3.0  # seconds that a visit in the page's first moments waits for all of them


class Examples:
    """Cats of the default model: of the cat that it was taught, or of each of its first coats.

    They are drawn one after the other, so that a visitor's request is never behind more than one
    of them. Files are written for each visit: a file lives no longer than ``delete_cache`` says,
    the program perhaps for months.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._of: tuple[str, str] | None = None  # name and hash of the model that drew them
        self._drawing: object = None  # the thread that may add to them
        self._drawn: list[tuple[bytes, str]] = []  # PNG and file name
        self._changed = threading.Condition()

    def begin(self) -> None:
        """Start to draw them in the background, unless the default model has done so already."""
        with self._changed:
            model = self.studio.library.get()
            of = model.name, model.hash
            if self._of == of:
                return
            self._of, self._drawn, self._drawing = of, [], object()
            taught = model.info.taught_label
            coats = [taught] if taught else ["", *model.info.labels]
            recipes = [
                plain_recipe(
                    model.info.sampling,
                    seed=FIRST_SEED + i,
                    coat=coats[i % len(coats)],
                    any_coat=not coats[i % len(coats)],
                    model=model.name,
                )
                for i in range(EXAMPLES)
            ]
            arguments = self._drawing, recipes
        threading.Thread(target=self._draw, args=arguments, name="examples", daemon=True).start()

    def files(self) -> list[str]:
        """PNG files of those that are there, and at least of one."""
        self.begin()
        with self._changed:
            self._changed.wait_for(lambda: len(self._drawn) == EXAMPLES or not self._of, PATIENCE)
            self._changed.wait_for(lambda: self._drawn or not self._of, 30)
            drawn = list(self._drawn)
        return [save_file(png, name) for png, name in drawn]

    def _draw(self, drawing: object, recipes: list[Recipe]) -> None:
        try:
            for recipe in recipes:
                job = self.studio.draw([recipe])
                if job.stopped:  # the page closes
                    return
                with self._changed:
                    if self._drawing is not drawing:  # another model was the default meanwhile
                        return
                    assert job.pictures is not None  # a job that was not stopped has drawn
                    png = encode_png(job.pictures[0], job.recipes[0])
                    self._drawn.append((png, png_name(recipe)))
                    self._changed.notify_all()
        except (ValueError, Busy) as error:
            if isinstance(error, ValueError):
                traceback.print_exc()
            with self._changed:
                if self._drawing is drawing:
                    self._of = None  # the next visit tries again
                self._changed.notify_all()
