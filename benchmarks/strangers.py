"""Strangers, honest ones and others, for an hour: does the page stand up to them?

    python -m benchmarks.strangers [--minutes 60] [--kill-minutes 10] [--clients 10]
           [--model cat-heads-64] [--out strangers]

starts ``python app.py`` on 127.0.0.1 with a training in the background, and sends it visitors, each
with an address of its own. They draw cats, ask for much and leave, upload rubbish, try passwords,
send what is no JSON or no value, and look for doors. Every so often the server is ended, by SIGTERM
and by SIGKILL in turn, and started again. Each cat is compared with the same seed drawn before all
that. Prints Markdown tables; ``--out`` gets them as JSON, and a plot of memory, files and latency
where matplotlib is installed. Exit status 1 for a wrong cat, an answer of 5xx (but 503, "please try
again"), a traceback in the server's log, or a temporary file that is left at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.clients import PATIENCE, Busy, ask, memory
from benchmarks.server import Server
from diffusion.checkpoint import SHIPPED, read_checkpoint
from diffusion.config import FinetuneConfig

SEEDS = range(2000, 2012)  # that visitors draw; of each it is known how it looks
SAMPLE_SECONDS = 2.0  # between two looks at memory and files
PAUSE_SECONDS = 1.0  # of a visitor between two visits, on average
CALL = "/gradio_api/call"
OUTCOMES = ("answered", "busy", "cut", "5xx")


class Figures:
    """What came of every visit, and how the server stood meanwhile."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.cats: Counter[str] = Counter()
        self.troubles: Counter[str] = Counter()  # each 5xx and wrong cat, in words
        self.samples: list[dict[str, float]] = []
        self._lock = threading.Lock()

    def add(self, kind: str, outcome: str, seconds: float) -> None:
        with self._lock:
            self.outcomes[kind][outcome] += 1
            if outcome == "answered":
                self.seconds[kind].append(seconds)

    def trouble(self, words: str) -> None:
        with self._lock:
            self.troubles[words] += 1

    def cat(self, word: str) -> None:
        with self._lock:
            self.cats[word] += 1


class Cats:
    """How each seed looks when nobody else asks."""

    def __init__(self, address: str, model: str) -> None:
        with httpx.Client(base_url=address, timeout=PATIENCE) as http:
            self.pictures = {seed: ask(http, seed, model)[0].astype(int) for seed in SEEDS}
        self.hashes = {seed: _hash(picture) for seed, picture in self.pictures.items()}

    def word(self, seed: int, picture: np.ndarray) -> str:
        """The same pixels; the same but for the rounding of another batch; or a wrong cat."""
        if _hash(picture) == self.hashes[seed]:
            return "same pixels"
        apart = {other: np.abs(p - picture).mean() for other, p in self.pictures.items()}
        nearest = min(apart, key=apart.__getitem__)
        return "rounded" if nearest == seed and apart[seed] < 1 else "wrong"


def _hash(picture: np.ndarray) -> str:
    return hashlib.sha256(picture.astype(np.uint8).tobytes()).hexdigest()


# -- what strangers do ------------------------------------------------------------------------


