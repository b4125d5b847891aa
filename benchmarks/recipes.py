"""The recipe that this project began with beside ours: same data, same machine, same minutes.

    python benchmarks/recipes.py --data cat-heads-128.zip --minutes 60 [--samples 1000] \
           [--out runs/recipes]

Trains the preset ddpm-2020 (batch 5) and cat-64-lite for so many minutes one after the other, and
cat-64-lite once more for as many images as ddpm-2020 saw, all through the command line and without
labels. Prints a Markdown table of what ``evaluate`` says of each. Run again, it goes on where it
was stopped. Both draw with 12 steps of dpmpp_2m and no guide: the original's own thousand
would take hours, so ddpm-2020 is measured with 36 too, where there is little left to gain.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ORIGINAL, OURS = "ddpm-2020", "cat-64-lite"


def diffusion(*arguments: str) -> None:
    """``python -m diffusion`` with these arguments; its table would only be in the way here."""
    command = [sys.executable, "-m", "diffusion", *arguments]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def train(preset: str, data: str, out: Path, *budget: str) -> Path:
    diffusion("train", "--preset", preset, "--data", data, "--out", str(out), *budget)
    return out / "model.safetensors"


def evaluate(model: Path, data: str, samples: int, steps: int) -> dict:
    """The report, kept beside the model."""
    out = model.with_name(f"report-{steps}.json")
    options = ["--samples", str(samples), "--steps", str(steps), "--out", str(out)]
    diffusion("evaluate", "--checkpoint", str(model), "--data", data, *options)
    return json.loads(out.read_text())


def last_metrics(model: Path) -> dict:
    return json.loads(model.with_name("metrics.jsonl").read_text().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder or zip of pictures")
    parser.add_argument("--minutes", type=float, required=True, help="of training, for each")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--out", default="runs/recipes", help="folder of the three runs")
    options = parser.parse_args()
    out, data = Path(options.out).absolute(), str(Path(options.data).absolute())
    minutes = ["--minutes", str(options.minutes)]
    original = train(ORIGINAL, data, out / "original", *minutes)
    ours = train(OURS, data, out / "ours", *minutes)
    images = last_metrics(original)["images_seen"]
    ours_equal = train(OURS, data, out / "ours-equal-images", "--images", str(images))

    print("| recipe | images | minutes | held-out loss | steps | FD | KID×1000 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, model, steps in (
        (f"{ORIGINAL}, batch 5", original, 12),
        (f"{ORIGINAL}, batch 5", original, 36),
        (f"{OURS}, equal time", ours, 12),
        (f"{OURS}, equal images", ours_equal, 12),
    ):
        run, report = last_metrics(model), evaluate(model, data, options.samples, steps)
        kid = f"{report['kid']:.1f} ± {report['kid_spread']:.1f}"
        print(
            f"| {name} | {run['images_seen']:,} | {run['minutes']:.1f} "
            f"| {run['heldout_loss']:.4f} | {steps} | {report['fd']:.1f} | {kid} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
