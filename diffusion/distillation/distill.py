"""A student that draws in one or a few steps what its teacher draws in many, from the same seeds.

Regression along the guided teacher's own trajectories (Zhou et al. 2024, "Simple and fast
distillation of diffusion models"): the student takes all of its Euler steps, and learns through all
of them to end where the teacher does. Where it is in between may differ from the teacher, but not
by much. Guidance is absorbed. The map from seed to picture stays, which adversarial losses and
losses with fresh noise give up. Where x0 are pictures, the end can also be compared as people see
it (``perceptual``): the absolute error alone leaves fur soft.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import HASH_LENGTH, CheckpointInfo
from ..codecs.reconstruction import difference, look_places
from ..config import TrainConfig
from ..data.dataset import endless_indices
from ..denoiser import Denoiser
from ..sampling import sampling_sigmas
from ..training.objectives import SAMPLE_SEEDS, OfDenoiser
from .trajectories import Trajectories, student_sampling

SETTINGS = {
    "optimizer": "muon",
    "batch_size": 64,
    "lr": 2e-4,
    "muon_lr": 1e-3,
    "decay_fraction": 0.5,
}
BETWEEN = 0.2  # weight of the errors before the last step, whose states nobody sees
HELDOUT = 300  # trajectories that nothing is learned from, at most a tenth


class Distilling(OfDenoiser):
    """The student, the teacher's network without its guide, learns from the teacher's trajectories.
    ``init`` is a student to go on with instead, which keeps its codec. Raises ValueError for one of
    another shape, of other labels or of other steps.

    The loss is the mean absolute error of x0 after the last step, and ``BETWEEN`` times that of
    each step before it: of its estimate of x0 from the one that leads exactly to the teacher's
    state. ``perceptual``, the distance of pictures [N, 3, H, W] as one number each, is added at the
    end, for a part of each picture. The held-out measure is the absolute error of what the student
    draws from held-out seeds.
    """

    prepares_at_random = False  # what is chosen is the same for a whole batch

    def __init__(
        self,
        teacher: Denoiser,
        trajectories: Trajectories,
        *,
        teacher_hash: str,
        perceptual: nn.Module | None = None,
        init: Denoiser | None = None,
    ) -> None:
        self.info = student_info(
            teacher, steps=len(trajectories.states), teacher_hash=teacher_hash, init=init
        )
        begun = init or teacher
        self.denoiser = Denoiser(
            copy.deepcopy(begun.model),
            teacher.parameterization,
            info=self.info,
            codec=begun.codec,
        )
        self.teacher_hash, self.perceptual = teacher_hash, perceptual
        held = min(HELDOUT, len(trajectories) // 10)
        self.trajectories = trajectories.rows(slice(held, None))
        self.heldout_trajectories = trajectories.rows(slice(held))
        self.sigmas = sampling_sigmas(self.info.sampling)
        self.sample_labels = [seed % (self.info.model.num_classes + 1) for seed in SAMPLE_SEEDS]
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        super().to(device)
        if self.perceptual is not None:
            self.perceptual.to(device)

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "student": self.info.to_dict(),
            "teacher": self.teacher_hash,
            "heldout": len(self.heldout_trajectories),  # others would have been learned from
        }

    def is_same(self, identity: dict[str, Any]) -> bool:
        student = identity.get("student")
        mine = isinstance(student, dict) and CheckpointInfo.from_dict(student) == self.info
        held = len(self.heldout_trajectories)
        same = identity.get("heldout", held) == held  # unknown to runs of before
        return mine and same and identity.get("teacher") == self.teacher_hash

    def batches(self, config: TrainConfig, *, first_step: int, share: slice) -> Iterator[Tensor]:
        return endless_indices(
            len(self.trajectories), config.batch_size, first_step=first_step, seed=config.seed,
            share=share,
        )  # fmt: skip

    def prepare(
        self, batch: Tensor, config: TrainConfig, generator: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, ...]:
        """x at the first noise level, the teacher's states after each of the student's steps
        [B, steps, C, h, w], the class labels, and the place where the perceptual distance looks."""
        states = self.trajectories.states[:, batch].movedim(0, 1).to(self.device).float()
        looks = look_places(1, states.shape[-1], generator).expand(len(states), 2)
        return *self._start(self.trajectories, batch), states, looks.to(self.device)

    def loss(self, *rows: Tensor) -> Tensor:
        x, labels, states, looks = rows
        between = x.new_zeros(len(x))
        for step in range(states.shape[1] - 1):
            x = self._step(self.denoiser, x, labels, step)
            error = (x - states[:, step]).abs().mean(dim=(1, 2, 3))
            between = between + BETWEEN / (1 - self._share(step)) * error
        x0 = self._step(self.denoiser, x, labels, states.shape[1] - 1)
        return difference(x0, states[:, -1], looks, self.perceptual) + between

    def _start(self, trajectories: Trajectories, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The noise that some trajectories began with, at the first noise level, and the labels."""
        x = trajectories.noise(self.denoiser, batch) * self.sigmas[0].item()
        return x.to(self.device), trajectories.class_labels[batch].to(self.device)

    def _share(self, step: int) -> float:
        """How much of x an Euler step keeps; the rest is the estimate of x0."""
        return float(self.sigmas[step + 1] / self.sigmas[step])

    def _step(self, student: Denoiser, x: Tensor, labels: Tensor, step: int) -> Tensor:
        """x after one more step."""
        x0 = student(x, self.sigmas[step].item(), labels)
        return torch.lerp(x0, x, self._share(step))

    def averaged(self, averaged: nn.Module, *, images: int) -> Denoiser:
        info = replace(self.info, images_seen=self.info.images_seen + images)
        own = self.denoiser
        return Denoiser(averaged, own.parameterization, info=info, codec=own.codec)

    @torch.no_grad()
    def heldout(self, averaged: nn.Module) -> float | None:
        trajectories = self.heldout_trajectories
        if not len(trajectories):
            return None
        student, total = self.averaged(averaged, images=0), 0.0
        for batch in torch.arange(len(trajectories)).split(16):
            x, labels = self._start(trajectories, batch)
            for step in range(len(trajectories.states)):
                x = self._step(student, x, labels, step)
            x0 = trajectories.states[-1, batch].to(self.device).float()
            total += float((x - x0).abs().mean(dim=(1, 2, 3)).sum())
        return total / len(trajectories)


