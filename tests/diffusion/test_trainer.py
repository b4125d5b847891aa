"""A run that can be stopped, broken and resumed without losing or changing anything."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from drawing import cats, write_folder, write_labels, write_zip
from tiny_cli import TINY
from torch.testing import assert_close

from diffusion import Denoiser, TrainConfig, objectives, trainer
from diffusion.checkpoint import (
    WEIGHTS_NAME,
    CheckpointInfo,
    read_checkpoint,
    read_tensors,
    write_tensors,
)
from diffusion.cli import main
from diffusion.config import ModelConfig
from diffusion.data import load_images
from diffusion.objectives import Denoising, TrainingError, heldout_loss
from diffusion.optim import build_optimizers
from diffusion.presets import PRESETS
from diffusion.progress import Progress, lr_factor
from diffusion.run_folder import METRICS_NAME, RUN_NAME, STATE_NAME
from diffusion.trainer import Trainer, choose_precision, step_generators, stop_on_signal

LABELS = ("tabby", "white")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_sample(monkeypatch):
    monkeypatch.setattr(objectives, "SAMPLE_SEEDS", (0,))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A zip of 24 cats, some with a label, and the labels."""
    root = tmp_path_factory.mktemp("pictures")
    labels = {f"cat-{i:03d}.png": LABELS[i % 2] for i in range(16)}
    return write_zip(root / "cats.zip", cats(24)), write_labels(root / "labels.csv", labels)


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


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


# -- stopping and going on --------------------------------------------------------------------


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


