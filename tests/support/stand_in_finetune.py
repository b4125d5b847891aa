"""What ``python -m diffusion finetune`` does to its folder, without learning anything.

It obeys the same contract in a few milliseconds, and its label says how it shall behave.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

QUICK = 3_000  # images asked for, at which it is done after 64; else it goes on until it is told
BATCH = 8


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("base", "data", "out", "label", "layers", "keep", "lr", "batch-size"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--images", type=int)
    parser.add_argument("--keep-both", action="store_true")
    parser.add_argument("--estimate", action="store_true")
    args = parser.parse_args()
    if args.estimate:
        return estimate()
    if "dies" in args.label:
        os.kill(os.getpid(), signal.SIGKILL)
    run, stopping = Run(args), []
    if "deaf" in args.label:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    print("pictures:", len(list(Path(args.data).iterdir())), file=sys.stderr, flush=True)
    if "error" in args.label:
        print("Error: The pictures are no cats.", file=sys.stderr)
        return 1
    if "traceback" in args.label:
        raise RuntimeError("a bug")
    if "say" in args.label:
        run.report("failed", message="The loss stopped being a number.")
        return 1
    while run.images < (64 if args.images <= QUICK else 10_000_000):
        if stopping:
            run.save(args)
            run.report("stopped")
            return 0
        run.step(args)
    run.report("finished", message="The whole budget is spent.")
    return 0


def estimate() -> int:
    if os.environ.get("STAND_IN_ESTIMATE") == "slow":
        time.sleep(60)
    if os.environ.get("STAND_IN_ESTIMATE") == "broken":
        return 1
    print("warming up")
    print(json.dumps({"images_per_second": 40.0, "quick": 1.5, "balanced": 4, "thorough": 10}))
    return 0


class Run:
    """Goes on from what it saved."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.out = Path(args.out)
        try:
            self.images = int((self.out / "state.txt").read_text())
        except OSError:
            self.images = 0
        self.report("preparing")

    def step(self, args: argparse.Namespace) -> None:
        self.images += BATCH
        time.sleep(0.005)
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"images": self.images, "loss": 1 / self.images}) + "\n")
        if self.images % 32 == 0 and "bare" not in args.label:
            self.save(args)
        self.report("training")

    def save(self, args: argparse.Namespace) -> None:
        if "bare" in args.label:
            return
        mark = f"{self.out.name} {self.images}"  # no two trainings learn the same
        model = b"not a model" if "broken" in args.label else marked(Path(args.base), mark)
        for name in ("model.safetensors", f"steps/{self.images:09d}.safetensors"):
            write(self.out / name, model)
        for name in ("base", f"{self.images:09d}"):
            write(self.out / "samples" / f"{name}.png", b"a grid")
        write(self.out / "state.txt", str(self.images).encode())
        write(self.out / "state.safetensors", b"what it goes on from")

    def report(self, state: str, message: str = "On its way.") -> None:
        values = {
            "state": state,
            "message": message,
            "images": self.images,
            "fraction": 0.5,
            "best_images": self.images,
        }
        values["updated"] = time.time()
        write(self.out / "progress.json", json.dumps(values).encode())


def marked(model: Path, mark: str) -> bytes:
    """A safetensors file of the same weights, but with a mark in its header."""
    data = model.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"]["mark"] = mark
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def write(path: Path, content: bytes) -> None:
    """Atomically."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


if __name__ == "__main__":
    raise SystemExit(main())
