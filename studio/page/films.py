"""Animations as files: how a cat formed, and the way from cat to cat."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from diffusion.output.animate import film_scale, retime, write_animation
from diffusion.output.pictures import to_image

from .. import space
from ..drawing.job import Job
from .files import save_file
from .forms import number

MAX_SECONDS = 10.0
MAX_SPEED = 30.0  # frames a second
MORPH_SPEED = 12.0

_writing = threading.Lock()  # a long film takes hundreds of megabytes; many are written one by one


@dataclass(frozen=True)
class Film:
    """Paths of the same film in two formats."""

    gif: str
    mp4: str


@dataclass(frozen=True)
class Pace:
    """How long a film takes and how fast it runs. Raises ValueError for values out of range."""

    seconds: float = 2.0  # of forming
    speed: float = 15.0  # frames a second
    hold: float = 1.0  # seconds on the last frame

    def __post_init__(self) -> None:
        seconds, hold = number(self.seconds, "Seconds"), number(self.hold, "Hold")
        if not 0.5 <= seconds <= MAX_SECONDS or not 0 <= hold <= MAX_SECONDS:
            raise ValueError(
                f"An animation takes 0.5 to {MAX_SECONDS:g} seconds, and may stay on "
                f"the last frame for 0 to {MAX_SECONDS:g} seconds."
            )
        if not 1 <= number(self.speed, "Speed") <= MAX_SPEED:
            raise ValueError(f"An animation has 1 to {MAX_SPEED:g} frames per second.")


def require_steps() -> None:
    """Raises ValueError where the steps of a drawing stay out of sight."""
    if space.on_zero_gpu():
        raise ValueError(
            "Forming cannot be animated on ZeroGPU, because the steps stay on the GPU."
        )


def film_of(job: Job, pace: Pace) -> Film:
    """How the first cat of a finished job formed; the job must have recorded it."""
    if job.stopped or not job.frames:
        raise ValueError("Stopped before the animation was complete.")
    with _writing:
        frames = retime(_enlarged(job.frames), max(2, round(pace.seconds * pace.speed)))
        return _write(frames, f"cat-{job.recipes[0].seed}", pace.speed, pace.hold)


def morph_of(job: Job) -> Film:
    """The pictures of a finished morph, one after the other, without an end."""
    if job.stopped or job.pictures is None:
        raise ValueError("Stopped before the morph was complete.")
    with _writing:
        return _write(_enlarged(job.pictures), "morph", MORPH_SPEED, hold=0.0)


def _enlarged(pictures: Iterable[Tensor]) -> list[Image.Image]:
    return [to_image(picture, scale=film_scale(picture)) for picture in pictures]


def _write(frames: Sequence[Image.Image], name: str, speed: float, hold: float) -> Film:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for suffix in (".gif", ".mp4"):
            path = Path(folder, name + suffix)
            write_animation(frames, path, frames_per_second=speed, hold_seconds=hold)
            paths.append(save_file(path.read_bytes(), path.name))
    return Film(*paths)
