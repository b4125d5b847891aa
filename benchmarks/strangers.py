"""Strangers, honest ones and others, for an hour: does the page stand up to them?

    python -m benchmarks.strangers [--minutes 60] [--kill-minutes 10] [--clients 10]
           [--model cat-heads-64] [--out strangers]

starts ``python app.py`` on 127.0.0.1 with a training in the background, and sends it visitors, each
with an address of its own. They draw cats, explore, dream, ask for much and leave, upload rubbish,
try passwords, send what is no JSON or no value, and look for doors (``visitors``). Every so often
the server is ended, by SIGTERM and by SIGKILL in turn, and started again. Each cat and each frame
is compared with the same one drawn before all that (``known``). Prints Markdown tables; ``--out``
gets them as JSON, and a plot of memory, files and latency where matplotlib is installed
(``figures``). Exit status 1 for a wrong cat, an answer of 5xx (but 503, "please try again"), a
traceback in the server's log, or a temporary file that is left at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.clients import memory
from benchmarks.figures import Figures, as_json, plot, print_tables
from benchmarks.known import Known
from benchmarks.server import Server
from benchmarks.visitors import Visitor
from diffusion.checkpoint import SHIPPED, read_checkpoint
from diffusion.config import FinetuneConfig

SAMPLE_SECONDS = 2.0  # between two looks at memory and files
SIGNALS = (signal.SIGTERM, signal.SIGKILL)  # in turn


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
    while time.monotonic() < until:
        if server.up:
            pid, files = server.process.pid, temporary_files(server.data_dir)
            try:
                handles = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                handles = 0
            sample = {
                "minute": figures.minute, "memory": memory(pid, "VmRSS"),
                "open files": handles, "temporary files": len(files),
                "temporary MB": sum(files) / 1e6, "images learned": images_learned(training),
            }  # fmt: skip
            if server.up and handles:
                figures.samples.append(sample)
        time.sleep(SAMPLE_SECONDS)


def kill_now_and_then(server: Server, figures: Figures, every: float, until: float) -> None:
    """SIGTERM and SIGKILL in turn; never so late that nobody would see it come back."""
    while time.monotonic() + 1.5 * every < until:
        time.sleep(every)
        number = SIGNALS[len(figures.kills) % 2]
        print(f"minute {figures.minute:.1f}: {number.name}", file=sys.stderr)
        figures.kills.append((figures.minute, number.name))
        server.end(number)
        server.start()


def found(server: Server, training: Path) -> dict[str, Any]:
    """What the server leaves behind: its log, its temporary files and its training."""
    log = server.log.read_text(errors="replace")
    tracebacks = re.findall(r"Traceback \(most recent call last\):\n(?:\s.*\n)*(\S.*)", log)
    return {
        "tracebacks": dict(Counter(tracebacks)),
        "bytes of log": len(log),
        "temporary files left": len(temporary_files(server.data_dir)),
        "seconds to start": server.starts,
        "seconds to end": dict(server.ends),
        "starts of the training": (training / "log.txt").read_text().count("-- started"),
        "training": json.loads((training / "job.json").read_text())["state"],
    }


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
        server = Server(Path(folder), options.model)
        try:
            known, figures = Known(server.address, options.model), Figures()
            print("It is known how cats look. The visitors come.", file=sys.stderr)
            until = time.monotonic() + 60 * options.minutes
            visitors = [Visitor(n, server, known, figures) for n in range(1, options.clients + 1)]
            threads = [threading.Thread(target=v.live, args=(until,)) for v in visitors]
            watching = (server, training, figures, until)
            threads.append(threading.Thread(target=watch, args=watching))
            for thread in threads:
                thread.start()
            kill_now_and_then(server, figures, 60 * options.kill_minutes, until)
            for thread in threads:
                thread.join()
            print("The visitors have left.", file=sys.stderr)
            server.end(signal.SIGTERM)
            left = found(server, training)
            log = server.log.read_text(errors="replace")[-20_000:]
        finally:
            server.process.kill()
    print_tables(figures)
    for name, value in {"troubles": dict(figures.troubles), **left}.items():
        print(f"{name}: {value}")
    if options.out:
        values = {**as_json(figures), **left, "log": log}
        options.out.with_suffix(".json").write_text(json.dumps(values, indent=1))
        plot(values, options.out.with_suffix(".png"))
    return 1 if figures.troubles or left["tracebacks"] or left["temporary files left"] else 0


if __name__ == "__main__":
    sys.exit(main())
