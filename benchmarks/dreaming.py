"""Dreams without an end: does the memory stay, and does somebody else's cat still come soon?

    python -m benchmarks.dreaming [--minutes 10] [--dreams 4] [--model cat-heads-256]

starts ``python app.py``, lets the dreams run, each of a visitor of its own, and asks for a cat now
and then; when the dreams have ended, for a few cats one after the other. Prints a Markdown table:
the median and the worst seconds of a cat alone and beside the dreams, frames a second of all dreams
together, and the server's resident memory: one minute after the dreams began, at the end, and at
most.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.clients import ask, memory, updates, visitor
from benchmarks.server import Server

ALONE = 7  # cats asked for after the dreams: a server that has just begun has other work
PAUSE_SECONDS = 5.0  # between two cats beside the dreams
SETTLED_MINUTES = 1.0  # after which the memory is taken as that of a dreaming server


class Dream(threading.Thread):
    """Reads one endless stream until told to leave; ``frames`` counts."""

    def __init__(self, server: Server, number: int, until: float) -> None:
        super().__init__()
        self.server, self.number, self.until = server, number, until
        self.frames, self.trouble = 0, ""

    def run(self) -> None:
        values = [self.number, 0.3, "", self.server.model, None]
        try:
            with visitor(self.server.address, self.number) as http:
                for _ in updates(http, "dream", values):
                    self.frames += 1
                    if time.monotonic() > self.until:
                        return
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"


def seconds_of_a_cat(http: httpx.Client, seed: int, model: str) -> float:
    began = time.monotonic()
    ask(http, seed, model)
    return time.monotonic() - began


@dataclass
class Measured:
    """Seconds of each cat, minute and MB of each look at the memory, and the dreams."""

    alone: list[float]
    beside: list[float]
    resident: list[tuple[float, float]]
    dreams: list[Dream]


def measure(server: Server, *, minutes: float, dreams: int) -> Measured:
    with visitor(server.address, 100) as http:
        seconds_of_a_cat(http, 0, server.model)  # loads the model
        began = time.monotonic()
        until = began + 60 * minutes
        found = Measured([], [], [], [Dream(server, n, until) for n in range(1, dreams + 1)])
        for dream in found.dreams:
            dream.start()
        while time.monotonic() < until:
            found.beside.append(seconds_of_a_cat(http, len(found.beside), server.model))
            minute = (time.monotonic() - began) / 60
            found.resident.append((minute, memory(server.process.pid, "VmRSS")))
            time.sleep(PAUSE_SECONDS)
        for dream in found.dreams:
            dream.join()
        found.alone += [seconds_of_a_cat(http, seed, server.model) for seed in range(ALONE)]
    return found


def report(found: Measured, minutes: float) -> None:
    usual, slow = statistics.median(found.alone), statistics.median(found.beside)
    frames = [dream.frames for dream in found.dreams]
    megabytes = [mb for _, mb in found.resident]
    settled = next((mb for m, mb in found.resident if m > SETTLED_MINUTES), megabytes[0])
    row = [
        f"{usual:.2f} ({max(found.alone):.2f})",
        f"{slow:.2f} ({max(found.beside):.2f})",
        f"{slow / usual:.1f}",
        f"{sum(frames) / (60 * minutes):.1f}",
        f"{settled:.0f} to {megabytes[-1]:.0f} ({max(megabytes):.0f})",
    ]
    print("| cat alone s (worst) | beside s (worst) | times | frames/s | memory MB (most) |")
    print("|---:|---:|---:|---:|---:|\n| " + " | ".join(row) + " |\n")
    print(f"Cats beside the dreams: {len(found.beside)}; frames of each dream: {frames}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--dreams", type=int, default=4)
    parser.add_argument("--model", default="cat-heads-256", help="a name in checkpoints/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreaming-") as folder:
        server = Server(Path(folder), options.model)
        try:
            found = measure(server, minutes=options.minutes, dreams=options.dreams)
            server.end(signal.SIGTERM)
        finally:
            server.process.kill()
    report(found, options.minutes)
    troubles = [dream.trouble for dream in found.dreams if dream.trouble]
    print("\n".join(troubles))
    return 1 if troubles else 0


if __name__ == "__main__":
    raise SystemExit(main())