def command(*arguments: str, **options) -> subprocess.Popen:
    """A real process of the command line with the tiny preset."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    script = root / "tests" / "support" / "tiny_cli.py"
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
    with pytest.raises(ValueError, match="contains a run with another network or another --init"):
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


# -- when it goes wrong -----------------------------------------------------------------------


def test_nan_ends_in_a_sentence_and_the_last_good_checkpoint(pictures, tmp_path):
    run = denoising(config(images=8), info(), load(pictures), tmp_path)
    run.train()
    files = (STATE_NAME, WEIGHTS_NAME, METRICS_NAME)
    good = [(tmp_path / name).read_bytes() for name in files]
    run = denoising(config(images=400), info(), load(pictures), tmp_path)
    next(run.network.parameters()).data.fill_(float("nan"))
    with pytest.raises(
        TrainingError, match=r"became infinite or undefined after .* last good check"
    ):
        run.train()
    assert [(tmp_path / name).read_bytes() for name in files] == good
    assert Denoiser.load(tmp_path / WEIGHTS_NAME).info.images_seen == 8
    assert run.progress.step - 2 <= 10  # found soon


@pytest.mark.parametrize("steps", [1, 8])
def test_an_absurd_learning_rate_never_writes_a_broken_checkpoint(pictures, tmp_path, steps):
    """Also where the weights are broken by the very step that is saved."""
    absurd = config(lr=1e30, warmup_images=0, images=4 * steps, holdout=0, grad_clip=0.0)
    with pytest.raises(TrainingError, match=r"Nothing was saved\. Try a lower learning rate\.$"):
        denoising(absurd, info(), load(pictures), tmp_path).train()
    assert not (tmp_path / WEIGHTS_NAME).exists()
    assert not (tmp_path / STATE_NAME).exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_a_sentence(pictures, tmp_path, monkeypatch, error):
    run = denoising(config(images=8, save_minutes=0.0), info(), load(pictures), tmp_path)

    def step_then_fail(*batch, step=run._step):
        if run.progress.step == 1:
            raise error
        return step(*batch)

    run._step = step_then_fail
    with pytest.raises(
        TrainingError, match=r"^There was not enough memory. The last checkpoint is kept\."
    ):
        run.train()
    assert Denoiser.load(tmp_path / WEIGHTS_NAME).info.images_seen == 4

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Denoiser, "from_config", fail)  # when the network itself does not fit
    with pytest.raises(TrainingError, match="There was not enough memory"):
        denoising(config(), info(), load(pictures), tmp_path)


def test_other_errors_are_not_taken_for_memory(pictures, tmp_path):
    run = denoising(config(), info(), load(pictures), tmp_path)

    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    run._step = fail
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run.train()


def test_a_batch_that_cannot_be_shared_out_is_a_sentence(pictures, tmp_path):
    with pytest.raises(ValueError, match="batch_size 4 must be a multiple of"):
        denoising(config(accumulate=3), info(), load(pictures), tmp_path)


def test_no_line_of_metrics_says_nan(pictures, tmp_path, monkeypatch):
    """On a slow machine, a line falls due before the tenth step."""
    monkeypatch.setattr(trainer, "LOG_SECONDS", -1)
    run = denoising(config(images=400), info(), load(pictures), tmp_path)
    next(run.network.parameters()).data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="became infinite or undefined"):
        run.train()
    assert not (tmp_path / METRICS_NAME).exists()


# -- training itself --------------------------------------------------------------------------


def test_every_setting_reaches_what_it_sets(pictures, tmp_path):
    chosen = config(
        optimizer="muon", lr=1e-3, muon_lr=2e-3, label_lr=3e-3, weight_decay=0.125,
        ema_halflife_images=123, augment=0.25, P_mean=-0.3, P_std=0.9,
    )  # fmt: skip
    run = denoising(chosen, info(), load(pictures), tmp_path)
    assert run.peak_lrs == [1e-3, 3e-3, 2e-3]
    groups = [group for optimizer in run.optimizers for group in optimizer.param_groups]
    assert {group["weight_decay"] for group in groups} == {0.125}
    assert (run.ema.halflife_images, run.objective.augment.p) == (123, 0.25)
    batch = next(run.objective.batches(chosen, first_step=0, share=slice(None)))
    many = [part[:1].expand(4096, *part.shape[1:]) for part in batch]
    generators = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    _, sigma, *_ = run.objective.prepare(many, chosen, *generators)
    assert sigma.log().mean().item() == pytest.approx(-0.3, abs=0.05)
    assert sigma.log().std().item() == pytest.approx(0.9, abs=0.05)
    assert run.accelerator.mixed_precision == "no"


@pytest.mark.parametrize("mirror", [False, True])
def test_pictures_are_mirrored_if_so_wished(pictures, tmp_path, mirror):
    run = denoising(config(augment=0.0, mirror=mirror), info(), load(pictures), tmp_path)
    shown = run.objective.images.pixels[:1].expand(64, -1, -1, -1)
    x0, _, _ = run.objective.examples(
        shown, torch.zeros(64).long(), run.config, torch.Generator().manual_seed(0)
    )
    assert len(x0.unique(dim=0)) == 1 + mirror


@pytest.mark.parametrize("limit", [0.0, 1e-9])
def test_the_gradient_is_clipped_if_so_wished(pictures, tmp_path, limit):
    run = denoising(config(images=8, grad_clip=limit), info(), load(pictures), tmp_path)
    norms, step = [], run.optimizers[0].step

    def note():
        gradients = [p.grad for p in run.network.parameters() if p.grad is not None]
        norms.append(torch.stack([g.norm() for g in gradients]).norm())
        step()

    run.optimizers[0].step = note
    run.train()
    assert len(norms) == 2
    assert all((norm < 1e-8) == bool(limit) for norm in norms)


@pytest.mark.parametrize("wished", [False, True])
def test_the_network_is_compiled_if_so_wished(pictures, tmp_path, monkeypatch, wished):
    """Which takes a compiler, and minutes: so only that it is asked for."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    run = denoising(config(compile=wished), info(), load(pictures), tmp_path)
    assert compiled == [run.network] * wished


