"""A run that is stopped and goes on without losing or changing anything."""

import os
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_cli import TINY
from training_runs import (
    LABELS,
    after,
    assert_same_bits,
    averaged,
    command,
    config,
    denoising,
    info,
    load,
    metrics,
    state,
    wait_for,
)

from diffusion import Denoiser
from diffusion.checkpoint import WEIGHTS_NAME, read_checkpoint, read_tensors, write_tensors
from diffusion.cli.interrupt import stop_on_signal
from diffusion.cli.main import main
from diffusion.presets import PRESETS
from diffusion.training import trainer
from diffusion.training.optim import build_optimizers
from diffusion.training.run_folder import RUN_NAME, STATE_NAME
from diffusion.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_sample")


@pytest.mark.parametrize("patience", [0.0, 0.5])
def test_a_run_killed_while_it_saves_loses_no_weights(pictures, tmp_path, monkeypatch, patience):
    images, settings = load(pictures), config(images=8, patience=patience)
    whole = denoising(settings, info(), images, tmp_path / "whole")
    assert whole.train()

    def killed(*_):
        raise KeyboardInterrupt

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            denoising(settings, info(), images, broken).train()
    assert denoising(settings, info(), images, broken).train()
    weights = [read_tensors(tmp_path / run / WEIGHTS_NAME)[0] for run in ("whole", "broken")]
    assert_same_bits(*weights)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="adamw"),
        pytest.param({"optimizer": "muon", "accumulate": 2}, id="muon"),
        pytest.param({"photos": True, "save_minutes": 0.0}, id="photos, saved at each step"),
        pytest.param({"stream": True}, id="streaming"),
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(pictures, tmp_path, settings):
    """2k steps = k + save + load + k, bit for bit, with dropout, augmentation and mirroring."""
    settings = dict(settings)
    photos = settings.pop("photos", None)
    memory = {"in_memory_bytes": 0} if settings.pop("stream", False) else {}
    images, plain = load(pictures, photos=photos, **memory), load(pictures, photos=photos)
    assert info().model.dropout
    assert config().augment
    assert config().mirror
    whole = denoising(
        config(**{**settings, "save_minutes": 10.0}), info(), plain, tmp_path / "whole"
    )
    assert whole.train()
    assert not denoising(config(**settings), info(), images, tmp_path / "parts").train(
        stop=after(3)
    )
    first = read_tensors(tmp_path / "parts" / STATE_NAME)[1]["progress"]
    assert (first["step"], first["images"]) == (3, 12)
    torch.manual_seed(99)  # nothing depends on what happened in between
    second = denoising(config(**settings), info(), images, tmp_path / "parts")
    assert second.train()
    assert (second.progress.step, second.progress.images) == (8, 32)
    assert_same_bits(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert_same_bits(
        *(read_checkpoint(tmp_path / run / WEIGHTS_NAME)[0] for run in ("whole", "parts"))
    )
    shipped, _ = read_checkpoint(tmp_path / "whole" / WEIGHTS_NAME)
    for name, tensor in shipped.items():  # the average, not the last weights
        assert torch.equal(tensor, state(tmp_path / "whole")[f"ema.{name}"].half().float())
    kinds = {name.split(".")[0] for name in state(tmp_path / "whole")}
    assert kinds == {"model", "ema", "optimizer"}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_fused_optimizer_goes_on_as_it_was(pictures, tmp_path, monkeypatch, optimizer):
    """As on a GPU, where it refuses what is not laid out as the weights are; on a CPU it would
    silently compute something else."""
    fused = lambda unet, *, fused, **options: build_optimizers(unet, fused=True, **options)  # noqa: E731
    monkeypatch.setattr(trainer, "build_optimizers", fused)
    run = partial(denoising, config(optimizer=optimizer), info(), load(pictures))
    run(tmp_path / "whole").train()
    run(tmp_path / "parts").train(stop=after(3))
    run(tmp_path / "parts").train()
    assert_same_bits(state(tmp_path / "whole"), state(tmp_path / "parts"))


@pytest.fixture
def _interruptible():
    """A shell that starts tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_saves_and_a_second_one_is_final(pictures, tmp_path):
    run = denoising(config(), info(), load(pictures), tmp_path)
    before = signal.getsignal(signal.SIGINT)

    def step_and_interrupt(*batch, step=run._step):
        if run.progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*batch)

    run._step = step_and_interrupt
    with stop_on_signal() as stop:
        assert not run.train(stop=stop)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert run.progress.step == 3
    assert read_tensors(tmp_path / STATE_NAME)[1]["progress"]["step"] == 3
    assert read_checkpoint(tmp_path / WEIGHTS_NAME)[1].images_seen == 12


def test_whoever_asks_to_stop_has_the_state_before_anything_is_measured(
    pictures, tmp_path, monkeypatch
):
    images, settings = load(pictures), config()
    assert not denoising(settings, info(), images, tmp_path / "whole").train(stop=after(3))
    run = denoising(settings, info(), images, tmp_path / "killed")

    def killed(averaged):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.objective, "heldout", killed)
        with pytest.raises(KeyboardInterrupt):
            run.train(stop=after(3))
    assert read_tensors(tmp_path / "killed" / STATE_NAME)[1]["progress"]["step"] == 3
    for name in ("whole", "killed"):
        assert denoising(settings, info(), images, tmp_path / name).train()
    assert_same_bits(state(tmp_path / "whole"), state(tmp_path / "killed"))


@pytest.mark.slow
def test_the_same_command_goes_on_after_sigterm(pictures, tmp_path, monkeypatch, capsys):
    """A real process is ended by SIGTERM, its successor by Ctrl-C: together, an unbroken run."""
    out = tmp_path / "run"
    arguments = ["train", "--data", str(pictures[0]), "--labels", str(pictures[1])]
    arguments += ["--preset", "tiny", "--out", str(out), "--images", "1000000"]
    process = command(*arguments)
    wait_for(process, (out / RUN_NAME).exists)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.splitlines()[-1].startswith("Stopped. Run the same command to go on: ")
    assert "Traceback" not in errors
    first = read_checkpoint(out / WEIGHTS_NAME)[1].images_seen
    assert first > 0

    def interrupt(self, *batch, step=Trainer._step):
        if self.progress.images == first + 8:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupt)
        patch.setitem(PRESETS, "tiny", TINY)
        assert main(arguments) == 0
    assert (
        f"Stopped. Run the same command to go on: {first + 12:,} images"
    ) in capsys.readouterr().err
    assert [line["images_seen"] for line in metrics(out)] == [first, first + 12]
    unbroken = denoising(config(images=1_000_000), info(), load(pictures), tmp_path / "unbroken")
    unbroken.train(stop=after((first + 12) // 4))
    assert_same_bits(state(out), state(tmp_path / "unbroken"))


def test_a_larger_budget_goes_on_and_other_settings_do_not(pictures, tmp_path):
    images = load(pictures)
    denoising(config(images=8), info(), images, tmp_path).train()
    for changes, name in (({"lr": 1e-3}, "lr"), ({"seed": 1, "mirror": False}, "mirror, seed")):
        with pytest.raises(
            ValueError, match=f"was started with other values of {name}. Use the same"
        ):
            denoising(config(**changes), info(), images, tmp_path)
    with pytest.raises(ValueError, match="contains a run with another network, another --init"):
        denoising(config(), info(dropout=0.2), images, tmp_path)
    longer = denoising(config(images=16, save_minutes=1.0), info(), images, tmp_path)
    assert longer.progress.images == 8
    assert longer.train()
    assert [line["images_seen"] for line in metrics(tmp_path)] == [8, 16]
    finished = denoising(config(images=16), info(), images, tmp_path)
    old = (tmp_path / STATE_NAME).read_bytes()
    assert finished.train()  # nothing is left to do
    assert (tmp_path / STATE_NAME).read_bytes() == old


def test_a_run_is_older_than_a_setting(pictures, tmp_path):
    """A state that was written before a setting existed goes on with its default."""
    images = load(pictures)
    denoising(config(images=8), info(), images, tmp_path).train()
    tensors, values = read_tensors(tmp_path / STATE_NAME)
    del values["train"]["P_std"]
    values["progress"]["last_meal"] = 3.5  # nor does a state say what it once did
    write_tensors(tmp_path / STATE_NAME, tensors, values)
    assert denoising(config(images=16), info(), images, tmp_path).progress.images == 8


def test_a_state_that_is_none_is_a_sentence(pictures, tmp_path):
    images = load(pictures)
    denoising(config(images=8), info(), images, tmp_path).train()
    (tmp_path / STATE_NAME).write_bytes((tmp_path / WEIGHTS_NAME).read_bytes())
    with pytest.raises(ValueError, match="is not the state of a training run"):
        denoising(config(), info(), images, tmp_path)
    (tmp_path / STATE_NAME).write_bytes(b"cut")
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        denoising(config(), info(), images, tmp_path)


def test_a_run_starts_from_a_checkpoint(pictures, tmp_path):
    images = load(pictures)
    denoising(config(images=16), info(), images, tmp_path / "first").train()
    init, start = read_checkpoint(tmp_path / "first" / WEIGHTS_NAME)
    started = replace(start, data="more cats")
    run = denoising(config(images=8), started, images, tmp_path / "second", init=init)
    for name, tensor in averaged(run).model.state_dict().items():
        assert torch.equal(tensor, init[name])
    run.train()
    weights, told = read_checkpoint(tmp_path / "second" / WEIGHTS_NAME)
    assert (told.images_seen, told.labels, told.data) == (24, LABELS, "more cats")
    assert any(not torch.equal(weights[name], init[name]) for name in init)
    del init["conv_out.bias"]
    with pytest.raises(ValueError, match="weights to start from do not fit"):
        denoising(config(), started, images, tmp_path / "third", init=init)


def test_the_guide_of_a_checkpoint_stays_as_it_is(pictures, tmp_path):
    guide = replace(TINY.model, channels=8)
    start = replace(info(), guide=guide)
    Denoiser.from_config(start.model, info=start).save(tmp_path / "start.safetensors")
    init, start = read_checkpoint(tmp_path / "start.safetensors")
    run = denoising(config(images=8), start, load(pictures), tmp_path / "run", init=init)
    run.train()
    with pytest.raises(ValueError, match="come with those to start from"):
        denoising(config(images=16), start, load(pictures), tmp_path / "run")
    weights, told = read_checkpoint(tmp_path / "run" / WEIGHTS_NAME)
    assert told.guide == guide
    changed = {k for k, v in weights.items() if not torch.equal(v, init[k])}
    assert changed
    assert not any(name.startswith("guide.") for name in changed)
