"""Animations: their length, their frames, and what cannot be animated; and files for download."""

from __future__ import annotations

import time
import zipfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from page_actions import request
from PIL import Image, ImageSequence

from studio.drawing.recipe import Recipe, morph
from studio.page import files, films
from studio.page.files import save_file, save_zip, still_there
from studio.page.film_actions import FilmActions
from studio.page.films import Pace, film_of, morph_of
from studio.page.visits import Visits

pytestmark = pytest.mark.usefixtures("upload_folder")
PLAIN = Recipe(steps=4)


def gif_frames(path: str) -> tuple[np.ndarray, int]:
    with Image.open(path) as gif:
        frames = [np.array(f.convert("RGB")) for f in ImageSequence.Iterator(gif)]
        total = sum(f.info["duration"] for f in ImageSequence.Iterator(gif))
    return np.stack(frames), total


@pytest.mark.parametrize("record", ["denoised", "noisy"])
def test_how_a_cat_formed(studio, record):
    job = studio.draw([PLAIN], record=record)
    film = film_of(job, Pace(seconds=1, speed=10, hold=0.5))
    frames, milliseconds = gif_frames(film.gif)
    assert frames.shape[1:] == (256, 256, 3)
    assert milliseconds == pytest.approx(1500, abs=110)
    video = iio.imread(film.mp4)
    assert len(video) == 15
    last = job.pictures[0].permute(1, 2, 0).numpy().repeat(16, 0).repeat(16, 1)
    assert np.abs(frames[-1].astype(int) - last).mean() < 12  # a GIF has 256 colours
    assert np.abs(frames[0].astype(int) - last).mean() > 12  # and it did form


def test_a_single_step_makes_a_film_too(studio):
    job = studio.draw([Recipe(steps=1)], record="denoised")
    film = film_of(job, Pace(seconds=0.5, speed=1, hold=0))
    assert len(iio.imread(film.mp4)) == 1
    assert Path(film.gif).stat().st_size > 0


def test_whoever_leaves_at_the_first_word_of_a_film_ends_its_drawing(studio):
    actions = FilmActions(studio, Visits(studio))
    shown = actions.morph("1, 2", [], 32, "", 12, "dpmpp_2m", 1.0, "", request())
    told = next(shown)
    assert told["film"]["visible"] is False  # the film before
    assert "note" in told
    (job,) = actions.visits._jobs
    shown.close()
    assert job.stopped


def test_films_are_written_one_by_one(studio, monkeypatch):
    jobs = [studio.draw([PLAIN], record="denoised"), studio.draw([PLAIN], record="denoised")]
    writing, most = [], []

    def write(frames, path, **options):
        writing.append(path)
        most.append(len(writing))
        time.sleep(0.05)
        path.write_bytes(b"film")
        writing.pop()

    monkeypatch.setattr(films, "write_animation", write)
    with ThreadPoolExecutor() as pool:
        list(pool.map(films.film_of, jobs, [Pace(), Pace()]))
    assert most == [1] * 4


def test_a_morph_has_one_frame_for_each_picture(studio):
    job = studio.draw(morph([PLAIN, Recipe(steps=4, seed=1)], frames=3))
    film = morph_of(job)
    assert len(iio.imread(film.mp4)) == 6


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.4, 15, 1), "0.5 to 10 seconds"),
        ((11, 15, 1), "0.5 to 10 seconds"),
        ((float("nan"), 15, 1), "0.5 to 10 seconds"),
        ((2, 0, 1), "frames per second"),
        ((2, 31, 1), "frames per second"),
        ((2, float("nan"), 1), "frames per second"),
        ((2, 15, -1), "0.5 to 10 seconds"),
        ((2, 15, 1e9), "0.5 to 10 seconds"),
        ((None, 15, 1), "Seconds is missing"),
        (("2", 15, 1), "Seconds must be a number"),
        ((2, [15], 1), "Speed must be a number"),
        ((2, 15, True), "Hold must be a number"),
    ],
)
def test_a_pace_that_cannot_be(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pace(*values)


def test_what_was_stopped_makes_no_film(studio):
    job = studio.submit([Recipe(sampler="ddpm", steps=1000)], record="denoised")
    studio.stop(job)
    job.wait(10)
    with pytest.raises(ValueError, match="Stopped before"):
        film_of(job, Pace())
    with pytest.raises(ValueError, match="Stopped before"):
        morph_of(job)


def test_a_file_that_others_read_is_replaced_whole():
    path = save_file(b"cat", "cat-1.png")
    with open(path, "rb") as reader:
        before = Path(path).stat().st_ino
        assert save_file(b"cat", "cat-1.png") == path
        assert Path(path).stat().st_ino != before
        assert reader.read() == b"cat"
    assert [other.name for other in Path(path).parent.iterdir()] == ["cat-1.png"]


def test_the_oldest_results_make_room_for_new_ones(monkeypatch):
    monkeypatch.setattr(files, "_kept", OrderedDict())
    monkeypatch.setattr(files, "MAX_KEPT_BYTES", 3000)
    first, second, third = (save_file(bytes([i]) * 1000, "cat.png") for i in range(3))
    assert save_file(bytes([0]) * 1000, "cat.png") == first  # written again, it is the newest
    fourth = save_file(bytes([3]) * 1001, "cat.png")
    assert still_there([first, second, third, fourth]) == [first, fourth]
    assert not Path(second).parent.exists()
    huge = save_file(bytes(4000), "film.mp4")  # what was asked for just now is kept all the same
    assert still_there([first, fourth, huge]) == [huge]


def test_a_zip_holds_the_files_in_order_and_skips_lost_ones():
    paths = [save_file(f"cat {i}".encode(), f"cat-{i}.png") for i in range(3)]
    assert len({Path(path).parent for path in paths}) == 3
    with zipfile.ZipFile(save_zip(paths)) as archive:
        assert archive.namelist() == ["01-cat-0.png", "02-cat-1.png", "03-cat-2.png"]
        assert archive.read("02-cat-1.png") == b"cat 1"
    Path(paths[1]).unlink()
    assert still_there(paths) == [paths[0], paths[2]]
