"""The recipe that this project began with beside ours: same data, same machine, same minutes.

    python -m benchmarks.recipes --data cat-heads-128.zip --minutes 60 [--samples 1000] \
           [--out runs/recipes]

Trains the preset ddpm-2020 (batch 5) and cat-64-lite for so many minutes one after the other;
cat-64-lite once more for as many images as ddpm-2020 saw; and once more for the minutes with AdamW
for every weight. All through the command line and without labels. Prints a Markdown table of their
distances to all pictures. Run again, it goes on where it was stopped. All draw without a guide, 12
steps of dpmpp_2m; ddpm-2020 is measured with 36 too, where there is little left to gain: its own
thousand would take hours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import yardstick
from diffusion import PRESETS, Denoiser, SampleConfig
from diffusion.checkpoint import CheckpointInfo
from diffusion.evaluation.evaluate import draw_samples

ROOT = Path(__file__).resolve().parent.parent

ORIGINAL, OURS = "ddpm-2020", "cat-64-lite"


def train(preset: str, data: str, out: Path, *budget: str) -> Path:
    """The weights that ``python -m diffusion train`` leaves."""
    command = [sys.executable, "-m", "diffusion", "train", "--preset", preset]
    command += ["--data", data, "--out", str(out), *budget]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return out / "model.safetensors"


def last_metrics(model: Path) -> dict:
    return json.loads(model.with_name("metrics.jsonl").read_text().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, required=True, help="of training, for each")
    parser.add_argument("--out", default="runs/recipes", help="folder of the runs")
    parser.add_argument("--data", required=True, help="folder or zip of pictures")
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    info = CheckpointInfo(PRESETS[OURS].model)
    measure = yardstick.Yardstick(options.data, info, samples=options.samples)
    out, data = Path(options.out).absolute(), str(Path(options.data).absolute())
    minutes = ["--minutes", str(options.minutes)]
    original = train(ORIGINAL, data, out / "original", *minutes)
    ours = train(OURS, data, out / "ours", *minutes)
    images = str(last_metrics(original)["images_seen"])
    as_many = train(OURS, data, out / "ours-equal-images", "--images", images)
    adamw = train(OURS, data, out / "ours-adamw", *minutes, "--optimizer", "adamw")

    print("| recipe | images | minutes | held-out loss | steps | FD | KID×1000 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, model, steps in (
        (f"{ORIGINAL}, batch 5", original, 12),
        (f"{ORIGINAL}, batch 5", original, 36),
        (f"{OURS}, equal images", as_many, 12),
        (f"{OURS}, equal time", ours, 12),
        (f"{OURS}, equal time, AdamW for all", adamw, 12),
    ):
        run, config = last_metrics(model), SampleConfig(num_steps=steps, guidance=1.0)
        drawn = draw_samples(Denoiser.load_for_sampling(model), config, measure.classes)
        fd, kid = measure.distances(measure.features(drawn))
        print(
            f"| {name} | {run['images_seen']:,} | {run['minutes']:.1f} "
            f"| {run['heldout_loss']:.4f} | {steps} | {fd:.1f} | {yardstick.with_spread(kid)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