class Visitor:
    """A stranger with an address, who does one thing after the other."""

    def __init__(self, number: int, server: Server, cats: Cats, figures: Figures) -> None:
        self.server, self.cats, self.figures = server, cats, figures
        self.chance = random.Random(number)
        self.http = httpx.Client(
            base_url=server.address,
            timeout=PATIENCE,
            headers={"x-forwarded-for": f"192.0.2.{number}"},
        )

    def live(self, until: float) -> None:
        kinds: dict[Callable[[], None], int] = {
            self.draw: 5, self.leave: 2, self.rubbish: 2, self.password: 1, self.nonsense: 3,
            self.probe: 3, self.look: 2,
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
        answer = self.http.request(method, path, **options)
        if answer.status_code in (429, 503):
            raise Busy(answer.text)
        if answer.status_code >= 500:
            raise RuntimeError(f"{answer.status_code} for {method} {path[:60]}: {answer.text[:80]}")
        return answer

    def draw(self) -> None:
        seed = self.chance.choice(SEEDS)
        try:
            picture, _ = ask(self.http, seed, self.server.model)
        except httpx.HTTPStatusError as error:
            raise (Busy() if error.response.status_code == 429 else error) from None
        word = self.cats.word(seed, picture)
        self.figures.cat(word)
        if word == "wrong":
            self.figures.trouble(f"seed {seed} got another cat")

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


# -- the training, and what is looked at meanwhile --------------------------------------------


def queue_training(data_dir: Path, model: str) -> Path:
    """A training of ten smooth pictures that no hour ends; returns its folder."""
    from studio.drawing.library import ModelLibrary
    from studio.training.training_folder import TrainingSpec
    from studio.training.trainings import Trainings

    size = read_checkpoint(SHIPPED / f"{model}.safetensors")[1].training_size
    numbers, squares = np.random.default_rng(0), []
    for i in range(10):
        squares.append(data_dir / f"square-{i}.png")
        small = Image.fromarray(numbers.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((size, size)).save(squares[-1])
    trainings = Trainings(data_dir, ModelLibrary([SHIPPED], default=model))
    spec = TrainingSpec("Mia", FinetuneConfig("Mia", images=200_000), base=model)
    return data_dir / "jobs" / trainings.create(spec, squares)


def temporary_files(data_dir: Path) -> list[int]:
    """Sizes of what lies in the folder for temporary files, its locks apart."""
    sizes = []
    for path in (data_dir / "temporary").rglob("*"):
        try:
            if path.is_file() and path.name != "lock":
                sizes.append(path.stat().st_size)
        except OSError:  # gone meanwhile
            pass
    return sizes


def images_learned(training: Path) -> int:
    try:
        return json.loads((training / "progress.json").read_text())["images"]
    except (OSError, ValueError):
        return 0


def watch(server: Server, training: Path, figures: Figures, until: float) -> None:
    began = time.monotonic()
    while time.monotonic() < until:
        if server.up:
            pid, files = server.process.pid, temporary_files(server.data_dir)
            try:
                handles = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                handles = 0
            sample = {
                "minute": (time.monotonic() - began) / 60, "memory": memory(pid, "VmRSS"),
                "open files": handles, "temporary files": len(files),
                "temporary MB": sum(files) / 1e6, "images learned": images_learned(training),
            }  # fmt: skip
            if server.up and handles:
                figures.samples.append(sample)
        time.sleep(SAMPLE_SECONDS)


def kill_now_and_then(server: Server, every: float, until: float) -> None:
    """SIGTERM and SIGKILL in turn; never so late that nobody would see it come back."""
    signals = (signal.SIGTERM, signal.SIGKILL)
    while time.monotonic() + 1.5 * every < until:
        time.sleep(every)
        server.end(signals[(len(server.starts) - 1) % 2])
        server.start()


# -- the report -------------------------------------------------------------------------------


def report(server: Server, figures: Figures, training: Path) -> dict[str, Any]:
    """Everything as JSON-ready values, printed as tables as well."""
    print("\n| visits | " + " | ".join(OUTCOMES) + " | median s | 99 % s |")
    print("|---|" + "---:|" * (len(OUTCOMES) + 2))
    for kind, outcomes in sorted(figures.outcomes.items()):
        took = sorted(figures.seconds[kind]) or [float("nan")]
        counts = " | ".join(str(outcomes[name]) for name in OUTCOMES)
        late = took[int(0.99 * (len(took) - 1))]
        print(f"| {kind} | {counts} | {statistics.median(took):.2f} | {late:.2f} |")
    print("\n| | at first | highest | at last |\n|---|---:|---:|---:|")
    for name in list(figures.samples[0])[1:]:
        values = [sample[name] for sample in figures.samples]
        print(f"| {name} | {values[0]:.0f} | {max(values):.0f} | {values[-1]:.0f} |")
    log = server.log.read_text(errors="replace")
    tracebacks = re.findall(r"Traceback \(most recent call last\):\n(?:\s.*\n)*(\S.*)", log)
    told = {
        "cats": dict(figures.cats),
        "troubles": dict(figures.troubles),
        "tracebacks": dict(Counter(tracebacks)),
        "bytes of log": len(log),
        "temporary files left": len(temporary_files(server.data_dir)),
        "seconds to start": server.starts,
        "seconds to end": dict(server.ends),
        "starts of the training": (training / "log.txt").read_text().count("-- started"),
        "training": json.loads((training / "job.json").read_text())["state"],
    }
    for name, value in told.items():
        print(f"{name}: {value}")
    outcomes = {kind: dict(counts) for kind, counts in figures.outcomes.items()}
    seconds, samples = dict(figures.seconds), figures.samples
    rest = {"visits": outcomes, "seconds": seconds, "samples": samples, "log": log[-20_000:]}
    return {**told, **rest}


def plot(figures: Figures, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(8, 6), layout="constrained")
    names = ("memory", "open files", "temporary files", "images learned")
    for axes, name in zip(figure.subplots(len(names), sharex=True), names, strict=True):
        minutes = [sample["minute"] for sample in figures.samples]
        axes.plot(minutes, [sample[name] for sample in figures.samples], ".", markersize=2)
        axes.set_ylabel(name + (" (MB)" if name == "memory" else ""))
        axes.set_ylim(bottom=0)
    axes.set_xlabel("minute")
    figure.savefig(path, dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kill-minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--model", default="cat-heads-64", help="a name in checkpoints/")
    parser.add_argument("--out", type=Path, help="for NAME.json and NAME.png")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strangers-") as folder:
        training = queue_training(Path(folder), options.model)
        server, figures = Server(Path(folder), options.model), Figures()
        try:
            cats = Cats(server.address, options.model)
            until = time.monotonic() + 60 * options.minutes
            visitors = [Visitor(n, server, cats, figures) for n in range(1, options.clients + 1)]
            threads = [threading.Thread(target=v.live, args=(until,)) for v in visitors]
            watching = (server, training, figures, until)
            threads.append(threading.Thread(target=watch, args=watching))
            for thread in threads:
                thread.start()
            kill_now_and_then(server, 60 * options.kill_minutes, until)
            for thread in threads:
                thread.join()
            server.end(signal.SIGTERM)
            values = report(server, figures, training)
        finally:
            server.process.kill()
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(values, indent=1))
        plot(figures, options.out.with_suffix(".png"))
    bad = figures.troubles or values["tracebacks"] or values["temporary files left"]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
