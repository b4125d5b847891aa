"""What a student learns from: the states that its teacher passes on the way from noise to x0.

Drawn once, and kept on disk in half precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import write_tensors
from ..config import SampleConfig
from ..denoiser import Denoiser
from ..samplers import Step
from ..sampling import draw_x0, from_seeds, sampling_sigmas, seed_noise
from ..training.kept import first_rows, kept_in_files, read_kept

FOLDER_NAME = "trajectories"  # in the folder of a run
FIRST_SEED = 2_000_000  # seeds that nobody looks at, and that no report draws
PER_FILE = 256
DRAW_BATCH = 16
ROWS = {"class_labels": 0, "states": 1}  # the dimension along which the seeds lie
OTHER = "teacher, or for another number of steps"


@dataclass(frozen=True)
class Trajectories:
    """How the teacher draws some seeds.

    ``states``: float16 [steps, N, C, h, w], x after each of the student's steps, the last being x0;
    ``class_labels``: int64 [N], the null class among them.
    """

    seeds: tuple[int, ...]
    class_labels: Tensor
    states: Tensor

    def __len__(self) -> int:
        return len(self.seeds)

    def rows(self, rows: slice) -> Trajectories:
        """Some of them, in the same memory."""
        return Trajectories(self.seeds[rows], self.class_labels[rows], self.states[:, rows])

    def noise(self, denoiser: Denoiser, indices: Tensor) -> Tensor:
        """The unit normal noise that some of them began with: [B, C, h, w]."""
        return seed_noise(denoiser, [self.seeds[i] for i in indices.tolist()])


def student_steps(sampling: SampleConfig, steps: int) -> list[int]:
    """After which of the teacher's steps the student's steps end; the last is the teacher's last.

    They lie evenly on its grid, which makes them a grid of Karras et al. too. Raises
    ValueError for more steps than the teacher takes.
    """
    most = sampling.num_steps
    if not 1 <= steps <= most:
        raise ValueError(f"A student of this teacher takes 1 to {most} steps, not {steps}.")
    return [most // steps * (i + 1) for i in range(steps - 1)] + [most]


def student_sampling(sampling: SampleConfig, steps: int) -> SampleConfig:
    """How the student is drawn: Euler's method on the same noise levels, without guidance."""
    ends = student_steps(sampling, steps)
    last = sampling_sigmas(sampling)[ends[-2]].item() if steps > 1 else sampling.sigma_min
    return SampleConfig(
        sampler="euler",
        num_steps=steps,
        guidance=1.0,
        sigma_min=last,
        sigma_max=sampling.sigma_max,
        rho=sampling.rho,
    )


def draw_trajectories(
    teacher: Denoiser, folder: str | Path, *, steps: int, count: int, teacher_hash: str
) -> Trajectories:
    """Draw ``count`` seeds as the teacher's checkpoint recommends, or read what was drawn before.

    Raises ValueError if the folder holds those of another teacher (``teacher_hash``), or for other
    steps, and for a count below 1.
    """
    if count < 1:
        raise ValueError("The number of seeds must be at least 1.")
    sampling = teacher.info.sampling
    ends = student_steps(sampling, steps)
    identity = {"teacher": teacher_hash, "sampling": sampling.to_dict(), "steps": steps}
    parts = {
        Path(folder) / f"{first:07d}.safetensors": range(
            FIRST_SEED + first, FIRST_SEED + min(first + PER_FILE, count)
        )
        for first in range(0, count, PER_FILE)
    }

    def read(path: Path, seeds: range) -> dict[str, Tensor] | None:
        return first_rows(read_kept(path, identity, other=OTHER), ROWS, len(seeds))

    def make(path: Path, seeds: range) -> None:
        write_tensors(path, _draw(teacher, seeds, ends), identity)

    files = kept_in_files(parts, read, make, of="the teacher draws", unit="cat")
    return Trajectories(
        tuple(range(FIRST_SEED, FIRST_SEED + count)),
        torch.cat([tensors["class_labels"] for tensors in files]),
        torch.cat([tensors["states"] for tensors in files], dim=1),
    )


def _draw(teacher: Denoiser, seeds: Sequence[int], ends: Sequence[int]) -> dict[str, Tensor]:
    """The class labels and the states of some seeds."""
    classes = [_class_of(teacher, seed) for seed in seeds]
    parts = []
    for rows in torch.arange(len(seeds)).split(DRAW_BATCH):
        states: list[Tensor] = []

        def keep(step: Step, states: list[Tensor] = states) -> None:
            if step.index in ends:
                states.append(step.x.half().cpu())

        chosen = rows.tolist()
        start = from_seeds(teacher, [seeds[i] for i in chosen], [classes[i] for i in chosen])
        x0 = draw_x0(teacher, start, teacher.info.sampling, callback=keep)
        parts.append(torch.stack([*states[:-1], x0.half().cpu()]))
    return {"class_labels": torch.tensor(classes), "states": torch.cat(parts, dim=1)}


def _class_of(teacher: Denoiser, seed: int) -> int:
    """Half of the seeds choose a label as on the page; the others take all in turn, and none."""
    info = teacher.info
    if seed % 2:
        return info.label_index(info.any_label(seed))
    return seed // 2 % (info.model.num_classes + 1)
