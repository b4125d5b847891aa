"""What is seen of pictures while they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffusion.codec import Codec
from diffusion.output.animate import noisy_x0
from diffusion.samplers import Step

if TYPE_CHECKING:
    from .job import Job

MAX_FRAMES = 60  # steps that are kept of a picture's forming


class Observer:
    """The sampler's callback: tells each job of a turn how its pictures form."""

    def __init__(self, turn: Sequence[tuple[Job, int]], codec: Codec) -> None:
        self.turn, self.codec = turn, codec
        self.jobs = list(dict.fromkeys(job for job, _ in turn))
        self.stopped_rows: dict[Job, set[int]] = {}

    def __call__(self, step: Step) -> bool:
        previews = self.codec.preview(step.denoised).cpu()
        every = max(1, -(-step.total // MAX_FRAMES))
        keep = step.index % every == 0 or step.index == step.total
        for i, (job, row) in enumerate(self.turn):
            if job in self.stopped_rows:
                continue
            store(job, row, self._decode(step.denoised, i) if job.stopped else previews[i])
            job.steps_taken[row] += 1
            if keep and job.record and row == 0:
                job.frames.append(self._frame(job.record, step, i, previews))
        for job in self.jobs:
            if job.stopped and job not in self.stopped_rows:
                self.stopped_rows[job] = {row for other, row in self.turn if other is job}
                job.finish()  # now, not when the others of this turn are done
        return all(job.stopped for job in self.jobs)

    def _frame(self, record: str, step: Step, row: int, previews: Tensor) -> Tensor:
        if record == "preview":
            return previews[row].clone()  # a view would keep those of the whole batch
        return self._decode(noisy_x0(step) if record == "noisy" else step.denoised, row)

    def _decode(self, x0: Tensor, row: int) -> Tensor:
        """One picture: uint8 [3, S, S], without the rest of its batch."""
        return self.codec.decode(x0[row : row + 1])[0].cpu()


def store(job: Job, row: int, picture: Tensor) -> None:
    """Put a picture in its place; where there is none yet, it is grey."""
    if job.pictures is None:
        job.pictures = torch.full((len(job.recipes), *picture.shape), 128, dtype=torch.uint8)
    job.pictures[row] = picture