def student_info(
    teacher: Denoiser, *, steps: int, teacher_hash: str, init: Denoiser | None = None
) -> CheckpointInfo:
    """What a student of so many steps says of itself. Raises ValueError for an ``init`` that does
    not fit, and for more steps than the teacher takes."""
    info = teacher.info.without_guide()
    history = (*info.history, f"a student of {steps} steps")
    info = replace(
        info,
        sampling=student_sampling(info.sampling, steps),
        history=history,
        teacher=teacher_hash[:HASH_LENGTH],
    )
    if init is None:
        return info
    going_on = _going_on(init.info, info)
    if init.codec.network is not None:
        teacher.decoded_by(init.codec.network)  # raises where that knows other latents
    return going_on


def has_gradient(name: str) -> bool:
    """Whether the student's loss depends on a parameter of its network. Not on those for the
    augmentations of a training on pictures, and several processes refuse to train what has none."""
    return not name.startswith("augment_embedding.")


def _going_on(init: CheckpointInfo, new: CheckpointInfo) -> CheckpointInfo:
    """What a student that goes on says of itself, beside what a ``new`` one of its teacher would
    say. Raises ValueError for one that does not fit."""
    if not init.teacher:
        raise ValueError("The model to start from is no student.")
    fits = (init.model, init.labels, init.in_latents) == (new.model, new.labels, new.in_latents)
    if not fits or init.picture_size != new.picture_size:
        raise ValueError("The student to start from does not fit this teacher.")
    if init.sampling != new.sampling:
        raise ValueError("The student to start from takes other steps.")
    return replace(init, teacher=new.teacher)
