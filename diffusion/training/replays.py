"""Pictures that a model draws of what it knows, as pictures to learn from.

A model that learns a new cat keeps its old ones by them (prior preservation: Ruiz et al. 2023,
"DreamBooth", Sec. 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from ..codec import to_uint8
from ..config import ModelConfig, SampleConfig
from ..data.dataset import ImageSet
from ..data.latents import LatentSet
from ..denoiser import Denoiser
from ..sampling import draw_x0, from_seeds

REPLAYS = 108  # pictures that the base draws, its labels in turn: 12 of each at 8 labels and none
LEAST_REPLAYS = 2  # of each label, where there are many
REPLAY_SEED = 1_000_000  # its pictures are of seeds that nobody looks at
DRAW_BATCH = 16

ExampleSet = TypeVar("ExampleSet", ImageSet, LatentSet)
Report = Callable[[float], None]  # is told a share, 0 to 1


def replays_per_label(model: ModelConfig) -> int:
    """How many pictures of each label, and of none, the base draws."""
    return max(LEAST_REPLAYS, REPLAYS // (model.num_classes + 1))


def draw_replays(base: Denoiser, like: ExampleSet, report: Report = lambda _: None) -> ExampleSet:
    """Pictures that the base model draws, with their labels (-1 where it was given none), as a set
    of the kind of ``like``. ``report`` is given the share that is done.

    Drawn with guidance, as on the page. It comes on top once more when the tuned model draws, and
    the other coats bear it: ``benchmarks/finetuning.py`` reads as many of them off as before.
    """
    known = base.info.model.num_classes
    labels = list(range(known + 1)) * replays_per_label(base.info.model)
    seeds = range(REPLAY_SEED, REPLAY_SEED + len(labels))
    x0 = draw_in_batches(base, seeds, labels, base.info.sampling, report)
    classes = torch.tensor([label if label < known else -1 for label in labels])
    return drawn_set(x0, classes, like)


def draw_in_batches(
    model: Denoiser,
    seeds: Sequence[int],
    labels: Sequence[int],
    sampling: SampleConfig,
    report: Report = lambda _: None,
) -> Tensor:
    """x0 of seeds, each with its class label; ``report`` is given the share that is done."""
    drawn = []
    for start in range(0, len(labels), DRAW_BATCH):
        part = slice(start, start + DRAW_BATCH)
        drawn.append(draw_x0(model, from_seeds(model, seeds[part], labels[part]), sampling))
        report(min(start + DRAW_BATCH, len(labels)) / len(labels))
    return torch.cat(drawn)


def drawn_set(x0: Tensor, classes: Tensor, like: ExampleSet) -> ExampleSet:
    """What a model drew, with its classes (-1: none), as a set of the kind of ``like``."""
    names = tuple(f"replay-{i}" for i in range(len(x0)))
    unknown = ("",) * len(x0)  # they are nobody's pictures
    if isinstance(like, LatentSet):  # what was drawn is known as it is, not mirrored or moved
        latents = x0.half().cpu().expand(len(like.latents), *x0.shape)
        return replace(like, names=names, classes=classes, latents=latents, digests=unknown)
    pixels = to_uint8(x0).cpu()
    return replace(like, names=names, classes=classes, pixels=pixels, digests=unknown)


def mix(pictures: ExampleSet, replays: ExampleSet, keep: float) -> ExampleSet:
    """One set, the share ``keep`` > 0 of it replays, each picture in it equally often."""
    ratio = (1 - keep) / keep * len(replays) / len(pictures)  # showings of a picture per replay's
    times = math.ceil(max(1, ratio))  # for all of them alike; of replays, whose labels take turns,
    wanted = round(times * len(pictures) * keep / (1 - keep))  # some may come once more
    own = pictures.subset(list(range(len(pictures))) * times)
    return own.joined(replays.subset([i % len(replays) for i in range(wanted)]))
