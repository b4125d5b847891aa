"""A dream as a stream, for scripts: the page asks for its frames one by one instead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from diffusion.output.pictures import encode_jpeg, to_image

from ...drawing.worker import Studio
from ..data_uri import data_uri
from ..forms import number, whole_number
from .forms import read_moment
from .route import QUALITY

MAX_DREAM_SPEED = 10.0  # cats a second


def dream(
    studio: Studio, seed: Any, speed: Any, coat: Any, model: Any, frames: Any
) -> Iterator[dict]:
    """Frames of a dream: ``{"done", "moment", "picture", "recipe"}``, the picture a JPEG as a data
    URI. Each shows the moment at which it was begun: a slow reader gets fewer. Raises ValueError.
    """
    speed = number(speed, "The speed")
    if not 0 < speed <= MAX_DREAM_SPEED:
        raise ValueError(
            f"The speed must be above 0 and at most {MAX_DREAM_SPEED:g} cats a second."
        )
    left = None if frames is None else whole_number(frames, "The number of frames")
    if left is not None and left < 1:
        raise ValueError("A dream has at least one frame.")
    began = time.monotonic()
    while left is None or left > 0:
        moment = (time.monotonic() - began) * speed
        recipe = read_moment(seed, moment, coat, model, studio.library)
        job = studio.draw([recipe], live=True, preview=True)
        if job.stopped or job.pictures is None:  # the server closes
            return
        data = encode_jpeg(to_image(job.pictures[0]), quality=QUALITY)
        left = None if left is None else left - 1
        yield {
            "done": left == 0,
            "moment": round(moment, 4),
            "picture": data_uri(data, "image/jpeg"),
            "recipe": job.recipes[0].to_dict(),
        }
