"""A student beside its teacher: quality, time, and whether a seed still draws the same cat.

    python -m benchmarks.student --teacher cat-heads-256 --student cat-heads-256-quick \
           --data cat-heads-256.zip [--labels cat-heads.labels.csv] [--samples 1000] \
           [--plot student.png] [--sheet seeds.jpg]

Prints a Markdown table, a row as soon as it is known: the teacher as its checkpoint recommends and
in few steps, and the student. "Same cat" is the distance from the teacher's picture of the same
seed, over that from its picture of another seed of the same label: in features, and in pixels of
small pictures. The sheet has a row for each way of drawing and a column for each of eight seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks import yardstick
from diffusion import Denoiser, SampleConfig
from diffusion.checkpoint import find_checkpoint
from diffusion.evaluation.evaluate import draw_samples, thumbnails
from diffusion.evaluation.metrics import precision_recall
from diffusion.fitted import FEWEST
from diffusion.output.pictures import save_grid

TEACHERS_STEPS = (4, 2, 1)
SHEET_SEEDS = 8


def ways(teacher: Denoiser, student: Denoiser) -> Iterator[tuple[str, Denoiser, SampleConfig]]:
    """Each way of drawing and its name; the first is what the others are compared with."""
    usual = teacher.info.sampling
    yield "teacher", teacher, usual
    yield "teacher, fitted", teacher, replace(usual, sampler="fitted", num_steps=FEWEST)
    for steps in TEACHERS_STEPS:
        yield "teacher", teacher, replace(usual, num_steps=steps)
    own = student.info.sampling
    for steps in dict.fromkeys((own.num_steps, 1)):
        yield "student", student, replace(own, num_steps=steps)


def sameness(drawn: Tensor, reference: Tensor, classes: Tensor) -> float:
    """Mean distance of rows [N, D] from the same rows of ``reference``, over that from other rows
    of the same class."""
    same = (drawn - reference).norm(dim=1).mean()
    groups = [reference[classes == c] for c in classes.unique() if (classes == c).sum() > 1]
    other = torch.cat([group - group.roll(1, dims=0) for group in groups]).norm(dim=1).mean()
    return float(same / other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--teacher", default="cat-heads-256")
    parser.add_argument("--student", default="cat-heads-256-quick")
    parser.add_argument("--sheet", metavar="FILE.jpg")
    yardstick.add_options(parser, samples=1000)
    options = parser.parse_args()
    teacher = Denoiser.load_for_sampling(find_checkpoint(options.teacher))
    student = Denoiser.load_for_sampling(find_checkpoint(options.student))
    measure = yardstick.Yardstick(
        options.data, teacher.info, samples=options.samples, labels_csv=options.labels
    )
    print("| | evaluations | s/cat | FD | KID×1000 | recall | same cat: features, pixels |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    curves: dict[str, list[tuple[int, float]]] = {}
    sheet, reference = [], None
    for name, denoiser, config in ways(teacher, student):
        start = time.perf_counter()
        drawn = draw_samples(denoiser, config, measure.classes)
        took = (time.perf_counter() - start) / len(drawn)
        features, small = measure.features(drawn), thumbnails(drawn)
        reference = reference or (features, small)
        fd, kid = measure.distances(features)
        recall = precision_recall(measure.real, features).recall
        same = [
            sameness(own, theirs, measure.classes)
            for own, theirs in zip((features, small), reference, strict=True)
        ]
        print(
            f"| {name} | {config.num_steps} | {took:.3f} | {fd:.1f} "
            f"| {yardstick.with_spread(kid)} | {recall:.2f} | {same[0]:.2f}, {same[1]:.2f} |",
            flush=True,
        )
        curves.setdefault(name, []).append((config.num_steps, kid.value))
        sheet.append(drawn[:SHEET_SEEDS])
    if options.plot:
        yardstick.save_plot(curves, options.plot, xlabel="evaluations", ylabel="KID × 1000")
    if options.sheet:
        save_grid(torch.cat(sheet), options.sheet, columns=SHEET_SEEDS)


if __name__ == "__main__":
    main()
