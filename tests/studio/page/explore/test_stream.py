"""The map and the dream as endpoints, by gradio_client and by raw HTTP."""

from __future__ import annotations

import time

import pytest
import torch
from calling import post
from studio_fixtures import pixels, wait_until

from studio.drawing.live import MAX_LIVE_STEPS
from studio.drawing.png_metadata import read_recipe
from studio.drawing.recipe import Recipe

pytestmark = pytest.mark.usefixtures("goes_on")


def test_the_map_is_an_endpoint(client, page, page_gate):
    asked = {"seeds": [1, 2, 3, 4], "coats": ["tabby", "black"], "x": 0.25, "y": 0.5}
    page_gate.count()
    quick = client.predict(api_name="/explore", **asked)
    assert page_gate.steps == MAX_LIVE_STEPS
    fine = client.predict(api_name="/explore", fine=True, **asked)
    assert quick["recipes"] == fine["recipes"]
    recipe = read_recipe(fine["pictures"][0])
    assert [seed for seed, *_ in recipe.turns] == [2, 3, 4]
    drawn = page.studio.draw([recipe]).pictures[0]
    assert torch.equal(pixels(fine["pictures"][0]), drawn)
    assert not torch.equal(pixels(quick["pictures"][0]), drawn)


def test_a_dream_is_a_stream_in_step_with_the_clock(client):
    job = client.submit(api_name="/dream", seed=5, speed=2.0, frames=6)
    began = time.monotonic()
    frames = list(job)
    lasted = time.monotonic() - began
    assert len(frames) == 6
    assert [frame["done"] for frame in frames] == [False] * 5 + [True]
    moments = [frame["moment"] for frame in frames]
    assert moments[0] < 1
    assert moments == sorted(moments)
    assert moments[-1] <= 2.0 * lasted
    first = Recipe.from_dict(frames[0]["recipe"])
    assert first.seed == 5
    assert frames[0]["picture"].startswith("data:image/jpeg;base64,")


def test_a_dream_ends_when_its_reader_leaves(http, page_gate):
    page_gate.count()
    event = post(http, "/call/dream", {"data": [5]}).json()["event_id"]
    with http.stream("GET", f"/call/dream/{event}") as lines:
        next(line for line in lines.iter_lines() if len(page_gate.batches) >= 3)
    drawn, quiet = -1, time.monotonic()

    def ended() -> bool:
        nonlocal quiet, drawn
        if len(page_gate.batches) != drawn:
            quiet, drawn = time.monotonic(), len(page_gate.batches)
        return time.monotonic() - quiet > 1.0

    wait_until(ended, 20)