def test_the_learning_rate_rises_stays_and_falls():
    flat = config(images=1000, warmup_images=100, decay_fraction=0.4, batch_size=10, holdout=0)
    factor = {images: lr_factor(Progress(images=images), flat) for images in range(0, 1000, 10)}
    assert factor[0] == 0.1  # never a step of nothing
    assert factor[40] == 0.5
    assert {factor[images] for images in range(90, 600, 10)} == {1.0}
    assert factor[800] == pytest.approx(0.5)
    assert factor[990] == pytest.approx(0.025)
    timed = config(images=None, minutes=10.0, warmup_images=0, decay_fraction=0.5)
    at = {minute: lr_factor(Progress(seconds=60.0 * minute), timed) for minute in (0, 5, 7.5, 10)}
    assert at == {0: 1.0, 5: 1.0, 7.5: 0.5, 10: 0.0}
    constant = config(images=8, warmup_images=0, decay_fraction=0.0)
    assert lr_factor(Progress(images=8), constant) == 1.0


def test_a_budget_in_minutes_is_kept_over_sessions(pictures, tmp_path):
    seconds = 3.0  # of which a step takes little on a busy machine too
    timed = config(images=None, minutes=seconds / 60, decay_fraction=1.0)
    started = time.monotonic()
    run = denoising(timed, info(), load(pictures), tmp_path)
    assert not run.train(stop=lambda: run.progress.seconds > 0.2)
    again = denoising(timed, info(), load(pictures), tmp_path)
    assert 0.2 < again.progress.seconds < 0.6
    assert again.train()
    assert seconds <= again.progress.seconds < time.monotonic() - started
    assert metrics(tmp_path)[-1]["lr"] < 0.1 * again.peak_lrs[0]


def test_accumulated_halves_equal_the_whole_batch(pictures, tmp_path):
    images, plain = load(pictures), info(dropout=0.0)
    runs = []
    for parts in (1, 2, 4):
        run = denoising(config(images=12, accumulate=parts), plain, images, tmp_path / str(parts))
        run.train()
        runs.append(run)
    for run in runs[1:]:
        first, other = (metrics(r.out)[0] for r in (runs[0], run))
        assert_close(other["loss"], first["loss"], rtol=1e-4, atol=0)
        assert_close(other["grad_norm"], first["grad_norm"], rtol=1e-3, atol=0)
        for a, b in zip(run.network.parameters(), runs[0].network.parameters(), strict=True):
            assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_goes_down(pictures, tmp_path, optimizer):
    images = load(pictures).subset(range(8))
    settings = config(images=800, batch_size=8, augment=0.0, lr=1e-2, optimizer=optimizer)
    run = denoising(settings, info(dropout=0.0, channels=16), images, tmp_path)
    before = heldout_loss(averaged(run), images, device=CPU)
    run.train()
    assert heldout_loss(averaged(run), images, device=CPU) < 0.85 * before


def test_every_line_of_metrics_is_json_and_says_the_same(pictures, tmp_path):
    run = denoising(config(images=12, save_minutes=0.0), info(), load(pictures), tmp_path)
    run.train()
    lines = metrics(tmp_path)
    assert [line["images_seen"] for line in lines] == [4, 8, 12]
    keys = {"images_seen", "minutes", "loss", "grad_norm", "images_per_second", "heldout_loss"}
    for line in lines:
        assert set(line) == keys | {"images", "lr"}
        assert all(isinstance(value, (int, float)) for value in line.values())
        assert 0.1 < line["loss"] < 10
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "000000004.png", "000000008.png", "000000012.png",
    ]  # fmt: skip
    told = json.loads((tmp_path / RUN_NAME).read_text())
    assert TrainConfig.from_dict(told["train"]) == run.config
    assert CheckpointInfo.from_dict(told["info"]) == run.objective.info


