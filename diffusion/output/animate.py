"""Frames to a GIF or an MP4, and a callback that records how a picture formed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise, repeat
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image
from torch import Tensor

from ..codec import Codec
from ..files import atomic_path
from ..samplers import Step
from .pictures import grid

FORMATS = (".gif", ".mp4")
FILM_PIXELS = 256  # pictures are enlarged by whole pixels, up to this width
MAX_FILM_PICTURES = 64  # side by side in a film
FILM_STEPS = 96  # that are kept of a drawing: eight seconds of film
LEAST_DELAY = 2  # hundredths of a second in a GIF; browsers slow down below
# RGB becomes YUV by ffmpeg's BT.601 unless told, and players take a film without tags for BT.709
# from 720 lines on. The tags are set on the frames: as options of the output some would be lost.
TO_BT709 = (
    "scale=out_color_matrix=bt709:out_range=tv,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)


def noisy_x0(step: Step, *, sigma_data: float = 0.5) -> Tensor:
    """The noisy x of a step, scaled so that its standard deviation stays near that of x0: a codec
    decodes it to a noisy picture."""
    return step.x * (sigma_data / (step.sigma**2 + sigma_data**2) ** 0.5)


class Recorder:
    """A sampler callback that keeps the estimate of x0 of up to ``FILM_STEPS`` steps, evenly
    spread, the last among them: uint8 [N, 3, H, W] each, on the CPU."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.steps: list[Tensor] = []

    def __call__(self, step: Step) -> None:
        kept = min(FILM_STEPS, step.total)
        before, now = ((index * kept) // step.total for index in (step.index - 1, step.index))
        if now > before:
            self.steps.append(self.codec.decode(step.denoised).cpu())


def film_frames(steps: Iterable[Tensor]) -> Iterator[Image.Image]:
    """One image for each of ``steps``, uint8 [N, 3, H, W], enlarged; several pictures lie in a
    grid."""
    return (grid(pictures, scale=film_scale(pictures)) for pictures in steps)


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
    frames: Iterable[Image.Image],
    path: str | Path,
    *,
    frames_per_second: float = 12.0,
    hold_seconds: float = 1.0,
) -> None:
    """Write frames to a looping GIF or an MP4, atomically; the last one stays for a while.

    Both last equally long. Frames are taken one by one, as they are written. Raises ValueError for
    another ending than .gif or .mp4, and if there are no frames.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            "The file name of an animation must end in "
            f"{' or '.join(FORMATS)}, not '{path.suffix}'."
        )
    if not 0.1 <= frames_per_second <= 60:
        raise ValueError(f"An animation has 0.1 to 60 frames per second, not {frames_per_second}.")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("There are no frames to animate.")
    held = _hold(chain([first], frames), round(hold_seconds * frames_per_second))
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    with atomic_path(path) as temporary:
        write(held, temporary, frames_per_second)


def _hold(frames: Iterable[Image.Image], times: int) -> Iterator[Image.Image]:
    """The frames as RGB, and the last of them so many times more."""
    for frame in frames:
        frame = frame.convert("RGB")
        yield frame
    yield from repeat(frame, times)


def _write_gif(frames: Iterator[Image.Image], path: Path, frames_per_second: float) -> None:
    """A GIF counts in hundredths of a second: frames begin at the nearest. One that would begin
    less than two after another takes its place, which happens beyond 50 frames a second."""
    starts: list[int] = []  # in hundredths
    pictures: list[Image.Image] = []  # of a byte a pixel
    count = 0
    for count, frame in enumerate(frames, start=1):
        start = round(100 * (count - 1) / frames_per_second)
        if starts and start - starts[-1] < LEAST_DELAY:
            pictures.pop()
        else:
            starts.append(start)
        pictures.append(frame.convert("P", palette=Image.Palette.ADAPTIVE))
    end = max(LEAST_DELAY, round(100 * count / frames_per_second))
    if end - starts[-1] < LEAST_DELAY:
        del starts[-1], pictures[-2]
    delays = [10 * (b - a) for a, b in pairwise([*starts, end])]  # milliseconds
    pictures[0].save(
        path, "GIF", save_all=True, append_images=pictures[1:], duration=delays, loop=0
    )


def _write_mp4(frames: Iterator[Image.Image], path: Path, frames_per_second: float) -> None:
    first = next(frames)
    size = (first.width & ~1, first.height & ~1)  # yuv420 wants even sides
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=frames_per_second, codec="libx264", macro_block_size=2,
        output_params=["-vf", TO_BT709, "-movflags", "+faststart"],
    )  # fmt: skip
    writer.send(None)
    try:
        for frame in chain([first], frames):
            writer.send(np.ascontiguousarray(frame.crop((0, 0, *size))))
    finally:
        writer.close()
