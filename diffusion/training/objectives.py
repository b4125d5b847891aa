"""What a network is trained for: batches, a loss, a held-out measure and samples.

The trainer's one loop takes any of them. Denoising is the first; ``codec_training`` has another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import CheckpointInfo
from ..config import TrainConfig
from ..data.augment import AUGMENT_CHANNELS, Augment
from ..data.dataset import ImageSet, training_batches
from ..data.latents import LatentSet
from ..denoiser import Denoiser
from ..device import is_out_of_memory
from ..files import is_disk_full
from ..parameterizations import EDM, training_sigma
from ..sampling import generate

SAMPLE_SEEDS = tuple(range(16))
SAMPLE_COLUMNS = 4
REFERENCE_P_MEAN = -1.2  # of the noise levels that runs are compared at (Karras et al. 2022)


class TrainingError(ValueError):
    """Training cannot go on; the message is a sentence for the person who started it."""


@contextmanager
def oom_as_sentence() -> Iterator[None]:
    """Within the block, memory that runs out is a TrainingError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        worker_killed = "killed by signal" in str(error)  # what a lack of memory does to those
        if is_out_of_memory(error) or worker_killed:
            raise TrainingError(
                "There was not enough memory. The last checkpoint is kept. Try a "
                "smaller --batch-size."
            ) from None
        raise


