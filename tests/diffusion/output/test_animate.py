"""Animations are read back with other readers than the writer's."""

import itertools
import subprocess
import weakref

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from helpers import small_denoiser
from PIL import Image
from torch.testing import assert_close

from diffusion import SampleConfig, generate
from diffusion.codec import PixelCodec, to_uint8
from diffusion.output.animate import (
    FILM_STEPS,
    Recorder,
    film_frames,
    film_scale,
    noisy_x0,
    write_animation,
)
from diffusion.samplers import Step


def frames(num: int = 5, size: tuple[int, int] = (12, 10)) -> list[Image.Image]:
    return [Image.new("RGB", size, (40 * i, 200 - 40 * i, 90)) for i in range(num)]


def gif_frames(path) -> tuple[Image.Image, list[float], list[np.ndarray]]:
    image = Image.open(path)
    durations, pictures = [], []
    for i in range(image.n_frames):
        image.seek(i)
        durations.append(image.info["duration"])
        pictures.append(np.asarray(image.convert("RGB")))
    return image, durations, pictures


def test_a_gif_shows_every_frame_holds_the_last_and_loops(tmp_path):
    path = tmp_path / "forming.gif"
    write_animation(frames(), path, frames_per_second=10, hold_seconds=0.5)
    image, durations, pictures = gif_frames(path)
    assert image.info["loop"] == 0  # for ever
    # Pillow stores equal neighbours as one longer frame, so that the held frames are one.
    assert durations == [100, 100, 100, 100, 600]
    for picture, frame in zip(pictures, frames(), strict=True):
        assert np.abs(picture.astype(int) - np.asarray(frame)).max() <= 2


def test_a_gif_lasts_as_long_as_its_frames_and_its_hold(tmp_path):
    write_animation(frames(6), tmp_path / "a.gif", frames_per_second=5, hold_seconds=2)
    _, durations, _ = gif_frames(tmp_path / "a.gif")
    assert sum(durations) == 6 * 200 + 2000


@pytest.mark.parametrize("rate", [7, 12, 15, 23.976, 30, 45, 60])
def test_a_gif_lasts_as_long_as_its_mp4(tmp_path, rate):
    """Hundredths that are rounded one by one do not add up: 15 frames a second ran 2 % fast."""
    moving = [Image.new("RGB", (16, 16), (5 * i, 255 - 5 * i, 9 * i % 256)) for i in range(47)]
    for name in ("a.gif", "a.mp4"):
        write_animation(iter(moving), tmp_path / name, frames_per_second=rate, hold_seconds=0.7)
    _, durations, _ = gif_frames(tmp_path / "a.gif")
    seconds = (47 + round(0.7 * rate)) / rate
    assert sum(durations) == 10 * round(100 * seconds)
    assert min(durations) >= 20
    assert len(iio.imread(tmp_path / "a.mp4")) == 47 + round(0.7 * rate)


