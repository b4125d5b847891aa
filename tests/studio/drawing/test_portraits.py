"""Portraits are drawn once, whoever asks, and take no more room than they may."""

from __future__ import annotations

import io
import threading

import pytest
from PIL import Image
from studio_fixtures import wait_until

from studio.drawing import portraits
from studio.drawing.portraits import Portraits
from studio.drawing.recipe import Recipe, consecutive


def test_a_portrait_is_the_cat_of_its_recipe_in_the_size_that_is_asked_for(studio):
    recipe = Recipe(seed=3, steps=2, coat="tabby")
    image = Image.open(io.BytesIO(Portraits(studio).jpeg([recipe], 64)))
    assert (image.format, image.size) == ("JPEG", (64, 64))
    drawn = studio.draw([recipe]).pictures[0].float().mean(dim=(1, 2))
    shown = [sum(band.getdata()) / 64**2 for band in image.convert("RGB").split()]
    assert shown == pytest.approx(drawn.tolist(), abs=6)


def test_it_is_drawn_once_for_all_who_ask(studio, gate):
    kept = Portraits(studio)
    with gate.close():
        asking = [
            threading.Thread(target=kept.jpeg, args=([Recipe(seed=1, steps=2)], 16))
            for _ in range(4)
        ]
        for thread in asking:
            thread.start()
        wait_until(lambda: gate.steps > 0)
        gate.event.set()
        for thread in asking:
            thread.join(20)
    assert gate.batches == [1]
    kept.jpeg([Recipe(seed=1, steps=2, model="tiny")], 16)  # the same by its full name
    assert gate.batches == [1]


def test_the_oldest_make_room(studio, gate, monkeypatch):
    kept = Portraits(studio)
    room = 3.5 * len(kept.jpeg([Recipe(seed=0, steps=2)], 16))  # three, though some are larger
    monkeypatch.setattr(portraits, "MAX_KEPT_BYTES", room)
    for seed in (1, 2, 0, 3, 4, 0):
        kept.jpeg([Recipe(seed=seed, steps=2)], 16)
    assert sum(map(len, kept._kept.values())) <= room
    assert kept._bytes == sum(map(len, kept._kept.values()))
    assert len(gate.batches) == 5  # the one that was asked for now and then stayed


def test_what_cannot_be_drawn_is_not_kept(studio):
    kept = Portraits(studio)
    for _ in range(2):
        with pytest.raises(ValueError, match="does not know the label"):
            kept.jpeg([Recipe(coat="lion")], 16)
    assert not kept._kept
    assert not kept._drawing


def test_several_stand_in_a_row_and_are_drawn_together(studio, gate):
    recipes = consecutive(Recipe(seed=1, steps=2), 3)
    image = Image.open(io.BytesIO(Portraits(studio).jpeg(recipes, 16)))
    assert image.size == (48, 16)
    assert gate.batches == [3]
    drawn = studio.draw(recipes).pictures[2].float().mean()
    cell = image.crop((32, 0, 48, 16)).convert("RGB")
    assert sum(map(sum, cell.getdata())) / (3 * 16**2) == pytest.approx(float(drawn), abs=6)
