"""A lighter upscaler for a student: it makes of the student's cats what the teacher's makes of the
teacher's.

A student of one or two evaluations spends most of its time in the upscaler that its teacher needs.
This one has two fifths of the work, and knows what students do: their softness is mended as well,
since it sees their drawings beside the teacher's pictures of the same seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..codec import UpscalingCodec
from ..codecs.reconstruction import LOOK, corners, cut, difference, look_places, rows_above
from ..codecs.upscaler_training import CROP, where_rows
from ..codecs.upscaler_training import SETTINGS as OF_UPSCALERS
from ..config import TrainConfig, UpscalerConfig
from ..data.dataset import endless_indices
from ..denoiser import Denoiser
from ..networks.upscaler import Upscaler
from ..sampling import draw_x0, from_seeds
from ..training.kept import kept_x0
from ..training.objectives import Objective, oom_as_sentence
from .trajectories import DRAW_BATCH, Trajectories

FOLDER_NAME = "drawn"  # in the folder of a run
LIGHT = UpscalerConfig(widths=(24, 80), blocks=(1, 3))
SETTINGS = {**OF_UPSCALERS, "lr": 1.5e-3, "muon_lr": 3e-3, "ema_halflife_images": 550}
BATCH = 8  # pictures enlarged at once where nothing is learned


def draw_student(
    student: Denoiser, trajectories: Trajectories, folder: str | Path, *, student_hash: str
) -> Tensor:
    """What a student draws of the seeds of its teacher's trajectories: x0, float16 [N, *shape].

    Raises ValueError if the folder holds the drawings of another student (``student_hash``).
    """

    def draw(rows: Tensor) -> Tensor:
        parts = []
        for batch in rows.split(DRAW_BATCH):
            seeds = [trajectories.seeds[i] for i in batch.tolist()]
            start = from_seeds(student, seeds, trajectories.class_labels[batch].tolist())
            parts.append(draw_x0(student, start, student.info.sampling))
        return torch.cat(parts)

    def identity(rows: Tensor) -> dict[str, Any]:
        return {"student": student_hash, "first_seed": trajectories.seeds[int(rows[0])]}

    count = len(trajectories)
    return kept_x0(folder, count, draw, identity=identity, other="student", of="the student draws")


def light_upscaler(student: Denoiser, *, factor: int) -> Upscaler:
    """A new one, or a copy of the student's own where it has a light one already: that of a student
    before it, who drew much alike."""
    network = Upscaler(replace(LIGHT, factor=factor))
    if isinstance(student.codec, UpscalingCodec) and student.codec.network.config == network.config:
        network.load_state_dict(student.codec.network.state_dict())
    return network


def require_upscaler(teacher: Denoiser) -> UpscalingCodec:
    """The codec of a teacher whose pictures an upscaler enlarges. Raises ValueError for another."""
    if not isinstance(teacher.codec, UpscalingCodec):
        raise ValueError("This teacher has no upscaler, so its student needs none.")
    return teacher.codec


class UpscalerDistilling(Objective):
    """A light upscaler learns to enlarge what the student drew (``drawn``, [N, 3, s, s]) to what
    the teacher's own upscaler makes of the teacher's x0 of the same seeds, the last states of the
    ``trajectories``.

    Pixel by pixel, and as people see it: ``perceptual`` gives the distance of pictures [N, 3, H, W]
    as one number each. The held-out measure is that loss, of the first seeds, which the student has
    not learned from either. What is saved is the student with the new upscaler. Raises ValueError
    for a teacher without an upscaler, and for fewer than 8 seeds.
    """

    network: Upscaler

    @oom_as_sentence()
    def __init__(
        self,
        config: TrainConfig,
        student: Denoiser,
        teacher: Denoiser,
        trajectories: Trajectories,
        drawn: Tensor,
        *,
        perceptual: nn.Module,
        student_hash: str,
    ) -> None:
        codec = require_upscaler(teacher)
        self.factor = codec.factor
        if len(drawn) < BATCH:
            raise ValueError(f"At least {BATCH} seeds are needed.")
        torch.manual_seed(config.seed)
        self.network = light_upscaler(student, factor=self.factor)
        self.student, self.perceptual = student, perceptual
        self.teachers = codec.network
        held = min(config.holdout, len(drawn) // 10)
        pairs = torch.stack([drawn, trajectories.states[-1]])
        self.pairs, self.heldout_pairs = pairs[:, held:], pairs[:, :held]
        self._identity = {
            "student": student_hash,
            "upscaler": str(self.network.config),
            "heldout": held,  # others would have been learned from
        }
        self.device = torch.device("cpu")

    @property
    def identity(self) -> dict[str, Any]:
        return self._identity

    def to(self, device: torch.device) -> None:
        self.device = device
        for module in (self.network, self.teachers, self.perceptual):
            module.to(device)

    def batches(
        self, config: TrainConfig, *, first_step: int, share: slice
    ) -> Iterator[tuple[Tensor, ...]]:
        for rows in endless_indices(
            self.pairs.shape[1], config.batch_size, first_step=first_step, seed=config.seed,
            share=share,
        ):  # fmt: skip
            yield tuple(self.pairs[:, rows])

    def prepare(
        self, batch: Any, config: TrainConfig, generator: torch.Generator, noise: torch.Generator
    ) -> tuple[Tensor, ...]:
        """The same crops of the student's and of the teacher's x0, some mirrored, and where in the
        large ones the perceptual distance looks."""
        drawn, theirs = map(self._ready, batch)
        factor, whole, count = self.factor, drawn.shape[-1], len(drawn)
        size = min(CROP // factor, whole)
        places = corners(count, whole - size, generator)
        looks = look_places(count, factor * size, generator)
        drawn, theirs = cut(drawn, places, size), cut(theirs, places, size)
        mirrored = torch.rand(count, generator=generator) < 0.5 * config.mirror
        drawn, theirs = (where_rows(mirrored, x0.flip(3), x0) for x0 in (drawn, theirs))
        return drawn, theirs, looks.to(self.device)

    def loss(self, *rows: Tensor) -> Tensor:
        drawn, theirs, looks = rows
        return difference(self.network(drawn), self._wanted(theirs), looks, self.perceptual)

    @torch.no_grad()
    def heldout(self, averaged: nn.Module) -> float | None:
        if not self.heldout_pairs.shape[1]:
            return None
        losses = []
        for drawn, theirs in zip(*(x0.split(BATCH) for x0 in self.heldout_pairs), strict=True):
            wanted, made = self._wanted(self._ready(theirs)), averaged(self._ready(drawn))
            middle = torch.full((len(made), 2), max(made.shape[-1] - LOOK, 0) // 2)
            losses.append(difference(made, wanted, middle, self.perceptual))
        return float(torch.cat(losses).mean())

    def samples(self, averaged: nn.Module) -> Tensor:
        """Rows of the teacher's pictures, each above the row of the student's."""
        pairs = self.heldout_pairs if self.heldout_pairs.shape[1] >= BATCH else self.pairs
        drawn, theirs = pairs[:, :BATCH].to(self.device).float()
        size = drawn.shape[-1]
        own = UpscalingCodec(cast(Upscaler, averaged), size).decode(drawn)
        wanted = UpscalingCodec(self.teachers, size).decode(theirs)
        return rows_above(wanted.cpu(), own.cpu())

    @torch.no_grad()
    def save(self, averaged: nn.Module, path: Path, *, images: int) -> None:
        self.student.decoded_by(cast(Upscaler, averaged)).save(path)

    def _ready(self, x0: Tensor) -> Tensor:
        """Kept x0 as an upscaler takes them."""
        return x0.to(self.device).float().clamp(-1, 1)

    @torch.no_grad()
    def _wanted(self, x0: Tensor) -> Tensor:
        return self.teachers(x0).clamp(-1, 1)
