"""Does a visitor wait longer while the owner's training runs on the same machine?

    python -m benchmarks.visitor_while_training --pictures photos.zip [--base cat-heads-128]

starts ``python app.py``, asks for one cat after the other at default settings, alternately with and
without a fine-tuning that runs as the Admin tab would start it, and prints the median seconds of
both and their ratio as a Markdown table.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.clients import PATIENCE, ask, first_cat, free_port, start_server
from studio.training.process import start_niced
from studio.training.trainings import COMMAND

CATS = 15  # asked for in each turn
TURNS = 2  # of each kind


def seconds(http: httpx.Client, base: str) -> list[float]:
    """Of requests one after the other."""
    taken = []
    for seed in range(CATS):
        started = time.monotonic()
        ask(http, seed, base)
        taken.append(time.monotonic() - started)
    return taken


def start_training(options: argparse.Namespace, out: Path) -> subprocess.Popen:
    """A fine-tuning that has begun to train."""
    arguments = [*COMMAND, "--base", options.base, "--data", options.pictures, "--label", "new"]
    arguments += ["--out", str(out), "--length", "thorough"]
    process = start_niced(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "progress.json").exists() or "training" not in (
        (out / "progress.json").read_text()
    ):
        if process.poll() is not None:
            raise RuntimeError("The training did not start.")
        time.sleep(0.5)
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", required=True, help="folder or zip of at least 8 pictures")
    parser.add_argument("--base", default="cat-heads-128")
    options = parser.parse_args()
    port = free_port()
    alone, beside = [], []
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(port, options.base, folder)
        try:
            address = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=address, timeout=PATIENCE) as http:
                first_cat(http, server, options.base)
                for turn in range(TURNS):
                    alone += seconds(http, options.base)
                    training = start_training(options, Path(folder, str(turn)))
                    try:
                        beside += seconds(http, options.base)
                    finally:
                        training.send_signal(signal.SIGKILL)
                        training.wait()
        finally:
            server.terminate()
            server.wait(60)
    medians = statistics.median(alone), statistics.median(beside)
    print("| | median s | worst s |\n|---|---:|---:|")
    print(f"| nobody trains | {medians[0]:.2f} | {max(alone):.2f} |")
    print(f"| beside a training | {medians[1]:.2f} | {max(beside):.2f} |")
    print(f"\nRatio of the medians: {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    main()
