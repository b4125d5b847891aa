"""Small pictures: the examples in the strip, and the face of each coat on its chip."""

from __future__ import annotations

import html
import json
import threading
import traceback
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from diffusion.output.pictures import encode_jpeg, to_image

from ..drawing.png_metadata import read_recipe
from ..drawing.recipe import Recipe, plain_recipe
from ..drawing.worker import MAX_BATCH, Busy, Studio
from .data_uri import data_uri
from .examples import FIRST_SEED

THUMB_SIDE = 112  # pixels in the strip, sharp on a fine screen
FACE_SIDE = 48  # pixels on a chip
MAX_MODELS = 16  # whose faces are remembered


def examples_html(paths: Sequence[str]) -> str:
    """PNG files of this page as buttons, each with its picture and its recipe."""
    thumbs = []
    for path in paths:
        recipe = read_recipe(path)
        with Image.open(path) as image:
            source = _jpeg_uri(image.convert("RGB"), THUMB_SIDE)
        thumbs.append(
            f'<button class="thumb" data-recipe="{html.escape(json.dumps(recipe.to_dict()))}">'
            f'<img alt="Example: {html.escape(recipe.describe())}" src="{source}"></button>'
        )
    return "".join(thumbs)


class Faces:
    """One small cat for each coat of a model, drawn once, in the background."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._styles: OrderedDict[tuple[str, str], str] = OrderedDict()  # by name and hash
        self._drawing = threading.Lock()

    def style(self, model: str) -> str:
        """A ``<style>`` that gives each chip its face; empty where none could be drawn."""
        loaded = self.studio.library.get(model)
        of = loaded.name, loaded.hash
        known = self._styles.get(of)
        if known is not None:  # without waiting for those that are being drawn
            return known
        with self._drawing:
            if of not in self._styles:
                labels = loaded.info.labels[:MAX_BATCH]
                pictures = self._draw([
                    plain_recipe(
                        loaded.info.sampling, seed=FIRST_SEED, coat=coat, model=loaded.name
                    )
                    for coat in labels
                ])  # fmt: skip
                if pictures is None:
                    return ""
                self._styles[of] = faces_style(dict(zip(labels, pictures, strict=True)))
                while len(self._styles) > MAX_MODELS:
                    self._styles.popitem(last=False)
            return self._styles[of]

    def _draw(self, recipes: Sequence[Recipe]) -> Sequence[Tensor] | Tensor | None:
        """Pictures of recipes, in a thread of its own: they are nobody's request."""
        drawn: list[Tensor] = []

        def draw() -> None:
            try:
                job = self.studio.draw(recipes)
                if not job.stopped and job.pictures is not None:
                    drawn.append(job.pictures)
            except Busy:
                pass  # the next visit tries again
            except ValueError:
                traceback.print_exc()

        if not recipes:
            return []
        thread = threading.Thread(target=draw, name="faces", daemon=True)
        thread.start()
        thread.join()
        return drawn[0] if drawn else None


def faces_style(faces: Mapping[str, Tensor]) -> str:
    """The rules that lay each face, uint8 [3, S, S], on the chip of its coat."""
    rules = [
        f"#coat label:has(input[value={_css_string(coat)}])::before"
        f"{{background-image:url({_jpeg_uri(to_image(face), FACE_SIDE)}) !important}}"
        for coat, face in faces.items()
    ]
    return f"<style>{''.join(rules)}</style>"


def _css_string(text: str) -> str:
    """A name as CSS: each character that could mean something there by its number."""
    return '"' + "".join(c if c.isalnum() else f"\\{ord(c):06x}" for c in text) + '"'


def _jpeg_uri(image: Image.Image, side: int) -> str:
    small = image.resize((side, side), Image.Resampling.LANCZOS)
    return data_uri(encode_jpeg(small, quality=82), "image/jpeg")