@contextmanager
def full_disk_as_sentence() -> Iterator[None]:
    """Within the block, a disk that is full is a TrainingError."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise TrainingError(
                "The disk is full. The last checkpoint is kept. Make room, and run the same "
                "command to go on."
            ) from None
        raise


class Objective(ABC):
    """What the trainer needs to know of a task.

    ``network`` is what learns; the trainer may put a wrapper of it in its place (several processes
    do). ``averaged`` below is a copy of it with averaged weights.
    """

    network: nn.Module
    prepares_at_random = True  # whether ``prepare`` draws random numbers for each row

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON-ready; a run goes on only with an objective that says the same of itself."""

    def is_same(self, identity: dict[str, Any]) -> bool:
        """Whether a run of this ``identity``, perhaps of an earlier version, is one of this."""
        return identity == self.identity

    @property
    def images_before(self) -> int:
        """Images that the network was shown before this run."""
        return 0

    @property
    def record(self) -> dict[str, str]:
        """Name and digest of each picture, those held out among them (see ``changes``)."""
        return {}

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move networks and data to where the training takes place."""

    @abstractmethod
    def batches(self, config: TrainConfig, *, first_step: int, share: slice) -> Iterator[Any]:
        """Endless batches from a step on, the same ones each time; of each, this process's share
        of ``config.batch_size`` rows."""

    @abstractmethod
    def prepare(
        self, batch: Any, config: TrainConfig, generator: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, ...]:
        """A batch as tensors of one row a picture. All that is random comes from the generators:
        choices from the first (CPU), noise from the second (the device's)."""

    def prepare_share(
        self, batch: Any, config: TrainConfig, generator: torch.Generator, noise: torch.Generator,
        *, rank: int, processes: int,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """As ``prepare``, for one process's share of a batch: the same rows as if it had all of it.

        Random numbers are drawn for the whole batch, in which each row of the share stands for
        those of the other processes too. To fetch pictures is dear, to prepare them is not.
        """
        if processes == 1 or not self.prepares_at_random:
            return self.prepare(batch, config, generator, noise)

        def spread(rows: Tensor) -> Tensor:
            return rows.repeat_interleave(processes, dim=0)

        rows = self.prepare(tuple(map(spread, batch)), config, generator, noise)
        return tuple(row[rank::processes] for row in rows)

    @abstractmethod
    def loss(self, *rows: Tensor) -> Tensor:
        """The loss of each row of what ``prepare`` returned."""

    @abstractmethod
    def heldout(self, averaged: nn.Module) -> float | None:
        """The held-out loss, or None where nothing is held out."""

    @abstractmethod
    def samples(self, averaged: nn.Module) -> Tensor:
        """Pictures to look at: uint8 [N, 3, S, S]."""

    @abstractmethod
    def save(self, averaged: nn.Module, path: Path, *, images: int) -> None:
        """Write the weights after ``images`` images of this run, ready to use, atomically."""


class OfDenoiser(Objective):
    """What learns is the network of ``denoiser``, which ``info`` tells of. Samples are drawn from
    fixed seeds with ``sample_labels``."""

    denoiser: Denoiser
    info: CheckpointInfo
    sample_labels: Sequence[int]

    @abstractmethod
    def averaged(self, averaged: nn.Module, *, images: int) -> Denoiser:
        """The denoiser of the averaged weights, as it would be shipped after ``images`` images."""

    @property
    def network(self) -> nn.Module:  # type: ignore[override]  # kept by the denoiser
        return self.denoiser.model

    @network.setter
    def network(self, network: nn.Module) -> None:
        self.denoiser.model = network

    @property
    def images_before(self) -> int:
        return self.info.images_seen

    def to(self, device: torch.device) -> None:
        self.device = device
        self.denoiser.to(device)

    def samples(self, averaged: nn.Module) -> Tensor:
        seeds = SAMPLE_SEEDS[: len(self.sample_labels)]
        labels = self.sample_labels[: len(seeds)]
        return generate(self.averaged(averaged, images=0), seeds, class_labels=labels)

    def save(self, averaged: nn.Module, path: Path, *, images: int) -> None:
        self.averaged(averaged, images=images).save(path)


class Denoising(OfDenoiser):
    """A denoiser learns x0 from x0 + noise.

    ``images`` is split into a training and a held-out part, unless ``heldout`` is given (its loss
    is then measured with its labels, and at the noise levels of the training rather than at those
    that runs are compared by). ``info`` names the network and where it comes from; ``init`` holds
    weights to start from. Samples are drawn from fixed seeds with ``sample_labels``, by default
    every label in turn. Raises ValueError where these do not fit together.
    """

    @oom_as_sentence()
    def __init__(
        self,
        config: TrainConfig,
        info: CheckpointInfo,
        images: ImageSet | LatentSet,
        *,
        init: dict[str, Tensor] | None = None,
        heldout: ImageSet | LatentSet | None = None,
        sample_labels: Sequence[int] | None = None,
    ) -> None:
        self.info = info
        self._labelled, self._heldout_P_mean = heldout is not None, REFERENCE_P_MEAN
        if heldout is None:
            images, heldout = images.split(config.holdout)
        else:
            self._heldout_P_mean = config.P_mean
        self.images, self.heldout_images = images, heldout
        classes = info.model.num_classes + 1
        self.sample_labels = sample_labels or [seed % classes for seed in SAMPLE_SEEDS]
        if config.augment and info.in_latents:
            raise ValueError("Latents cannot be augmented. Set --augment to 0.")
        if config.augment and info.model.augment_channels != AUGMENT_CHANNELS:
            raise ValueError("This network takes no augmentation parameters. Set --augment to 0.")
        self.augment = Augment(config.augment)
        if (info.guide or info.codec) and init is None:
            raise ValueError("The weights of a guide or a codec come with those to start from.")
        torch.manual_seed(config.seed)
        self.denoiser = Denoiser.from_config(info.model, info=info)
        if init is not None:
            try:
                self.denoiser.load_weights(init)
            except RuntimeError:
                raise ValueError("The weights to start from do not fit their config.") from None

    @property
    def identity(self) -> dict[str, Any]:
        return self.info.to_dict()

    def is_same(self, identity: dict[str, Any]) -> bool:
        theirs = CheckpointInfo.from_dict(identity)
        # The pictures may have changed, and with them what is told of them.
        one, other = (replace(info, data="", label_counts=()) for info in (theirs, self.info))
        return one == other

    @property
    def record(self) -> dict[str, str]:
        return self.images.record | self.heldout_images.record

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.images = self.images.to(device)

    def batches(self, config: TrainConfig, *, first_step: int, share: slice) -> Iterator[Any]:
        return training_batches(
            self.images, config.batch_size, first_step=first_step, seed=config.seed, share=share
        )

    def prepare(
        self, batch: Any, config: TrainConfig, generator: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, ...]:
        pictures, classes = batch
        x0, labels, augment = self.examples(pictures, classes, config, generator)
        sigma = training_sigma(
            self.denoiser.parameterization, len(x0),
            P_mean=config.P_mean, P_std=config.P_std, generator=generator,
        )  # fmt: skip
        drawn = torch.randn(x0.shape, generator=noise, device=self.device)
        return x0, sigma.to(self.device), drawn, labels, augment

    def examples(
        self, pictures: Tensor, classes: Tensor, config: TrainConfig, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Crop, mirror, augment and drop labels: x0, class labels and augmentation parameters."""
        null = self.info.model.num_classes
        x0 = self.images.x0(pictures.to(self.device), generator, mirror=config.mirror)
        x0, augment = self.augment(x0, generator)
        dropped = torch.rand(len(classes), generator=generator) < config.label_dropout
        labels = torch.where(dropped | (classes < 0), null, classes)
        return x0, labels.to(self.device), augment.to(self.device)

    def loss(self, *rows: Tensor) -> Tensor:
        return self.denoiser.loss(*rows)

    def averaged(self, averaged: nn.Module, *, images: int) -> Denoiser:
        line = f"{images:,} images of {self.info.data or 'unnamed data'}"
        info = replace(
            self.info,
            images_seen=self.info.images_seen + images,
            history=(*self.info.history, line) if images else self.info.history,
        )
        own = self.denoiser
        return Denoiser(averaged, own.parameterization, info=info, guide=own.guide, codec=own.codec)

    def heldout(self, averaged: nn.Module) -> float | None:
        return heldout_loss(
            self.averaged(averaged, images=0),
            self.heldout_images,
            device=self.device,
            labelled=self._labelled,
            P_mean=self._heldout_P_mean,
        )


@torch.no_grad()
def heldout_loss(
    denoiser: Denoiser,
    images: ImageSet | LatentSet,
    *,
    device: torch.device,
    labelled: bool = False,
    P_mean: float = REFERENCE_P_MEAN,
    batch_size: int = 32,
) -> float | None:
    """EDM loss on held-out pictures with fixed noise levels and noise, with or without labels.

    Karras et al. 2022, Eq. 2 with lambda and p(sigma) of Table 1, whatever the parameterization, so
    that networks of different kinds can be compared. None if nothing is held out.
    """
    if not len(images):
        return None
    edm, generator = EDM(), torch.Generator().manual_seed(0)
    total = 0.0
    for start in range(0, len(images), batch_size):
        pictures, classes = images.get(torch.arange(start, min(start + batch_size, len(images))))
        x0 = images.x0(pictures, generator, mirror=False)
        sigma = training_sigma(edm, len(x0), P_mean=P_mean, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        x0, sigma, noise = x0.to(device), sigma.to(device), noise.to(device)
        x = x0 + sigma[:, None, None, None] * noise
        labels = None
        if labelled:
            labels = torch.where(classes < 0, denoiser.info.model.num_classes, classes).to(device)
        error = (denoiser(x, sigma, labels) - x0).square().mean(dim=(1, 2, 3))
        total += float((error / edm.coefficients(sigma).c_out ** 2).sum())
    return total / len(images)