def test_a_session_writes_one_file_of_scalars(pictures, tmp_path):
    scalars = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    denoising(config(images=12, save_minutes=0.0), info(), load(pictures), tmp_path).train()
    (file,) = (tmp_path / "tensorboard").iterdir()
    read = scalars.EventAccumulator(str(file)).Reload()
    for key in ("loss", "heldout_loss"):
        told = [(event.step, event.value) for event in read.Scalars(key)]
        assert told == [(m["images_seen"], pytest.approx(m[key])) for m in metrics(tmp_path)]


def test_what_is_held_out_is_never_trained_on(pictures, tmp_path):
    images = load(pictures)
    run = denoising(config(holdout=2), info(), images, tmp_path)
    assert len(run.objective.heldout_images) == 2
    assert not set(run.objective.heldout_images.names) & set(run.objective.images.names)
    assert len(run.objective.images) == 22


def test_a_held_out_loss_about_as_low_as_the_lowest_is_good():
    """Few pictures are held out, and their loss wavers: only what is clearly higher has risen."""
    progress, kept = Progress(), []
    for images, loss in enumerate([0.5, 0.4, 0.405, 0.41, 0.409, 0.39, 0.399]):
        progress.images = images
        if progress.take_in(loss):
            kept.append(images)
    budget = config(images=8)
    assert kept == [0, 1, 2, 5]
    assert (progress.best_loss, progress.best_images) == (0.39, 5)
    assert (progress.last_loss, progress.risen(budget)) == (0.399, 1 / 8)
    progress.take_in(0.395)
    assert (progress.best_loss, progress.best_images, progress.risen(budget)) == (0.39, 6, 0)
    assert Progress().take_in(None)


@pytest.mark.parametrize("every", [4, 8])
def test_patience_is_a_share_of_the_budget_however_often_it_saves(
    pictures, tmp_path, monkeypatch, every
):
    losses = iter([0.5, 0.4, *[0.6] * 20])
    monkeypatch.setattr(objectives, "heldout_loss", lambda *_, **__: next(losses))
    settings = config(images=80, save_images=every, patience=0.39)
    run = denoising(settings, info(), load(pictures), tmp_path)
    assert run.train()
    assert run.progress.images == 2 * every + 32


def test_patience_is_a_share_of_the_budget_as_it_is_now(pictures, tmp_path, monkeypatch):
    """What was spent of a smaller budget counts for less of a larger one, and is not forgotten."""
    losses = iter([0.4, *[0.6] * 20])
    monkeypatch.setattr(objectives, "heldout_loss", lambda *_, **__: next(losses))
    images, settings = load(pictures), config(images=16, save_images=8, patience=0.6)
    assert denoising(settings, info(), images, tmp_path).train()
    longer = replace(settings, images=80)
    run = denoising(longer, info(), images, tmp_path)
    assert run.progress.risen(longer) == 0.1
    assert run.train()
    assert run.progress.images == 8 + 48


def test_the_speed_leaves_out_the_time_of_saving(pictures, tmp_path, monkeypatch):
    run = denoising(config(images=40, save_images=4), info(), load(pictures), tmp_path)
    save = run._save_state
    monkeypatch.setattr(run, "_save_state", lambda: (time.sleep(0.5), save()))
    run.train()
    assert min(line["images_per_second"] for line in metrics(tmp_path)) > 8  # 4 in 0.5 s else


def test_held_out_pictures_of_ones_own_are_looked_at_as_it_trains(pictures, tmp_path):
    """With their labels and at the run's noise levels; others, at those that runs share."""
    training, heldout = load(pictures).split(8, at_most=0.5)
    settings = config(images=8, P_mean=0.4)
    run = denoising(settings, info(), training, tmp_path / "own", heldout=heldout)
    run.train()
    loss = heldout_loss(averaged(run), heldout, device=CPU, labelled=True, P_mean=0.4)
    assert metrics(tmp_path / "own")[-1]["heldout_loss"] == loss
    assert heldout_loss(averaged(run), heldout, device=CPU, labelled=True) != loss
    run = denoising(settings, info(), load(pictures), tmp_path / "shared")
    run.train()
    loss = heldout_loss(averaged(run), run.objective.heldout_images, device=CPU)
    assert metrics(tmp_path / "shared")[-1]["heldout_loss"] == loss


