"""How do pictures get better as more images are seen? Distances of one checkpoint after another.

    python -m benchmarks.curve --data cat-heads-128.zip --labels cat-heads.labels.csv \
           [--samples 500] [--plot curve.png] runs/heads/steps/*.safetensors

Prints a Markdown table. Without guidance: what the network itself has learned.
"""

from __future__ import annotations

import argparse

from benchmarks import yardstick
from diffusion import Denoiser, SampleConfig
from diffusion.checkpoint import find_checkpoint
from diffusion.evaluation.evaluate import draw_samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    yardstick.add_options(parser, samples=500)
    options = parser.parse_args()
    denoisers = [Denoiser.load_for_sampling(find_checkpoint(name)) for name in options.checkpoints]
    denoisers.sort(key=lambda denoiser: denoiser.info.images_seen)
    measure = yardstick.Yardstick(
        options.data, denoisers[0].info, samples=options.samples, labels_csv=options.labels
    )
    curves: dict[str, list[tuple[int, float]]] = {"FD": [], "KID × 1000": []}
    print(f"| images seen | FD of {options.samples:,} | KID×1000 |")
    print("|---:|---:|---:|")
    for denoiser in denoisers:
        drawn = draw_samples(denoiser, SampleConfig(guidance=1.0), measure.classes)
        fd, kid = measure.distances(measure.features(drawn))
        seen = denoiser.info.images_seen
        curves["FD"].append((seen, fd))
        curves["KID × 1000"].append((seen, kid.value))
        print(f"| {seen:,} | {fd:.1f} | {yardstick.with_spread(kid)} |", flush=True)
    if options.plot:
        yardstick.save_plot(
            curves, options.plot, xlabel="images seen", ylabel="distance to real pictures"
        )


if __name__ == "__main__":
    main()
