"""Cats that are drawn once and shown often: faces of models, previews of links."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections import OrderedDict

from PIL import Image

from diffusion.pictures import to_image

from .recipe import Recipe
from .worker import Busy, Studio

MAX_KEPT_BYTES = 32_000_000  # of all together: some 500


class Portraits:
    """JPEGs of recipes, the latest kept in memory."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._kept: OrderedDict[tuple[Recipe, int], bytes] = OrderedDict()
        self._bytes = 0
        self._drawing: dict[tuple[Recipe, int], threading.Lock] = {}
        self._lock = threading.Lock()

    def jpeg(self, recipe: Recipe, side: int) -> bytes:
        """The cat of a recipe as a JPEG of ``side`` pixels; whoever asks for it meanwhile waits.

        Raises ValueError for what cannot be drawn, and Busy if too many wait.
        """
        model = self.studio.library.get(recipe.model)
        key = dataclasses.replace(recipe, model=model.name, model_hash=model.hash), side
        with self._lock:
            one = self._drawing.setdefault(key, threading.Lock())
        with one:
            try:
                with self._lock:
                    if key in self._kept:
                        self._kept.move_to_end(key)
                        return self._kept[key]
                data = self._draw(recipe, side)
                self._keep(key, data)
                return data
            finally:
                with self._lock:
                    self._drawing.pop(key, None)

    def _draw(self, recipe: Recipe, side: int) -> bytes:
        job = self.studio.draw([recipe])
        if job.stopped or job.pictures is None:
            raise Busy("The server is shutting down.")
        image: Image.Image = to_image(job.pictures[0])
        file = io.BytesIO()
        image.resize((side, side), Image.Resampling.LANCZOS).save(file, "JPEG", quality=92)
        return file.getvalue()

    def _keep(self, key: tuple[Recipe, int], data: bytes) -> None:
        with self._lock:
            self._kept[key] = data
            self._bytes += len(data)
            while self._bytes > MAX_KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
