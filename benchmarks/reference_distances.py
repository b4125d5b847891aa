"""Do the measures say of real pictures what they should? Distances between parts of one data set.

    python -m benchmarks.reference_distances --data cat-heads-128.zip --labels cat-heads.labels.csv

Prints a Markdown table: random parts of the set against each other and against all of it, where
only their number makes a distance, and single labels against all, which are really apart.
"""

from __future__ import annotations

import argparse
import time

import torch
from tqdm import tqdm

from diffusion.data.dataset import load_images
from diffusion.device import choose_device
from diffusion.evaluation.evaluate import distances
from diffusion.evaluation.features import BATCH_SIZE, FEATURES, extract_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder or zip of pictures")
    parser.add_argument("--labels", help="CSV file with the columns file and label")
    parser.add_argument("--features", choices=list(FEATURES), default="effnet-lite0")
    parser.add_argument(
        "--size", type=int, default=64, help="pixels that the pictures come down to"
    )
    options = parser.parse_args()
    images = load_images(
        options.data, image_size=options.size, labels_csv=options.labels, photos=False
    )
    device = choose_device()
    network = FEATURES[options.features]().to(device)
    began = time.monotonic()
    batches = (images.get(part)[0] for part in torch.arange(len(images)).split(BATCH_SIZE))
    with tqdm(total=len(images), unit="picture") as bar:
        features = extract_features(network, batches, device=device, progress=bar.update)
    seconds = time.monotonic() - began

    shuffled = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))]
    sets = {}
    for count in (600, 1000, 2000):
        if 2 * count <= len(features):
            sets[f"{count:,} and {count:,} others"] = shuffled[:count], shuffled[count : 2 * count]
    sets["1,000 of them, all"] = shuffled[:1000], features
    for index, label in enumerate(images.labels):
        sets[f"only {label}, all"] = features[images.classes == index], features
    print(f"| {len(images):,} real pictures | number | FD | KID×1000 | precision | recall |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (part, other) in sets.items():
        found = distances(other, part)
        kid = f"{found['kid']:.2f} ± {found['kid_spread']:.2f}"
        print(
            f"| {name} | {len(part):,} | {found['fd']:.1f} | {kid} "
            f"| {found['precision']:.2f} | {found['recall']:.2f} |"
        )
    print(f"\n{options.features}: {len(images) / seconds:.0f} pictures/s on {device}")


if __name__ == "__main__":
    main()