def test_the_untrained_network_has_a_held_out_loss_of_one(pictures):
    """The zero network under EDM preconditioning, on data of standard deviation sigma_data."""
    noise = (torch.rand(320, 3, 16, 16) * 2 - 1) * 0.5 * 3**0.5
    images = load(pictures)
    uniform = replace(
        images,
        names=tuple(map(str, range(320))),
        pixels=((noise + 1) * 127.5).round().to(torch.uint8),
        classes=torch.full((320,), -1),
    )
    denoiser = Denoiser.from_config(info().model).eval()
    loss = heldout_loss(denoiser, uniform, device=CPU)
    assert loss == pytest.approx(1, abs=0.02)
    assert heldout_loss(denoiser, uniform, device=CPU) == loss
    assert heldout_loss(denoiser, uniform, device=CPU, batch_size=320) == pytest.approx(1, abs=0.02)
    assert heldout_loss(denoiser, uniform.subset([]), device=CPU) is None


def test_every_step_seed_and_process_has_randomness_of_its_own():
    def draws(*place):
        return [torch.rand(2, generator=g).tolist() for g in step_generators(*place, CPU)]

    places = [(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)]
    drawn = [tuple(values) for place in places for values in draws(*place)]
    assert len(set(drawn)) == 2 * len(places)
    assert draws(1, 2, 3) == draws(1, 2, 3)


def test_labels_are_dropped_and_the_unlabelled_are_null(pictures, tmp_path):
    run = denoising(config(label_dropout=0.5), info(), load(pictures), tmp_path)
    classes = torch.tensor([0, 1, -1]).repeat(400)
    shown = torch.zeros(1200, 3, 16, 16, dtype=torch.uint8)
    _, labels, _ = run.objective.examples(
        shown, classes, run.config, torch.Generator().manual_seed(0)
    )
    assert (labels[2::3] == 2).all()
    for label in (0, 1):
        kept = labels[label::3]
        assert set(kept.tolist()) == {label, 2}
        assert 160 < (kept == label).sum() < 240


def test_precision_is_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(trainer, "fast_bf16", lambda device: True)
    asked = {name: choose_precision(config(precision=name), CPU) for name in ("auto", "fp32")}
    assert asked == {"auto": "bf16", "fp32": "no"}
    monkeypatch.setattr(trainer, "fast_bf16", lambda device: False)
    assert choose_precision(config(precision="auto"), CPU) == "no"
    assert choose_precision(config(precision="bf16"), CPU) == "bf16"


# -- several processes ------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_together(tmp_path, monkeypatch):
    """By the clock and with a save at each step, the two must agree on when to stop."""
    data = write_folder(tmp_path / "cats", cats(12))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = ["train", "--data", str(data), "--preset", "tiny", "--out", str(tmp_path / "run")]
    arguments += ["--minutes", "0.03", "--save-minutes", "0"]
    if torch.accelerator.is_available():
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    process = command(*arguments, launcher=launcher)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors.count("12 pictures, 0 left out") == 2  # there were two
    assert errors.count("Finished: ") == 1
    seen = [line["images_seen"] for line in metrics(tmp_path / "run")]
    assert seen == sorted(set(seen))
    assert read_checkpoint(tmp_path / "run" / WEIGHTS_NAME)[1].images_seen == seen[-1]


def test_augmentation_that_the_network_cannot_be_told_of_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"takes no augmentation parameters\. Set --augment to 0"):
        denoising(config(augment=0.1), info(augment_channels=0), load(pictures), tmp_path)
    denoising(config(augment=0.0), info(augment_channels=0), load(pictures), tmp_path)