def test_an_mp4_says_in_which_colours_it_is(tmp_path):
    """And is in them: decoded as BT.709, whatever its tags, pure colours come back."""
    pure = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / "a.mp4"
    write_animation(pure, path, frames_per_second=3, hold_seconds=0)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    said = subprocess.run([ffmpeg, "-i", path], capture_output=True, text=True).stderr
    assert "yuv420p(tv, bt709, progressive)" in said
    as_709 = ["-vf", "scale=in_color_matrix=bt709:in_range=tv", "-f", "rawvideo"]
    raw = subprocess.run(
        [ffmpeg, "-i", path, *as_709, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    decoded = np.frombuffer(raw, np.uint8).reshape(3, 64, 64, 3).mean((1, 2))
    assert np.abs(decoded - 255 * np.eye(3)).max() < 8


def test_a_gif_is_not_slowed_down_by_browsers(tmp_path):
    # Browsers show a frame of 10 ms or less for 100 ms.
    write_animation(frames(), tmp_path / "a.gif", frames_per_second=60, hold_seconds=0)
    _, durations, _ = gif_frames(tmp_path / "a.gif")
    assert min(durations) >= 20


@pytest.mark.parametrize("size", [(64, 48), (33, 35)])
def test_an_mp4_decodes_to_its_frames(tmp_path, size):
    path = tmp_path / "forming.mp4"
    write_animation(frames(5, size), path, frames_per_second=10, hold_seconds=0.4)
    video = iio.imread(path)
    # yuv420 wants even sides: an odd one loses its last row or column.
    assert video.shape == (5 + 4, size[1] & ~1, size[0] & ~1, 3)
    assert_close(iio.immeta(path)["fps"], 10.0)
    expected = [np.asarray(frame)[0, 0] for frame in frames()]
    for picture, colour in zip(video, expected + [expected[-1]] * 4, strict=True):
        assert np.abs(picture.mean(axis=(0, 1)) - colour).max() < 6


@pytest.mark.parametrize("name", ["a.webm", "a.png", "a", "a.gif.txt"])
def test_another_ending_is_refused_and_leaves_no_file(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.gif or \.mp4"):
        write_animation(frames(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_endings_may_be_capitals_and_paths_strings(tmp_path):
    write_animation(frames(), str(tmp_path / "A.GIF"))
    assert [path.name for path in tmp_path.iterdir()] == ["A.GIF"]


def test_no_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_animation([], tmp_path / "a.gif")


@pytest.mark.parametrize("rate", [0.0, -1.0, 61.0, float("nan")])
def test_an_impossible_frame_rate_is_refused(tmp_path, rate):
    with pytest.raises(ValueError, match=r"0\.1 to 60"):
        write_animation(frames(), tmp_path / "a.gif", frames_per_second=rate)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_single_frame_is_an_animation(tmp_path, suffix):
    path = tmp_path / f"one{suffix}"
    write_animation(frames(1), path, frames_per_second=10, hold_seconds=0)
    assert len(iio.imread(path, index=None)) == 1


def test_a_recorder_keeps_the_estimate_of_every_step():
    denoiser = small_denoiser()
    recorder = Recorder(denoiser.codec)
    pictures = generate(denoiser, [1, 2], SampleConfig(num_steps=4), callback=recorder)
    assert len(recorder.steps) == 4  # and it does not stop the sampler
    assert recorder.steps[0].shape == (2, 3, 8, 8)
    assert torch.equal(recorder.steps[-1], pictures)


def test_of_a_long_drawing_some_steps_are_kept_and_the_last():
    recorder = Recorder(PixelCodec(8))
    for index in range(1, 1001):
        x = torch.full((1, 3, 8, 8), index / 1000)
        recorder(Step(index, 1000, 1.0, torch.zeros_like(x), x))
    assert len(recorder.steps) == FILM_STEPS
    shown = [int(pictures[0, 0, 0, 0]) for pictures in recorder.steps]
    assert shown[-1] == 255
    assert shown == sorted(shown)
    assert max(b - a for a, b in itertools.pairwise(shown)) <= 3  # evenly spread


def test_frames_are_written_as_they_come(tmp_path):
    """Not kept: there may be hundreds, of a million pixels each."""
    frames, most = [], 0

    def coming():
        nonlocal most
        for i in range(40):
            frame = Image.new("RGB", (64, 64), (6 * i, 0, 0))
            frames.append(weakref.ref(frame))
            most = max(most, sum(frame() is not None for frame in frames))
            yield frame
            del frame

    write_animation(coming(), tmp_path / "a.mp4")
    write_animation(coming(), tmp_path / "a.gif")
    assert most <= 4


def test_noisy_pictures_are_visible():
    x = torch.randn(1, 3, 64, 64)
    for sigma in (80.0, 0.5, 0.0):
        total = (sigma**2 + 0.25) ** 0.5
        picture = to_uint8(noisy_x0(Step(1, 3, sigma, total * x, torch.zeros_like(x))))
        # Each has the spread of data of standard deviation 0.5, and so the same picture.
        assert_close(picture, ((0.5 * x + 1) * 127.5).round().clamp(0, 255).byte(), rtol=0, atol=1)


def test_frames_are_grids_enlarged_without_blur():
    recorder = Recorder(PixelCodec(8))
    recorder(Step(1, 1, 0.0, torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)))
    assert (recorder.steps[0] == 255).all()  # the estimate, not the noisy image
    (frame,) = film_frames(recorder.steps)
    # Two by two pictures of 8, with lines of 2 around and between them; each is 256 pixels wide.
    assert frame.size == (32 * (2 * 8 + 3 * 2),) * 2


@pytest.mark.parametrize(("width", "scale"), [(64, 4), (100, 2), (128, 2), (256, 1), (300, 1)])
def test_films_are_alike_in_width(width, scale):
    assert film_scale(torch.zeros(3, width, width)) == scale
