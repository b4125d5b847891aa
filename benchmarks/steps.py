"""What do more steps buy, and what does guidance? Quality and time of every sampler at many numbers
of evaluations (of the model itself; its guide makes fewer), and of the default at more or less
guidance.

    python -m benchmarks.steps --checkpoint cat-heads-128 --data cat-heads-128.zip \
           --labels cat-heads.labels.csv [--samples 1000] [--plot steps.png]

Prints a Markdown table, a row as soon as it is known. A thousand ancestral steps take so long that
a tenth of the samples must do there; a Fréchet distance of fewer samples is larger, so that every
row has that of a tenth of its samples too. (DDIM is Euler's method here, and has no rows.)
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from benchmarks import yardstick
from diffusion import Denoiser, SampleConfig
from diffusion.checkpoint import find_checkpoint
from diffusion.evaluation.evaluate import draw_samples
from diffusion.evaluation.metrics import frechet_distance
from diffusion.fitted import FEWEST, MOST

EVALUATIONS = (1, 2, 4, 6, 8, 12, 18, 36, 100)
GUIDANCE = (1.0, 1.4, 1.7, 2.0, 2.5)
FEW = 10  # one sample in so many is drawn with a thousand steps


def plan(usual: SampleConfig) -> list[SampleConfig]:
    """Each sampler at each number of evaluations; Heun takes two a step, but one in the last. All
    else is as the model has it."""
    heun = sorted({(n + 1) // 2 for n in EVALUATIONS})
    few = range(FEWEST, MOST + 1)
    steps = {
        "dpmpp_2m": EVALUATIONS, "fitted": few, "euler": EVALUATIONS, "heun": heun, "ddpm": [1000],
    }  # fmt: skip
    guided = [replace(usual, guidance=w) for w in GUIDANCE if w != usual.guidance]
    counts = [(sampler, n) for sampler, numbers in steps.items() for n in numbers]
    return guided + [replace(usual, sampler=s, num_steps=n) for s, n in counts]


def evaluations(config: SampleConfig) -> int:
    return 2 * config.num_steps - 1 if config.sampler == "heun" else config.num_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", default="cat-heads-128")
    yardstick.add_options(parser, samples=1000)
    options = parser.parse_args()
    denoiser = Denoiser.load_for_sampling(find_checkpoint(options.checkpoint))
    measure = yardstick.Yardstick(
        options.data, denoiser.info, samples=options.samples, labels_csv=options.labels
    )
    classes = measure.classes
    print(
        f"| sampler | guidance | evaluations | samples | FD | 1 in {FEW} | KID×1000 | s/picture |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    curves: dict[str, list[tuple[int, float]]] = {}
    usual = denoiser.info.sampling
    for config in plan(usual):
        wanted = classes[::FEW] if config.sampler == "ddpm" else classes
        start = time.perf_counter()
        drawn = draw_samples(denoiser, config, wanted)
        took = (time.perf_counter() - start) / len(wanted)
        generated = measure.features(drawn)
        fd, kid = measure.distances(generated)
        all_drawn = len(wanted) == len(classes)
        of_few = frechet_distance(measure.real, generated[::FEW]) if all_drawn else fd
        print(
            f"| {config.sampler} | {config.guidance:g} | {evaluations(config)} "
            f"| {len(wanted):,} | {f'{fd:.1f}' if all_drawn else '–'} "
            f"| {of_few:.1f} | {yardstick.with_spread(kid)} | {took:.3f} |",
            flush=True,
        )
        if config.guidance == usual.guidance:
            curves.setdefault(config.sampler, []).append((evaluations(config), kid.value))
    if options.plot:
        # KID is unbiased, so that the thousand steps can stand beside the others.
        yardstick.save_plot(curves, options.plot, xlabel="network evaluations", ylabel="KID × 1000")


if __name__ == "__main__":
    main()
