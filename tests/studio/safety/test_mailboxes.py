"""Jobs whose stream nobody reads, in front of the real page and by the mailbox alone."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import httpx
import pytest
from studio_fixtures import wait_until

from studio.safety import mailboxes
from studio.safety.mailboxes import KEPT, Mailboxes

LONG = [0, 16, "", 1000, "ddpm", 1.0, ""]  # of the endpoint: seed, count, coat, steps, ...


def join(page, session: str, data: list | None = None) -> httpx.Response:
    body = {"data": data or LONG, "fn_index": 0, "session_hash": session}
    return httpx.post(f"{page.url}/gradio_api/queue/join", json=body)


def boxes(page) -> dict:
    return page.blocks._queue.pending_messages_per_session


def jobs_of(page) -> list:
    return [*page.studio._drawing, *page.studio._jobs]


@pytest.fixture
def slow(page, page_gate):
    """Every step takes a twentieth of a second, so that an abandoned job would take a minute."""
    with page_gate.close(seconds=0.05) as gate:
        yield gate
        for job in jobs_of(page):
            page.studio.stop(job)
        wait_until(lambda: not page.studio._jobs)


def test_a_job_whose_stream_nobody_opens_ends(page, slow, monkeypatch):
    monkeypatch.setattr(mailboxes, "PATIENCE", 1.0)
    assert join(page, "abandoned").is_success
    wait_until(lambda: slow.steps >= 2)
    job = next(iter(page.studio._drawing))
    most, end = 0, time.monotonic() + 6
    while not job.done and time.monotonic() < end:
        most = max(most, boxes(page)["abandoned"].qsize() if "abandoned" in boxes(page) else 0)
        time.sleep(0.01)
    assert job.stopped
    assert slow.steps < 100  # of a thousand
    assert most <= KEPT + 2  # previews did not pile up
    wait_until(lambda: "abandoned" not in boxes(page))
    assert "abandoned" not in page.blocks._queue.pending_event_ids_session


def test_a_job_that_is_read_goes_on(page, page_gate, monkeypatch):
    monkeypatch.setattr(mailboxes, "PATIENCE", 2.0)
    with page_gate.close(seconds=0.05):
        event = join(page, "reader", [3, 1, "", 60, "euler", 1.0, ""]).json()["event_id"]
        seen = []
        address = f"{page.url}/gradio_api/queue/data?session_hash=reader"
        with httpx.stream("GET", address, timeout=30) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    seen.append(json.loads(line[5:]))
                    if seen[-1]["msg"] == "process_completed":
                        break
    assert seen[-1]["event_id"] == event
    assert seen[-1]["success"]
    assert [m["msg"] for m in seen].count("process_generating") > KEPT


class Queue:
    """As much of Gradio's queue as the mailboxes touch."""

    def __init__(self) -> None:
        self.pending_messages_per_session = {"a": asyncio.Queue()}
        self.pending_event_ids_session = {"a": {"1"}}
        self.event_ids_to_events: dict = {}


def test_a_slow_reader_is_waited_for_and_a_closed_stream_is_not(monkeypatch):
    monkeypatch.setattr(mailboxes, "PATIENCE", 0.2)

    async def run():
        queue = Queue()
        box = queue.pending_messages_per_session["a"]
        for number in range(KEPT + 5):
            box.put_nowait(SimpleNamespace(number=number))

        async def read_slowly():
            while not box.empty():
                await asyncio.sleep(0.1)
                box.get_nowait()

        reading = asyncio.create_task(read_slowly())
        began = time.monotonic()
        assert await Mailboxes(SimpleNamespace(_queue=queue)).is_read("a")
        assert time.monotonic() - began > 0.4  # longer than its patience: something was read
        await reading
        assert not await Mailboxes(SimpleNamespace(_queue=queue)).is_read("nobody")

    asyncio.run(run())


def test_the_mailboxes_are_those_of_the_queue_that_works():
    """``Blocks.queue`` puts another one in the place of that which a page is built with."""
    blocks = SimpleNamespace(_queue=Queue())
    kept = Mailboxes(blocks)
    blocks._queue = Queue()
    assert kept._queue is blocks._queue


def test_what_a_finished_job_left_is_thrown_away(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(mailboxes.time, "monotonic", lambda: now[0])
    queue = Queue()
    box = queue.pending_messages_per_session["a"]
    box.put_nowait(SimpleNamespace())
    kept = Mailboxes(SimpleNamespace(_queue=queue))
    queue.event_ids_to_events["1"] = SimpleNamespace(session_hash="a")
    for now[0] in (0.0, 100.0, 200.0):  # it is at work
        kept.sweep()
        assert "a" in queue.pending_messages_per_session
    queue.event_ids_to_events.clear()
    for now[0], there in ((230.0, True), (259.0, True), (262.0, False)):
        kept.sweep()
        assert ("a" in queue.pending_messages_per_session) is there, now[0]
    assert not queue.pending_event_ids_session
