"""What fine-tuning on a folder of one cat gives, and what it costs the others.

    python -m benchmarks.finetuning --pictures siamese-30.zip --like siamese \\
           --data cat-heads-128.zip --labels cat-heads.labels.csv [--length balanced]

runs ``python -m diffusion finetune`` on ``--pictures`` and compares 200 samples with the heads of
``--data`` that are labelled ``--like``, none of which were in those pictures. Prints a Markdown
table:

* KID x1000, FD: to those heads, in EfficientNet-Lite0 features (FD is biased at 200 samples, alike
  in all rows); KID to the pictures that it was tuned on as well, which says more where the label of
  those heads is seldom right, as "calico" is, and means something only while nothing is a copy;
* nearest: distance from a sample to the nearest picture it was tuned on, the closest sample and the
  median, in features and in pixels (root mean square of 255, 32x32, mirrored too); the row of real
  heads says what is usual between two pictures of such cats;
* other coats: share of the base's labels that a probe, fitted on the heads, reads off 25 samples of
  each, before and after.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.yardstick import Yardstick, with_spread
from diffusion import Denoiser
from diffusion.checkpoint import WEIGHTS_NAME, find_checkpoint
from diffusion.config import LENGTHS
from diffusion.data.dataset import load_images
from diffusion.evaluation.evaluate import Probe, batches_of, draw_samples, fit_probe, thumbnails
from diffusion.evaluation.metrics import kernel_distance, nearest
from diffusion.output.pictures import save_grid

SAMPLES = 200
PER_COAT = 25
LABEL = "the new cat"
COLUMNS = 8


def draw(denoiser: Denoiser, label: int, count: int = SAMPLES) -> Tensor:
    """``count`` pictures of a class, seeds from 0; -1 is none."""
    return draw_samples(denoiser, denoiser.info.sampling, torch.full((count,), label))


def tune(options: argparse.Namespace, out: Path) -> float:
    """Run the command; returns its minutes."""
    command = [sys.executable, "-m", "diffusion", "finetune", "--base", options.base]
    command += ["--data", options.pictures, "--label", LABEL, "--out", str(out)]
    command += ["--length", options.length]
    started = time.monotonic()
    subprocess.run(command, check=True)
    return (time.monotonic() - started) / 60


def nearest_to(measure: Yardstick, pictures: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each picture to the nearest of ``own``, mirrored or not: features, pixels."""
    both = torch.cat([own, own.flip(3)])
    by_features = nearest(measure.features(pictures), measure.features(both)).distance
    return by_features, nearest(thumbnails(pictures), thumbnails(both)).distance


def coats(measure: Yardstick, denoiser: Denoiser, probe: Probe, known: int) -> float:
    """Share of the base's labels that the probe reads off samples."""
    right = [
        probe(measure.features(draw(denoiser, label, PER_COAT))) == label for label in range(known)
    ]
    return float(torch.cat(right).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", required=True, help="folder or zip of the new cat")
    parser.add_argument("--like", required=True, help="label of the heads to compare with")
    parser.add_argument("--data", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--base", default="cat-heads-128")
    parser.add_argument("--length", default="balanced", choices=list(LENGTHS))
    parser.add_argument("--grid", help="write samples before and after here")
    parser.add_argument("--pairs", help="write the samples nearest to those pictures here")
    options = parser.parse_args()

    base = Denoiser.load_for_sampling(find_checkpoint(options.base))
    size, known = base.info.picture_size, base.info.labels
    heads = Yardstick(options.data, base.info, samples=SAMPLES, labels_csv=options.labels)
    classes = heads.images.classes
    alike = (classes == known.index(options.like)).nonzero().flatten()
    like = torch.cat(list(batches_of(heads.images, alike)))
    own = load_images(options.pictures, image_size=size, photos=False).pixels
    with tempfile.TemporaryDirectory() as folder:
        minutes = tune(options, Path(folder))
        tuned = Denoiser.load_for_sampling(Path(folder, WEIGHTS_NAME))

    labelled = classes >= 0
    probe = fit_probe(heads.real[labelled], classes[labelled])
    drawn = {
        "base, no label": draw(base, -1),
        f"base, {options.like}": draw(base, known.index(options.like)),
        "fine-tuned, new label": draw(tuned, len(known)),
    }
    usual = nearest_to(heads, like, own)
    print(f"\n{minutes:.1f} minutes; {tuned.info.history[-1]} are its weights.\n")
    print(
        "| | KID×1000 | to its pictures | FD | nearest features (closest) | pixels (closest) ",
        end="",
    )
    print("| other coats |\n|---|---:|---:|---:|---:|---:|---:|")
    to_like, pictured = heads.against(heads.real[alike]), heads.features(own)
    right = {drawer: coats(heads, drawer, probe, len(known)) for drawer in (base, tuned)}
    for name, pictures in drawn.items():
        ours = heads.features(pictures)
        fd, kid = to_like.distances(ours)
        row = [with_spread(kid), with_spread(kernel_distance(ours, pictured)), f"{fd:.0f}"]
        row += [f"{d.median():.1f} ({d.min():.1f})" for d in nearest_to(heads, pictures, own)]
        row += [f"{right[tuned if name.startswith('fine') else base]:.0%}"]
        print(f"| {name} | " + " | ".join(row) + " |")
    row = [f"{d.median():.1f} ({d.min():.1f})" for d in usual]
    row = [with_spread(kernel_distance(to_like.real, pictured)), "", *row, ""]
    print(f"| {len(like)} real heads, {options.like} | | " + " | ".join(row) + " |")

    before, after = drawn["base, no label"], drawn["fine-tuned, new label"]
    if options.grid:
        shown = torch.cat([before[: 2 * COLUMNS], after[: 2 * COLUMNS]])
        save_grid(shown, options.grid, columns=COLUMNS)
    if options.pairs:
        both = torch.cat([own, own.flip(3)])
        found = nearest(heads.features(after), heads.features(both))
        closest = found.distance.argsort()[:COLUMNS]
        pairs = torch.cat([after[closest], both[found.index[closest]]])
        save_grid(pairs, options.pairs, columns=COLUMNS)


if __name__ == "__main__":
    main()
