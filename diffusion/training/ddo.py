"""A trained denoiser learns to tell real pictures from its own drawings, and draws better by it.

Direct discriminative optimization (Zheng et al. 2025, "Direct discriminative optimization: your
likelihood-based visual generative model is secretly a GAN discriminator"). Training on real
pictures alone makes a small network cover all of them, and what it draws in between is blurred or
torn. Here a discriminator says which of two is real, and it has no network of its own: a picture
counts as real as far as the network that learns denoises it better than a frozen copy of the start
does. So the network gets worse at what its start draws and real pictures do not show.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoint import CheckpointInfo
from ..config import TrainConfig
from ..data.dataset import ImageSet
from ..data.latents import LatentSet
from ..denoiser import Denoiser
from .kept import kept_x0
from .objectives import Denoising
from .replays import ExampleSet, draw_in_batches, drawn_set

SETTINGS = {
    "lr": 1e-4,
    "muon_lr": 3e-4,
    "decay_fraction": 0.5,
    "ema_halflife_images": 800,
    "warmup_images": 320,
    "P_mean": -0.8,
    "P_std": 1.5,
}
FOLDER_NAME = "drawings"  # in the folder of a run
FIRST_SEED = 4_000_000  # seeds that nobody looks at, and that no report draws
BETA = 150.0  # gains are of the order of a hundredth


def own_drawings(
    denoiser: Denoiser,
    like: ExampleSet,
    folder: str | Path,
    *,
    count: int,
    model_hash: str,
) -> ExampleSet:
    """What ``denoiser`` draws of ``count`` seeds, each with its "any" label, as a set of the kind
    of ``like``. Drawn without guidance: it is the network itself that is to be corrected.

    Raises ValueError for a count below 1, and if the folder holds what another model
    (``model_hash``) drew.
    """
    if count < 1:
        raise ValueError("The number of drawings must be at least 1.")
    info, sampling = denoiser.info, replace(denoiser.info.sampling, guidance=1.0)
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    labels = [info.label_index(info.any_label(seed)) for seed in seeds]
    identity = {"model": model_hash, "sampling": sampling.to_dict()}

    def drawn(rows: Tensor) -> Tensor:
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        return draw_in_batches(denoiser, seeds[part], labels[part], sampling)

    x0 = kept_x0(folder, count, drawn, identity=lambda rows: identity, other="model", of="drawing")
    return drawn_set(x0, torch.tensor(labels), like)


class Discriminating(Denoising):
    """The network of ``init`` learns to denoise real pictures better, and ``drawings``, its own,
    worse than it did at the start.

    The gain of a picture is how much smaller its denoising loss is than the start's. The loss is
    the binary cross-entropy of BETA times the gain, real pictures 1, drawings 0, over BETA.
    """

    def __init__(
        self,
        config: TrainConfig,
        info: CheckpointInfo,
        images: ImageSet | LatentSet,
        drawings: ImageSet | LatentSet,
        *,
        init: dict[str, Tensor],
    ) -> None:
        super().__init__(config, info, images, init=init)
        self.drawings = drawings
        start = copy.deepcopy(self.denoiser.model).eval().requires_grad_(False)
        self.start = Denoiser(start, self.denoiser.parameterization)

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "drawings": len(self.drawings)}

    def is_same(self, identity: dict[str, Any]) -> bool:
        plain = {name: value for name, value in identity.items() if name != "drawings"}
        return identity.get("drawings") == len(self.drawings) and super().is_same(plain)

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.start.to(device)
        self.drawings = self.drawings.to(device)

    def prepare(
        self, batch: Any, config: TrainConfig, generator: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, ...]:
        """As for denoising, and for each real picture a drawing: x0, its noise, label and
        augmentation. The noise level of both is the same."""
        rows = super().prepare(batch, config, generator, noise)
        chosen = torch.randint(len(self.drawings), (len(rows[0]),), generator=generator)
        x0, labels, augment = self.examples(*self.drawings.get(chosen), config, generator)
        drawn = torch.randn(x0.shape, generator=noise, device=self.device)
        return *rows, x0, drawn, labels, augment

    def loss(self, *rows: Tensor) -> Tensor:
        real, sigma, noise, labels, augment = rows[:5]
        drawing, noise_too, labels_too, augment_too = rows[5:]
        gain = self._gain(  # of both at once, as one batch
            torch.cat([real, drawing]),
            torch.cat([sigma, sigma]),
            torch.cat([noise, noise_too]),
            torch.cat([labels, labels_too]),
            torch.cat([augment, augment_too]),
        )
        of_real, of_drawing = (BETA * gain).chunk(2)
        return (F.softplus(-of_real) + F.softplus(of_drawing)) / BETA

    def _gain(self, *rows: Tensor) -> Tensor:
        with torch.no_grad():
            before = self.start.loss(*rows)
        return before - self.denoiser.loss(*rows)
