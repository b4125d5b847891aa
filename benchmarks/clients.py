"""Many visitors at once: does each get its own cat, how soon, and what does the page itself cost?

    python -m benchmarks.clients [--clients 50] [--model cat-heads-128]

starts ``python app.py`` on a free port, waits for its first cat, asks for a few cats one after the
other, then lets all clients ask ``/generate`` at the same moment, each for a seed of its own. Every
picture is compared with the same seed drawn alone in this process; a "please try again" counts as
busy, anything else as a failure (exit status 1). Prints a Markdown table:

* median, worst: seconds from a client's request to the bytes of its picture;
* memory: resident memory of the server after the rush, and its peak;
* first cat: from starting the process to the first picture, imports and loading included;
* sampler: time that the sampler takes for one cat at default settings, nobody else asking;
* page: what is added to that, the whole request minus the sampler.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from diffusion import SampleConfig

ROOT = Path(__file__).resolve().parent.parent

FIRST_SEED = 1000
ONE_BY_ONE = 7  # cats that are asked for in turn
PATIENCE = 600  # seconds


class Busy(Exception):
    """The page asked to try again later."""


def not_busy(answer: httpx.Response) -> httpx.Response:
    """The answer. Raises Busy where it asks to try again later."""
    if answer.status_code in (429, 503):
        raise Busy(answer.text)
    return answer


def updates(http: httpx.Client, name: str, data: list[Any]) -> Iterator[Any]:
    """What an endpoint sends, one value after the other, until it is done or nobody asks on."""
    answer = not_busy(http.post(f"/gradio_api/call/{name}", json={"data": data}))
    event, kind = answer.raise_for_status().json()["event_id"], ""
    with http.stream("GET", f"/gradio_api/call/{name}/{event}") as lines:
        for line in lines.raise_for_status().iter_lines():
            field, _, text = line.partition(": ")
            kind = text if field == "event" else kind
            if field != "data" or kind not in ("generating", "complete", "error"):
                continue
            values = json.loads(text)
            if kind == "error":
                sentence = str(values.get("error") if isinstance(values, dict) else values)
                raise Busy(sentence) if "try again" in sentence else RuntimeError(sentence)
            yield values[0]


def picture_of(http: httpx.Client, name: str, data: list[Any]) -> tuple[np.ndarray, float]:
    """The picture [H, W, 3] that an endpoint draws, and its sampler's seconds."""
    *_, last = updates(http, name, data)
    png = http.get(last["pictures"][0]["url"]).raise_for_status()
    return pixels_of(png.content), last["seconds"]


def pixels_of(data: bytes) -> np.ndarray:
    """A picture's file as uint8 [H, W, 3]."""
    return np.array(Image.open(BytesIO(data)).convert("RGB"))


def ask(http: httpx.Client, seed: int, model: str) -> tuple[np.ndarray, float]:
    """The picture [H, W, 3] of one request to ``/generate``, and its sampler's seconds."""
    defaults = SampleConfig()
    settings = [defaults.num_steps, defaults.sampler, defaults.guidance]
    return picture_of(http, "generate", [seed, 1, "", *settings, model])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(port: int, model: str, data_dir: str) -> subprocess.Popen:
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", data_dir]
    command += ["--checkpoint", model] if model else []
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "CAT_MAX_QUEUE": "64"}, stdout=subprocess.DEVNULL
    )


def first_cat(http: httpx.Client, server: subprocess.Popen, model: str) -> None:
    """Return when the server has answered with a picture; raise if it ends before."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"The server ended with status {server.returncode}.")
        try:
            ask(http, FIRST_SEED, model)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("The server did not answer.")


def memory(pid: int, field: str) -> float:
    """A field of /proc/PID/status, in MB; NaN where there is none."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float("nan")


def visitor(address: str, number: int) -> httpx.Client:
    """Somebody with an address of their own: of one address, only so many may wait."""
    headers = {"x-forwarded-for": f"192.0.2.{number % 256}"}
    return httpx.Client(base_url=address, headers=headers, timeout=PATIENCE)


