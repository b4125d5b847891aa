"""The two routes for whatever watches over the server, and the lines of its log."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from studio.drawing.library import ModelLibrary
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Studio
from studio.health import HealthRoutes
from studio.safety.journal import open_journal

PLAIN = Recipe(steps=3)


def ask(studio: Studio, path: str) -> tuple[int, dict]:
    """Status and answer of a route, with nothing behind it."""
    transport = httpx.ASGITransport(HealthRoutes(None, studio))

    async def get():
        async with httpx.AsyncClient(transport=transport, base_url="http://cats") as client:
            return await client.get(path)

    answer = asyncio.run(get())
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()


def test_a_server_is_ready_when_it_can_draw(tiny_folder):
    studio = Studio(ModelLibrary([tiny_folder]), max_waiting=7)
    assert ask(studio, "/healthz") == (200, {"alive": True})
    assert ask(studio, "/readyz") == (503, {"ready": False, "waiting": 0, "room": 7})
    studio.library.get()
    assert ask(studio, "/readyz") == (200, {"ready": True, "waiting": 0, "room": 7})
    studio.close()
    assert ask(studio, "/readyz")[0] == 503
    assert ask(studio, "/healthz")[0] == 200


def test_the_queue_is_told_while_the_worker_is_busy(studio, gate):
    with gate.close():
        jobs = [studio.submit([PLAIN])]
        while not gate.batches:
            time.sleep(0.01)
        jobs += [studio.submit([PLAIN]) for _ in range(3)]
        assert ask(studio, "/readyz") == (200, {"ready": True, "waiting": 3, "room": 64})
    for job in jobs:
        job.wait(30)
    assert ask(studio, "/readyz")[1]["waiting"] == 0


def test_the_real_page_has_both_and_they_do_not_wait_for_the_queue(page, page_gate):
    with page_gate.close(), httpx.Client(base_url=page.url, timeout=30) as client:
        job = page.studio.submit([PLAIN])
        while not page_gate.batches:
            time.sleep(0.01)
        assert client.get("/healthz").json() == {"alive": True}
        assert client.get("/readyz").json()["ready"] is True
        assert client.head("/readyz").status_code == 200
        assert client.post("/healthz").status_code == 403
        assert not job.done
    job.wait(30)


@pytest.mark.parametrize("outcome", ["done", "stopped", "failed"])
def test_a_job_is_a_line(studio, gate, tmp_path, outcome):
    if outcome == "failed":
        gate.draw = lambda *_, **__: 1 / 0
    open_journal(str(tmp_path / "log"))
    try:
        with gate.close():
            job = studio.submit([PLAIN, Recipe(steps=3, seed=87654321, coat="tabby")])
            while not gate.batches:
                time.sleep(0.01)
            if outcome == "stopped":
                studio.stop(job)
        job.wait(30)
    finally:
        open_journal("")
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    # A visitor of a test before may leave only now, and that is a line too.
    (line,) = (line for line in lines if line["kind"] == "job")
    wanted = {"kind": "job", "outcome": outcome, "pictures": 2, "steps": 3, "size": 16}
    assert {key: line[key] for key in wanted} == wanted
    assert line["waited"] >= 0
    assert line["seconds"] > 0
    assert "87654321" not in text
    assert "tabby" not in text
