"""The strangers of ``benchmarks.strangers``, honest ones and others: what each of them does."""

from __future__ import annotations

import base64
import itertools
import random
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.clients import Busy, ask, not_busy, pixels_of, updates, visitor
from benchmarks.figures import Figures
from benchmarks.known import DREAMERS, POINTS, SEEDS, Known, compared, dragged, dreamt, explored
from benchmarks.server import Server

PAUSE_SECONDS = 1.0  # of a visitor between two visits, on average
CALL = "/gradio_api/call"


class Visitor:
    """A stranger with an address, who does one thing after the other."""

    def __init__(self, number: int, server: Server, known: Known, figures: Figures) -> None:
        self.server, self.known, self.figures = server, known, figures
        self.chance = random.Random(number)
        self.http = visitor(server.address, number)

    def live(self, until: float) -> None:
        kinds: dict[Callable[[], None], int] = {
            self.draw: 5, self.explore: 2, self.drag: 3, self.dream: 2, self.leave: 2,
            self.rubbish: 2, self.password: 1, self.nonsense: 3, self.probe: 3, self.look: 2,
        }  # fmt: skip
        while time.monotonic() < until:
            while not self.server.up:
                time.sleep(0.1)
            self.visit(*self.chance.choices([*kinds], [*kinds.values()]))
            time.sleep(self.chance.expovariate(1 / PAUSE_SECONDS))

    def visit(self, do: Callable[[], None]) -> None:
        life, began = self.server.life, time.monotonic()
        try:
            do()
            outcome = "answered"
        except Busy:
            outcome = "busy"
        except Exception as error:
            outcome = "cut" if self._was_cut(life) else "5xx"
            if outcome == "5xx":
                self.figures.trouble(f"{do.__name__}: {type(error).__name__}: {str(error)[:200]}")
        self.figures.add(do.__name__, outcome, time.monotonic() - began)

    def _was_cut(self, life: int) -> bool:
        """Whether the server was away meanwhile, or goes this very moment."""
        time.sleep(0.5)
        return not self.server.up or self.server.life != life

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = not_busy(self.http.request(method, path, **options))
        if answer.status_code >= 500:
            raise RuntimeError(f"{answer.status_code} for {method} {path[:60]}: {answer.text[:80]}")
        return answer

    def draw(self) -> None:
        seed = self.chance.choice(SEEDS)
        picture, _ = ask(self.http, seed, self.server.model)
        self._judge("cat", f"seed {seed}", self.known.cats.word(seed, picture))

    def explore(self) -> None:
        """A point of the map between four cats, as a script asks for it."""
        at = self.chance.choice(POINTS)
        picture = explored(self.http, at, self.server.model)
        self._judge("point of a script", f"the point {at}", self.known.points.word(at, picture))

    def drag(self) -> None:
        """Go from point to point of the map, as the page does: the next frame after the last."""
        for at in self.chance.sample(POINTS, 4):
            picture = dragged(self.http, at, self.server.model)
            self._judge("point", f"the point {at}", self.known.drags.word(at, picture))

    def dream(self) -> None:
        """Read some frames, leave amid the dream, and ask for the last one once more."""
        seed, model = self.chance.choice(DREAMERS), self.server.model
        stream = updates(self.http, "dream", [seed, 0.3, "", model, None])
        frames = list(itertools.islice(stream, self.chance.randrange(2, 7)))
        stream.close()
        first, last = (_picture_in(frames[i]["picture"]) for i in (0, -1))
        self._judge("first of a dream", f"dream {seed}", self.known.dreams.word(seed, first))
        again = dreamt(self.http, seed, frames[-1]["moment"], model)
        self._judge("later in a dream", f"a moment of dream {seed}", compared(again, last))

    def _judge(self, kind: str, asked: str, word: str) -> None:
        self.figures.picture(kind, word)
        if word == "wrong":
            self.figures.trouble(f"{asked} got another cat")

    def leave(self) -> None:
        """Ask for much, and go before it is there; or never look at all."""
        body = {"data": [self.chance.randrange(10**6), 16, "", 200, "heun", 3.0, ""]}
        event = self.send("POST", f"{CALL}/generate", json=body).json()["event_id"]
        if self.chance.random() < 0.5:
            return
        with self.http.stream("GET", f"{CALL}/generate/{event}") as stream:
            for _, _ in zip(range(self.chance.randrange(1, 6)), stream.iter_lines(), strict=False):
                pass

    def rubbish(self) -> None:
        """Upload something that was a picture once, and ask for a cat made of it."""
        buffer = BytesIO()
        size = (self.chance.randrange(1, 900), self.chance.randrange(1, 900))
        kind = self.chance.choice(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
        Image.new("RGB", size, "orange").save(buffer, kind)
        data = bytearray(buffer.getvalue())
        for _ in range(self.chance.randrange(20)):
            data[self.chance.randrange(len(data))] = self.chance.randrange(256)
        data = data[: self.chance.randrange(len(data))] if self.chance.random() < 0.3 else data
        name = self.chance.choice(["cat.png", "../../cat.png", "cat.svg", "a" * 300, "ä\x00.jpg"])
        answer = self.send("POST", "/gradio_api/upload", files={"files": (name, bytes(data))})
        if answer.status_code != 200:
            return
        picture = {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}
        body = {"data": [picture, 0.5, 1, "", 2, "euler", 1.0, ""]}
        self._read(self.send("POST", f"{CALL}/from_picture", json=body))

    def password(self) -> None:
        for _ in range(5):
            guess = "".join(self.chance.choices("abcdefghij", k=12))
            body: Any = self.chance.choice([guess, None, 7, [guess], {"a": guess}, guess * 10_000])
            self.send("POST", "/admin/sign-in", json={"password": body})

    def nonsense(self) -> None:
        path = self.chance.choice([f"{CALL}/generate", f"{CALL}/morph", "/gradio_api/queue/join"])
        value = self.chance.choice(NONSENSE)
        data = f"[{', '.join([value] * self.chance.randrange(1, 9))}]"
        fields = {
            "data": data,
            "fn_index": self.chance.choice(["0", "3", "99999", "-1", value]),
            "session_hash": self.chance.choice(['"abc"', '"\\ud800"', "7", "null"]),
        }
        body = "{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}"
        content = body[: self.chance.randrange(len(body))] if self.chance.random() < 0.2 else body
        headers = {"content-type": "application/json"}
        answer = self.send("POST", path, content=content.encode(), headers=headers)
        if path.startswith(CALL) and answer.status_code == 200:
            self._read(answer, path)

    def _read(self, answer: httpx.Response, path: str = f"{CALL}/from_picture") -> None:
        if "event_id" in answer.text:
            self.send("GET", f"{path}/{answer.json()['event_id']}")

    def probe(self) -> None:
        method = self.chance.choice(["GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS"])
        self.send(method, self.chance.choice(DOORS))

    def look(self) -> None:
        for path in ("/", "/config", "/gradio_api/info"):
            if self.send("GET", path).status_code != 200:
                raise RuntimeError(f"{path} was refused")


def _picture_in(uri: str) -> np.ndarray:
    return pixels_of(base64.b64decode(uri.split(",", 1)[1]))


NONSENSE = (
    "NaN", "Infinity", "-Infinity", "1e999", "null", "true", '""', '"\\ud800"', '"\\u0000"', "{}",
    "[]", "-1", "1e30", "99999999999999999999999999", '"../../etc/passwd"', "[" * 300 + "]" * 300,
    '{"path": "/etc/passwd"}', '{"path": "http://127.0.0.1/"}', f'"{"x" * 20_000}"',
    '{"__type__": "update", "value": 1}',
)  # fmt: skip
DOORS = (
    "/.env", "/admin", "/admin/sets/current", "/admin/models/..%2f..%2fx.safetensors",
    "/gradio_api/file=/etc/passwd", "/gradio_api/file=../app.py", "/gradio_api/file/etc/passwd",
    "/gradio_api/file=http://127.0.0.1/", "/proxy=http://127.0.0.1/", "/gradio_api/dev/reload",
    "/gradio_api/deep_link", "/gradio_api/monitoring", "/monitoring/x", "/docs", "/openapi.json",
    "/static/../../etc/passwd", "/assets/%2e%2e/%2e%2e/app.py", "/cat.jpg?seed=NaN", "/cat.jpg",
    "/gradio_api/queue/data?session_hash=none", "/gradio_api/upload_progress?upload_id=none",
    "/gradio_api/heartbeat/", "/gradio_api/call/generate/none", "/" + "a/" * 2000, "/%ff%00",
    "/gradio_api/component_server", "/login", "/wp-login.php", "/svelte/..%5c..%5capp.py",
)  # fmt: skip
