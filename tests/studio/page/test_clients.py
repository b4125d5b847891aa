"""Clients that leave, stop, come all at once or find a full queue."""

from __future__ import annotations

import threading
import time

import httpx
import pytest
import torch
from calling import ENDPOINTS, HONEST, assert_sentence, call, handle, handlers, new_visit, post
from studio_fixtures import pixels, wait_until

from diffusion.sampling import draw
from studio.drawing.recipe import Recipe

pytestmark = pytest.mark.usefixtures("goes_on")


@pytest.fixture
def jobs(page, monkeypatch) -> list:
    """The jobs that are submitted while a test runs."""
    submitted, submit = [], page.studio.submit
    monkeypatch.setattr(
        page.studio, "submit", lambda *a, **k: submitted.append(submit(*a, **k)) or submitted[-1]
    )
    return submitted


@pytest.mark.parametrize("name", ["generate", "animate", "morph", "the page"])
def test_a_client_that_leaves_frees_the_machine(http, page, jobs, name, monkeypatch, page_gate):
    if name == "the page":
        visit = new_visit()
        handle(http, handlers(page, "open_page")[0], [""], visit=visit)
        data = [16, False, 1, "any", 100, "euler", 1, "tiny", None]
        join, stream = "/queue/join", f"/queue/data?session_hash={visit}"
        body = {"data": data, "fn_index": handlers(page, "generate")[0], "session_hash": visit}
    else:
        values = {**HONEST, "sampler": "ddpm", "steps": 1000, "count": 16}
        body = {"data": [values[field] for field in ENDPOINTS[name].split()]}
        join, stream = f"/call/{name}", f"/call/{name}/"
    jobs.clear()
    with page_gate.count() as gate:

        def slow(denoiser, start, config, *, callback, preview):
            def dawdle(step):
                time.sleep(0.03)
                return callback(step)

            return draw(denoiser, start, config, callback=dawdle)

        monkeypatch.setattr(gate, "draw", slow)
        event = post(http, join, body).json()["event_id"]
        stream += event if stream.endswith("/") else ""
        with http.stream("GET", stream) as lines:
            next(lines.iter_lines())
            wait_until(lambda: gate.steps > 0)
        left = time.monotonic()
        (job,) = jobs
        wait_until(lambda: job.done)
        steps = gate.steps
        time.sleep(0.1)
    assert job.stopped
    assert job.finished - left < 2  # Gradio notices at its next message, then it is one step
    assert gate.steps == steps < 80  # and nothing goes on


@pytest.mark.parametrize("name", ["generate", "morph", "animate"])
def test_stop_ends_what_this_visit_draws(http, page, jobs, name, page_gate):
    settings = ["any", 100, "euler", 1, "tiny"]
    visit = new_visit()
    handle(http, handlers(page, "open_page")[0], [""], visit=visit)
    if name == "animate":  # there must be a cat on the stage
        drawn = [1, False, 1, "any", 100, "euler", 1, "tiny", None]
        handle(http, handlers(page, "generate")[0], drawn, visit=visit)
    data = {
        "generate": [16, False, 1, *settings, None],
        "morph": ["1, 2", [], 32, *settings],
        "animate": [None, "the estimate", 2, 15, 1],
    }[name]
    jobs.clear()
    with page_gate.close() as gate:
        body = {"data": data, "fn_index": handlers(page, name)[0], "session_hash": visit}
        post(http, "/queue/join", body)
        wait_until(lambda: gate.steps == 1)
        stop = {"data": [], "fn_index": handlers(page, "stop")[0]}
        post(http, "/queue/join", {**stop, "session_hash": new_visit()})  # somebody else's
        assert not jobs[0].stopped
        post(http, "/queue/join", {**stop, "session_hash": visit})
        wait_until(lambda: jobs[0].stopped)
        gate.event.set()
        wait_until(lambda: jobs[0].done)
        assert gate.steps == 1


def test_many_clients_at_once_get_their_own_cats(http, page, page_gate):
    """Twelve raw clients with different seeds, drawn in each other's company."""
    expected = {
        seed: page.studio.draw([Recipe(seed=seed, steps=3)]).pictures[0] for seed in range(12)
    }
    got: dict[int, torch.Tensor] = {}

    def visit(seed: int) -> None:
        with httpx.Client(base_url=http.base_url, timeout=30) as mine:
            made = call(mine, "generate", [seed, 1, "", 3])
            got[seed] = pixels(mine.get(made["pictures"][0]["url"]).content)

    with page_gate.close() as gate:
        blocker = page.studio.submit([Recipe(steps=1)])
        wait_until(lambda: gate.steps == 1)
        visitors = [threading.Thread(target=visit, args=(seed,)) for seed in expected]
        for visitor in visitors:
            visitor.start()
        wait_until(lambda: len(page.studio._jobs) == 12, 20)
        gate.event.set()
        for visitor in visitors:
            visitor.join(30)
        assert blocker.done
        assert gate.batches == [1, 12]
    for seed, picture in expected.items():
        assert (got[seed].int() - picture.int()).abs().max() <= 1


def test_a_full_queue_says_busy(http, page, monkeypatch):
    monkeypatch.setattr(page.studio, "max_waiting", 0)
    assert "try again" in assert_sentence(call(http, "generate", [1]))
    assert "try again" in assert_sentence(call(http, "morph", [[1, 2]]))
