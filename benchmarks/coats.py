"""Coat labels for photos of whole cats, carried over from those of their heads.

    python -m benchmarks.coats --data whole-cats-256.zip --labels asirra-heads.labels.csv \
           --out whole-cats.labels.csv

A linear probe learns the labels that are known from features of VGG16 and histograms of colour,
and says how often it is right in cross-validation. A picture keeps the label that it has, unless
too few have it for a model to learn. Another gets the probe's where that is sure enough. Needs the
package stlpips-pytorch for the weights of VGG16: the network that measures quality has no part in
what is trained.
"""

from __future__ import annotations

import argparse
import csv

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from diffusion.codec import to_float
from diffusion.data.dataset import load_images
from diffusion.data.sources import read_labels, rows_of
from diffusion.device import keep_freed_memory
from diffusion.files import atomic_path
from diffusion.training.perceptual import DEEPER, STAGES, PerceptualDistance

SIZE, SMALL = 160, 64  # pixels, for the network and for the colours
CENTRES = ((16, 48), (24, 40), (0, SMALL))  # squares whose colours are counted
COMPONENTS = {"deep": 100, "middle": 100, "centre": 100, "colours": 60}
PENALTY = 3e-3  # 1e-3 and 1e-4 are right less often
SURE = 0.5  # of what is as sure as this or surer, seven in ten are right
SURE_OF = {"calico": 0.85}  # rare, and taken for what is merely brown and black
UNSURE = {"siamese"}  # too few whole cats to learn from: no picture gets it


def describe(pictures: Tensor, vgg: PerceptualDistance) -> dict[str, Tensor]:
    """Features [N, D] of uint8 pictures [N, 3, S, S], all of them at least 0."""
    seen = F.interpolate(to_float(pictures), size=(SIZE, SIZE), mode="bilinear", antialias=True)
    *_, middle, deep = vgg.maps(seen, stages=(*STAGES, *DEEPER))
    small = F.interpolate(pictures.float(), size=(SMALL, SMALL), mode="bilinear", antialias=True)
    return {
        "deep": deep.mean((2, 3)),
        "middle": middle.mean((2, 3)),
        "centre": F.adaptive_avg_pool2d(deep, 3)[:, :, 1, 1],
        "colours": torch.cat([_histogram(small[:, :, a:b, a:b]) for a, b in CENTRES], 1),
    }


def _histogram(pictures: Tensor) -> Tensor:
    """Shares [N, 216] of six levels each of red, green and blue."""
    red, green, blue = pictures.byte().long().floor_divide(43).unbind(1)
    bins = (36 * red + 6 * green + blue).flatten(1)
    counts = torch.zeros(len(pictures), 216).scatter_add_(1, bins, torch.ones(bins.shape))
    return counts / bins.shape[1]


def components(features: Tensor, count: int) -> Tensor:
    """The first principal components [N, count] of the square roots of features."""
    roots = features.sqrt()
    roots = roots - roots.mean(0)
    _, _, directions = torch.pca_lowrank(roots, count, center=False, niter=4)
    found = roots @ directions
    return found / found.std(0).sqrt() / found.std(0).mean().sqrt()


def logistic(x: Tensor, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Weights [D, count] and biases of a penalised logistic regression."""
    weight = torch.zeros(x.shape[1], count, requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=150, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight + bias, classes) + PENALTY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call, unused-ignore]
    return weight.detach(), bias.detach()


def cross_validate(x: Tensor, classes: Tensor, count: int, *, folds: int = 5) -> str:
    """How often a probe is right on a fifth that it did not learn from."""
    fold = torch.arange(len(x)) % folds
    right, sure = [], []
    for held in range(folds):
        weight, bias = logistic(x[fold != held], classes[fold != held], count)
        chances = (x[fold == held] @ weight + bias).softmax(1)
        right.append(chances.argmax(1) == classes[fold == held])
        sure.append(chances.amax(1) >= SURE)
    hits, enough = torch.cat(right), torch.cat(sure)
    return f"right {hits.float().mean():.0%}; where sure enough {hits[enough].float().mean():.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder or zip of pictures")
    parser.add_argument("--labels", required=True, help="CSV file with the columns file and label")
    parser.add_argument("--out", required=True, help="CSV file to write")
    options = parser.parse_args()
    keep_freed_memory()
    known = read_labels(options.labels)
    images = load_images(options.data, image_size=256, photos=False)
    coats = sorted(set(known.values()))
    places = rows_of(images.names, known)
    given = torch.tensor([-1 if row is None else coats.index(known[row]) for row in places])
    vgg = PerceptualDistance.load()
    with torch.inference_mode():
        described = [
            describe(images.get(part)[0], vgg)
            for part in tqdm(torch.arange(len(images)).split(32), desc="features")
        ]
    x = torch.cat(
        [components(torch.cat([d[k] for d in described]), n) for k, n in COMPONENTS.items()], 1
    )
    labelled = given >= 0
    print(cross_validate(x[labelled], given[labelled], len(coats)))
    weight, bias = logistic(x[labelled], given[labelled], len(coats))
    surest = (x @ weight + bias).softmax(1).max(1)
    with atomic_path(options.out) as path, path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label"])
        for name, row, sure, index in zip(
            images.names, places, *map(Tensor.tolist, surest), strict=True
        ):
            coat = coats[int(index)]
            found = coat if sure >= SURE_OF.get(coat, SURE) and coat not in UNSURE else ""
            own = found if row is None else known[row]
            table.writerow([name, "" if own in UNSURE else own])


if __name__ == "__main__":
    main()
