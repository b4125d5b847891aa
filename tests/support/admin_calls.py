"""Events of the Admin tab by raw HTTP, as its page sends them."""

from __future__ import annotations

import random
import string

import gradio as gr
from drawing import cats


def inside(block) -> set[int]:
    """Ids of a block and of everything in it."""
    return {block._id}.union(*(inside(child) for child in getattr(block, "children", [])))


def events(blocks) -> dict[int, object]:
    """Every event that begins or ends in the Admin tab and runs something on the server."""
    (tab,) = (b for b in blocks.blocks.values() if isinstance(b, gr.Tab) and b.id == "admin")
    ids = inside(tab)
    return {
        index: fn
        for index, fn in blocks.fns.items()
        if fn.fn is not None
        and ids & {b._id for b in [*fn.inputs, *fn.outputs]} | ids & {t[0] for t in fn.targets}
    }


def send(
    client, served, index: int, data: list | None = None, *, visit: str = "",
    event: tuple[str, list] | None = None,
) -> dict:  # fmt: skip
    """What one event answers: run at once, as the page does with all of this tab."""
    visit = visit or "".join(random.choices(string.ascii_lowercase, k=10))
    fn = served[0].blocks.fns[index]
    body = {
        "data": [None] * len(fn.inputs) if data is None else data,
        "fn_index": index, "session_hash": visit,
    }  # fmt: skip
    if event is not None:  # whose button was pressed, and what it does
        body["event_data"] = {"index": event[0], "value": event[1]}
    return client.post("/gradio_api/run/predict", json=body).json()


def press(client, served, of: str, *what: str) -> str:
    """The line that a button inside the HTML answers."""
    answer = send(client, served, event_of(served, "act"), [], event=(of, list(what)))
    return answer.get("error") or answer["data"][0]


def event_of(served, name: str) -> int:
    return next(i for i, fn in events(served[0].blocks).items() if fn.name == name)


def call(client, served, name: str, data: list, *, visit: str = "") -> str:
    """The HTML line that a handler answers."""
    answer = send(client, served, event_of(served, name), data, visit=visit)
    return answer.get("error") or answer["data"][0]


def shown(client, served, *, visit: str = "") -> dict[str, object]:
    """What a look changes, by the name that the tab has for the part."""
    index = event_of(served, "look")
    visit = visit or "".join(random.choices(string.ascii_lowercase, k=10))
    data = send(client, served, index, [None, None, None], visit=visit)["data"]
    outputs = served[0].blocks.fns[index].outputs
    found = {}
    for block, value in zip(outputs, data, strict=True):
        nothing = isinstance(value, dict) and set(value) <= {"__type__", "props"}
        if not (nothing or isinstance(block, gr.State)):
            found[block.elem_id or type(block).__name__] = value
    return found


def add_photos(admin, count: int = 9) -> None:
    pictures = admin.sets.create()
    for name, data in cats(count, 64).items():
        pictures.add(name, [data])
