"""The command of fine-tuning: what it says, and that it goes on after any end."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from studio_fixtures import LABELS
from tqdm import tqdm
from training_runs import metrics, progress

from diffusion import Denoiser
from diffusion.checkpoint import WEIGHTS_NAME, read_tensors
from diffusion.cli.main import main
from diffusion.config import LENGTHS, FinetuneConfig
from diffusion.training import finetune
from diffusion.training.run_folder import METRICS_NAME, PROGRESS_NAME, STATE_NAME, STEPS_NAME

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("few_replays")


def config(**changes) -> FinetuneConfig:
    return FinetuneConfig(**{"label": "Mia", "images": 64, "batch_size": 4, **changes})


def test_estimates_are_measured_here(base, capsys):
    assert main(["finetune", "--base", str(base), "--estimate"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images_per_second"] > 0
    assert 0 < told["quick"] <= told["balanced"] <= told["thorough"]
    assert list(told) == ["images_per_second", *LENGTHS]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"label": "  "}, "The label must be a name of 1 to 40 characters"),
        ({"label": "x" * 41}, "The label must be a name"),
        ({"label": "a\nb"}, "The label must be a name"),
        ({"keep": 0.9}, "keep must be 0, or between 0.05 and 0.75"),
        ({"keep": 0.01}, "keep must be 0, or between 0.05 and 0.75"),
        ({"layers": "some"}, "layers must be one of all, deep, label"),
        ({"minutes": 1.0}, "either in images or in minutes"),
        ({"batch_size": 0}, "batch_size must be between 1 and 256"),
        ({"lr": -1.0}, "must not be negative"),
    ],
)
def test_impossible_settings_are_a_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(**changes)


def test_what_is_missing_is_said(base, capsys):
    assert main(["finetune", "--base", str(base), "--label", "Mia"]) == 1
    assert capsys.readouterr().err == "Error: --data is required.\n"


def start(base: Path, data: Path, out: Path, images: int) -> subprocess.Popen:
    """A real process, as the studio starts it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["--base", str(base), "--data", str(data), "--out", str(out), "--label", "Mia"]
    arguments += ["--images", str(images), "--batch-size", "4"]
    return subprocess.Popen(
        [sys.executable, "-m", "diffusion", "finetune", *arguments],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_sigterm_saves_and_leaves(base, photos, tmp_path):
    process = start(base, photos, tmp_path, 1_000_000)
    deadline = time.monotonic() + 60
    while not (tmp_path / METRICS_NAME).exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (tmp_path / PROGRESS_NAME).exists() and progress(tmp_path)["state"] == "training":
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.splitlines()[-1] == "Stopped. Run the same command to go on."
    assert progress(tmp_path)["state"] == "stopped"
    assert Denoiser.load(tmp_path / WEIGHTS_NAME).info.labels == (*LABELS, "Mia")


def killed_again_and_again(base: Path, photos: Path, out: Path, *, times: int) -> int:
    """SIGKILL a run at random moments; returns how many images it had seen at last, more than 100.

    In a process of our own, forked for each life, so that imports are paid once. On a busy machine
    a life achieves little, and it takes more of them, and longer ones.
    """
    import torchvision.utils  # noqa: F401 - which a run imports when it first saves samples

    tqdm.set_lock(threading.RLock())  # its own outlives a fork, and whoever is killed with it
    chance = random.Random(0)
    seen = lives = 0
    longest = 1.2  # seconds of a life; more where a life achieves nothing
    while lives < times or seen <= 100:
        lives += 1
        assert lives < 10 * times, f"only {seen} images in so many lives"
        child = os.fork()
        if child == 0:
            try:
                finetune.REPORT_SECONDS = 0.0
                finetune.finetune(base, photos, out, config(images=1_000_000))
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.05, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the run ended by itself"
        for path in [*out.glob("*.safetensors"), *out.glob(f"{STEPS_NAME}/*.safetensors")]:
            if path.name == STATE_NAME:
                read_tensors(path)
            elif not path.name.startswith("."):
                Denoiser.load(path)
        if (out / STATE_NAME).exists():
            images = read_tensors(out / STATE_NAME)[1]["progress"]["images"]
            assert images >= seen
            longest *= 1.1 if images == seen else 1.0
            seen = images
        else:
            longest *= 1.1
    return seen


@pytest.mark.slow
def test_killed_at_random_moments_it_always_goes_on(base, photos, tmp_path, monkeypatch):
    training = FinetuneConfig.training
    often = lambda self: replace(training(self), save_images=16)  # noqa: E731
    monkeypatch.setattr(FinetuneConfig, "training", often)
    seen = killed_again_and_again(base, photos, tmp_path, times=10)
    for path in tmp_path.rglob(".*"):
        os.utime(path, (0, time.time() - 61))  # old enough not to be another process's
    assert finetune.finetune(base, photos, tmp_path, config(images=seen + 64))
    lines = [line["images"] for line in metrics(tmp_path)]
    assert lines == sorted(set(lines))
    assert lines[-1] == seen + 64
    leftovers = [path.name for path in tmp_path.rglob(".*") if path.is_file()]
    assert leftovers == []
