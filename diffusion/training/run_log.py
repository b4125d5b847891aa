"""What a training writes down as it goes: lines of metrics, and scalars for TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import atomic_path
from .progress import Progress
from .run_folder import METRICS_NAME, SCALARS_NAME

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:  # an optional extra
    SummaryWriter = None  # type: ignore[assignment, misc]  # the stubs know a class


class Window:
    """Means over the steps since it was made."""

    def __init__(self, progress: Progress) -> None:
        self.images, self.seconds = progress.images, progress.seconds
        self.steps = 0
        self._loss, self._grad_norm = torch.zeros(()), torch.zeros(())

    def add(self, loss: Tensor, grad_norm: Tensor) -> None:
        self.steps += 1
        self._loss = self._loss.to(loss) + loss
        self._grad_norm = self._grad_norm.to(grad_norm) + grad_norm

    @property
    def loss(self) -> float:
        return float(self._loss) / max(self.steps, 1)

    @property
    def grad_norm(self) -> float:
        return float(self._grad_norm) / max(self.steps, 1)

    def images_per_second(self, progress: Progress) -> float:
        return (progress.images - self.images) / max(progress.seconds - self.seconds, 1e-9)

    def record(self, progress: Progress) -> dict[str, float]:
        return {
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "images_per_second": round(self.images_per_second(progress), 2),
        }

    def summary(self, progress: Progress) -> str:
        speed = self.images_per_second(progress)
        return f"{progress.images:,} images, {speed:.1f}/s, loss {self.loss:.4f}"


class RunLog:
    """The log of a run's folder in one session; a context manager. With ``writes`` False it takes
    everything and writes nothing: of several processes one writes."""

    def __init__(self, out: Path, *, writes: bool) -> None:
        self.out, self.writes = out, writes
        self._scalars: Any = None

    def __enter__(self) -> RunLog:
        if self.writes and SummaryWriter is not None:
            self._scalars = SummaryWriter(self.out / SCALARS_NAME)
        return self

    def __exit__(self, *_: object) -> None:
        if self._scalars is not None:
            self._scalars.close()
            self._scalars = None

    def write(self, record: dict[str, Any]) -> None:
        """A line of metrics, which names its ``images`` and ``images_seen``."""
        if not self.writes:
            return
        with (self.out / METRICS_NAME).open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._scalars is None:
            return
        for key, value in record.items():
            if key != "images_seen" and value is not None:
                self._scalars.add_scalar(key, value, record["images_seen"])

    def trim(self, images: int) -> None:
        """Drop the lines after so many images, from which the run goes on, so that curves rise."""
        path = self.out / METRICS_NAME
        if not (self.writes and path.exists()):
            return
        lines = path.read_text().splitlines()
        kept = [line for line in lines if _images_of(line) <= images]
        if kept != lines:
            with atomic_path(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept))


def _images_of(line: str) -> float:
    """The "images" of a line of metrics; infinity for a line that was cut short."""
    try:
        return json.loads(line).get("images", 0)
    except (ValueError, AttributeError):
        return math.inf
