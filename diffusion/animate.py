"""Frames to a GIF or an MP4, and a callback that records how a picture formed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image
from torch import Tensor

from .codec import Codec
from .files import atomic_path
from .pictures import grid
from .samplers import Step

FORMATS = (".gif", ".mp4")
FILM_PIXELS = 256  # pictures are enlarged by whole pixels, up to this width


def noisy_x0(step: Step, *, sigma_data: float = 0.5) -> Tensor:
    """The noisy x of a step, scaled so that its standard deviation stays near that of x0: a codec
    decodes it to a noisy picture."""
    return step.x * (sigma_data / (step.sigma**2 + sigma_data**2) ** 0.5)


class Recorder:
    """A sampler callback that keeps every step's estimate of the picture: uint8 [N, 3, S, S] on
    the CPU."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.steps: list[Tensor] = []

    def __call__(self, step: Step) -> None:
        self.steps.append(self.codec.decode(step.denoised).cpu())

    def frames(self) -> list[Image.Image]:
        """One image a step, enlarged; several pictures lie in a grid."""
        return [grid(pictures, scale=film_scale(pictures)) for pictures in self.steps]


def film_scale(pictures: Tensor) -> int:
    """How many pixels wide a pixel of pictures [..., H, W] is in a film."""
    return max(1, FILM_PIXELS // pictures.shape[-1])


def retime(frames: Sequence[Image.Image], count: int) -> list[Image.Image]:
    """``count`` frames that pass through all of ``frames`` at an even pace, each blended into the
    next."""
    if len(frames) < 2 or count < 2:
        return list(frames)
    blended = []
    for i in range(count):
        whole, part = divmod(i * (len(frames) - 1) / (count - 1), 1)
        a, b = frames[int(whole)], frames[min(int(whole) + 1, len(frames) - 1)]
        blended.append(Image.blend(a, b, part))
    return blended


def write_animation(
    frames: Sequence[Image.Image],
    path: str | Path,
    *,
    frames_per_second: float = 12.0,
    hold_seconds: float = 1.0,
) -> None:
    """Write frames to a looping GIF or an MP4, atomically; the last one stays for a while.

    Raises ValueError for another ending than .gif or .mp4, and if there are no frames.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"An animation ends in {' or '.join(FORMATS)}, not '{path.suffix}'.")
    if not frames:
        raise ValueError("There are no frames to animate.")
    if not 0.1 <= frames_per_second <= 60:
        raise ValueError(f"An animation has 0.1 to 60 frames a second, not {frames_per_second}.")
    hold = round(hold_seconds * frames_per_second)
    arrays = [np.asarray(frame.convert("RGB")) for frame in frames]
    arrays += [arrays[-1]] * hold
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".gif":
            duration = max(20, 1000 / frames_per_second)  # ms; browsers slow down below 20
            iio.imwrite(temporary, np.stack(arrays), duration=duration, loop=0)
        else:
            even = [frame[: frame.shape[0] & ~1, : frame.shape[1] & ~1] for frame in arrays]
            iio.imwrite(
                temporary, np.stack(even), fps=frames_per_second, codec="libx264",
                macro_block_size=2, output_params=["-movflags", "+faststart"],
            )  # fmt: skip
