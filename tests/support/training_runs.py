"""Short trainings of a tiny network, in this process and in others."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from tiny_cli import TINY

from diffusion import Denoiser, TrainConfig
from diffusion.checkpoint import CheckpointInfo, read_tensors
from diffusion.config import ModelConfig
from diffusion.data.dataset import load_images
from diffusion.training.objectives import Denoising
from diffusion.training.run_folder import METRICS_NAME, PROGRESS_NAME, STATE_NAME
from diffusion.training.trainer import Trainer

LABELS = ("tabby", "white")


CPU = torch.device("cpu")


def load(pictures, **options):
    return load_images(pictures[0], image_size=16, labels_csv=pictures[1], **options)


def config(**changes) -> TrainConfig:
    return TrainConfig.from_dict({**TINY.train, "images": 32, **changes})


def info(**changes) -> CheckpointInfo:
    model = ModelConfig(**{**TINY.model.to_dict(), "num_classes": 2, **changes})
    return CheckpointInfo(model, labels=LABELS, preset="tiny", data="cats")


def denoising(settings, about, images, out, **options) -> Trainer:
    """A run that learns to denoise."""
    return Trainer(settings, Denoising(settings, about, images, **options), out)


def averaged(run: Trainer) -> Denoiser:
    return run.objective.averaged(run.ema.module, images=run.progress.images)


def after(steps: int):
    """A ``stop`` that asks to stop after so many steps."""
    asked = iter(range(10**9))
    return lambda: next(asked) + 1 >= steps


def state(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(out / STATE_NAME)[0]


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / METRICS_NAME).read_text().splitlines()]


def progress(out: Path) -> dict:
    return json.loads((out / PROGRESS_NAME).read_text())


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def command(*arguments: str, **options) -> subprocess.Popen:
    """A real process of the command line with the tiny preset, or of another ``script``."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    script = root / "tests" / "support" / options.pop("script", "tiny_cli.py")
    return subprocess.Popen(
        [*options.pop("launcher", [sys.executable]), str(script), *arguments],
        env=environment, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def wait_for(process: subprocess.Popen, condition, seconds: float = 60) -> None:
    started = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - started < seconds
        time.sleep(0.05)
