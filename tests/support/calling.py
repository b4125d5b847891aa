"""The page's endpoints and handlers by raw HTTP, for tests that send what no browser would."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import httpx
from studio_fixtures import Page

from studio.page.answers import BROKEN

META = {"_type": "gradio.FileData"}
ENDPOINTS = {
    "generate": "seed count coat steps sampler guidance model",
    "animate": "seed coat steps sampler guidance model noisy seconds speed hold",
    "morph": "seeds coats frames steps sampler guidance model",
    "variations": "seed count strength first_seed coat steps sampler guidance model",
    "from_picture": "picture strength seed coat steps sampler guidance model",
    "repaint": "picture mask seed coat steps sampler guidance model",
    "explore": "corners x y coats model fine",
    "dream": "seed speed coat model frames",
}
HONEST = {
    "seed": 1, "count": 1, "coat": "", "steps": 2, "sampler": "euler", "guidance": 1.0,
    "model": "", "noisy": False, "seconds": 1.0, "speed": 4.0, "hold": 0.0, "seeds": [1, 2],
    "coats": None, "frames": 2, "strength": 0.5, "first_seed": 0,
    "corners": [1, 2, 3, 4], "x": 0.5, "y": 0.5, "fine": False,
}  # fmt: skip


def post(http: httpx.Client, path: str, body: dict) -> httpx.Response:
    """As ``http.post(json=...)``, but NaN may be in it."""
    headers = {"content-type": "application/json"}
    return http.post(path, content=json.dumps(body), headers=headers)


def call(http: httpx.Client, name: str, data: list) -> dict:
    """The last answer of an endpoint: its value, or {"error": sentence}."""
    answer = post(http, f"/call/{name}", {"data": data})
    if answer.status_code != 200:
        return answer.json()
    events = http.get(f"/call/{name}/{answer.json()['event_id']}").text
    kind, last = events.strip().split("\n\n")[-1].split("\n")
    values = json.loads(last.removeprefix("data: "))
    return values if kind == "event: error" else values[0]


def new_visit() -> str:
    return "".join(random.choices(string.ascii_lowercase, k=10))


def handle(
    http: httpx.Client, index: int, data: list, *, visit: str = "", event_data: Any = None
) -> dict:
    """The last answer of any handler of the page, private ones too."""
    visit = visit or new_visit()
    body = {"data": data, "fn_index": index, "session_hash": visit, "event_data": event_data}
    answer = post(http, "/queue/join", body)
    if answer.status_code != 200:
        return answer.json()
    last: dict = {}
    with http.stream("GET", "/queue/data", params={"session_hash": visit}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {}
            if message.get("msg") in ("process_generating", "process_completed"):
                last = message["output"]
            if message.get("msg") in ("close_stream", "unexpected_error"):
                break
    return last


def upload(http: httpx.Client, data: bytes, name: str = "cat.png") -> dict:
    """Store a file as the page does; returns how a call names it."""
    path = http.post("/upload", files={"files": (name, data)}).json()[0]
    return {"path": path, "orig_name": name, "meta": META}


def assert_sentence(answer: dict) -> str:
    """An error that a person can read, with nothing of the machine in it."""
    sentence = answer.get("error")
    assert isinstance(sentence, str), answer
    assert sentence.strip()[-1] in ".!]", sentence
    assert len(sentence) < 400, sentence
    for machine in ("Traceback", "None", "Error", "/work/", "site-packages", " 0x"):
        assert machine not in sentence
    assert sentence != BROKEN
    assert "in a short time" not in sentence  # refused unread
    return sentence


def handlers(page: Page, name: str) -> list[int]:
    """Indices of the page's private events that a function handles."""
    fns = page.blocks.fns.items()
    return [i for i, f in fns if f.api_visibility == "private" and f.name == name]