def rush(address: str, seeds: range, model: str) -> tuple[dict[int, np.ndarray | str], list[float]]:
    """All clients at once: a picture, "busy" or what went wrong for each seed; seconds of each."""
    results: dict[int, np.ndarray | str] = {}
    seconds: list[float] = []
    together = threading.Barrier(len(seeds))

    def client(seed: int) -> None:
        with visitor(address, seed) as http:
            together.wait()
            start = time.monotonic()
            try:
                results[seed], _ = ask(http, seed, model)
                seconds.append(time.monotonic() - start)
            except Busy:
                results[seed] = "busy"
            except Exception as error:
                results[seed] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=client, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, seconds


def draw_alone(seeds: range, model: str) -> dict[int, np.ndarray]:
    """Each seed drawn by itself, in this process."""
    from diffusion.checkpoint import SHIPPED
    from studio.drawing.library import ModelLibrary
    from studio.drawing.recipe import Recipe
    from studio.drawing.worker import Studio

    studio = Studio(ModelLibrary([SHIPPED], default=model))
    info = studio.library.get(model).info

    def recipe(seed: int) -> Recipe:
        return Recipe(seed=seed, model=model, any_coat=bool(info.label_counts))  # as the page asks

    drawn = {seed: studio.draw([recipe(seed)]).pictures[0] for seed in seeds}
    return {seed: picture.permute(1, 2, 0).numpy() for seed, picture in drawn.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--model", default="", help="a name in checkpoints/ (default: the default)")
    options = parser.parse_args()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    seeds = range(FIRST_SEED, FIRST_SEED + options.clients)

    with tempfile.TemporaryDirectory() as data_dir:
        began = time.monotonic()
        server = start_server(port, options.model, data_dir)
        try:
            with httpx.Client(base_url=address, timeout=PATIENCE) as http:
                first_cat(http, server, options.model)
                until_first = time.monotonic() - began
                requests, samplers = [], []
                for seed in range(ONE_BY_ONE):
                    start = time.monotonic()
                    _, sampler = ask(http, seed, options.model)
                    requests.append(time.monotonic() - start)
                    samplers.append(sampler)
            start = time.monotonic()
            results, seconds = rush(address, seeds, options.model)
            took = time.monotonic() - start
            resident, peak = memory(server.pid, "VmRSS"), memory(server.pid, "VmHWM")
        finally:
            server.terminate()
            server.wait(30)

    served = {seed: r for seed, r in results.items() if isinstance(r, np.ndarray)}
    busy = sum(isinstance(r, str) and r == "busy" for r in results.values())
    alone = draw_alone(seeds, options.model)
    largest, wrong = 0, []
    for seed, picture in served.items():
        apart = {other: np.abs(picture.astype(int) - p) for other, p in alone.items()}
        largest = max(largest, int(apart[seed].max()))
        if min(apart, key=lambda other: apart[other].mean()) != seed or apart[seed].mean() > 1:
            wrong.append(seed)
    failed = {s: r for s, r in results.items() if isinstance(r, str) and r != "busy"}

    page = statistics.median(r - s for r, s in zip(requests, samplers, strict=True))
    table = {
        "clients": options.clients,
        "served": len(served),
        "busy": busy,
        "median s": f"{statistics.median(seconds):.2f}" if seconds else "-",
        "worst s": f"{max(seconds):.2f}" if seconds else "-",
        "pictures/s": f"{len(served) / took:.2f}",
        "memory (peak) MB": f"{resident:.0f} ({peak:.0f})",
        "first cat s": f"{until_first:.1f}",
        "sampler s": f"{statistics.median(samplers):.2f}",
        "page s": f"{page:.2f}",
    }
    print("| " + " | ".join(table) + " |")
    print("|" + "---:|" * len(table))
    print("| " + " | ".join(map(str, table.values())) + " |")
    print(
        f"\nOwn cat: {len(served) - len(wrong)} of {len(served)}; "
        f"largest difference from the seed drawn alone: {largest}/255."
    )
    for seed in wrong:
        print(f"Seed {seed} got another picture.")
    for seed, error in failed.items():
        print(f"Seed {seed}: {error}")
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
