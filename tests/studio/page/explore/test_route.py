"""``/live``: one cat a request, quickly or finely, behind the guard."""

from __future__ import annotations

import io
import json
import threading

import anyio
import pytest
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from studio_fixtures import pixels, wait_until

from studio.drawing.live import MAX_LIVE_STEPS
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Studio
from studio.page.explore.route import LiveRoute
from studio.safety.budget import Bucket
from studio.safety.guard import Guard

CATS = [{"seed": seed, "coat": "tabby", "model": "tiny"} for seed in range(4)]
POINT = {"corners": CATS, "x": 0.25, "y": 0.5}


@pytest.fixture
def client(studio) -> TestClient:
    return TestClient(Starlette(middleware=[Middleware(Guard), Middleware(LiveRoute, studio)]))


def test_a_frame_is_a_small_jpeg_with_the_recipe_of_the_fine_cat(client, studio, gate):
    answer = client.post("/live", json=POINT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert Image.open(io.BytesIO(answer.content)).size == (16, 16)
    assert gate.steps == MAX_LIVE_STEPS
    recipe = Recipe.from_dict(json.loads(answer.headers["x-recipe"]))
    assert recipe.steps == studio.library.get().info.sampling.num_steps


def test_a_fine_cat_is_a_png_that_draws_itself_again(client, studio, tmp_path):
    from studio.drawing.png_metadata import read_recipe

    answer = client.post("/live", json={**POINT, "fine": True})
    assert answer.headers["content-type"] == "image/png"
    (tmp_path / "cat.png").write_bytes(answer.content)
    recipe = read_recipe(tmp_path / "cat.png")
    assert recipe.to_dict() == json.loads(answer.headers["x-recipe"])
    assert torch.equal(pixels(answer.content), studio.draw([recipe]).pictures[0])


def test_a_name_that_is_no_ascii_can_stand_in_the_header(tmp_path, gate):
    from studio_fixtures import save_tiny

    from studio.drawing.library import ModelLibrary

    save_tiny(tmp_path / "tiny.safetensors", labels=("black", "Mäuschen\n"))
    studio = Studio(ModelLibrary([tmp_path]), draw=gate)
    client = TestClient(Starlette(middleware=[Middleware(LiveRoute, studio)]))
    answer = client.post("/live", json={"seed": 1, "moment": 0, "coat": "Mäuschen\n"})
    assert json.loads(answer.headers["x-recipe"])["coat"] == "Mäuschen\n"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({**POINT, "x": 2}, "must lie on the map"),
        ({**POINT, "corners": CATS[:2]}, "four cats"),
        ({"seed": 1, "moment": -5}, "moment of a dream"),
        (None, "JSON object"),
        ([1], "JSON object"),
    ],
)
def test_a_mistake_is_a_sentence(client, gate, asked, sentence):
    answer = client.post("/live", json=asked)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]
    assert gate.batches == []


def test_what_is_no_json_or_has_nan_in_it_is_a_sentence(client):
    assert "JSON object" in client.post("/live", content=b"{").json()["error"]
    answer = client.post("/live", content=json.dumps({**POINT, "x": float("nan")}))
    assert answer.status_code == 400
    assert "no JSON" in answer.json()["error"]


def test_only_this_pages_own_post_draws(client, gate):
    assert client.get("/live").status_code == 404
    elsewhere = client.post("/live", json=POINT, headers={"origin": "http://evil.example"})
    assert elsewhere.status_code == 403
    assert gate.batches == []


def test_a_busy_server_says_so(tiny_folder, gate):
    from studio.drawing.library import ModelLibrary

    studio = Studio(ModelLibrary([tiny_folder]), max_waiting=0, draw=gate)
    client = TestClient(Starlette(middleware=[Middleware(LiveRoute, studio)]))
    answer = client.post("/live", json=POINT)
    assert answer.status_code == 503
    assert "waiting" in answer.json()["error"]


def test_one_who_asks_for_too_many_frames_is_told_to_wait(client, monkeypatch):
    taken = []

    def fill(bucket, now):
        taken.append(bucket.size)
        bucket.left = 0 if bucket.size == 1000 else bucket.left

    monkeypatch.setattr(Bucket, "fill", fill)
    answer = client.post("/live", json=POINT)
    assert answer.status_code == 429
    assert "too many frames" in answer.json()["error"]


def test_one_who_stays_is_told_that_the_server_ends(client, studio, gate):
    gate.close()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(client.post("/live", json=POINT)))
    asking.start()
    wait_until(lambda: gate.steps == 1)
    closing = threading.Thread(target=studio.close)
    closing.start()
    wait_until(lambda: all(job.stopped for job in studio._drawing))
    gate.event.set()
    asking.join(10)
    assert answers[0].status_code == 503
    assert "shutting down" in answers[0].json()["error"]


def test_one_who_leaves_stops_the_frame_that_is_drawn(studio, gate):
    """The work ends with its step: that is all a closed page still costs."""
    body = json.dumps({**POINT, "fine": True}).encode()
    scope = {"type": "http", "method": "POST", "path": "/live", "headers": []}
    gone = anyio.Event()
    sent = []

    async def receive():
        if not sent:
            sent.append("body")
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def leave():
        await anyio.to_thread.run_sync(lambda: wait_until(lambda: gate.steps == 1))
        gone.set()
        await anyio.sleep(0.1)
        gate.event.set()

    async def visit():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(LiveRoute(None, studio), scope, receive, send)
            tasks.start_soon(leave)

    gate.close()
    anyio.run(visit)
    assert gate.steps <= 2
    assert sent[1]["status"] == 204
