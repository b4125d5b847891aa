"""Cats that are drawn once and shown often: faces of models, previews of links."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Sequence

from PIL import Image

from diffusion.output.pictures import encode_jpeg, to_image

from .recipe import Recipe
from .worker import Busy, Studio

MAX_KEPT_BYTES = 32_000_000  # of all together: some 500 single cats
Key = tuple[tuple[Recipe, ...], int]  # recipes with their weights' hash, and the side


class Portraits:
    """JPEGs of recipes, the latest kept in memory."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._bytes = 0
        self._drawing: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def jpeg(self, recipes: Sequence[Recipe], side: int) -> bytes:
        """The cats of recipes of one batch key in a row, each ``side`` pixels wide, as a JPEG;
        whoever asks for it meanwhile waits.

        Raises ValueError for what cannot be drawn, and Busy if too many wait.
        """
        model = self.studio.library.get(recipes[0].model)
        named = tuple(
            dataclasses.replace(recipe, model=model.name, model_hash=model.hash)
            for recipe in recipes
        )
        key = named, side
        with self._lock:
            one = self._drawing.setdefault(key, threading.Lock())
        with one:
            try:
                with self._lock:
                    if key in self._kept:
                        self._kept.move_to_end(key)
                        return self._kept[key]
                data = self._draw(recipes, side)
                self._keep(key, data)
                return data
            finally:
                with self._lock:
                    self._drawing.pop(key, None)

    def _draw(self, recipes: Sequence[Recipe], side: int) -> bytes:
        job = self.studio.draw(recipes)
        if job.stopped or job.pictures is None:
            raise Busy("The server is shutting down.")
        row = Image.new("RGB", (len(recipes) * side, side))
        for i, picture in enumerate(job.pictures):
            cat = to_image(picture).resize((side, side), Image.Resampling.LANCZOS)
            row.paste(cat, (i * side, 0))
        return encode_jpeg(row, quality=92)

    def _keep(self, key: Key, data: bytes) -> None:
        with self._lock:
            self._kept[key] = data
            self._bytes += len(data)
            while self._bytes > MAX_KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
