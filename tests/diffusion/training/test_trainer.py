"""The loop that trains: its settings, what goes wrong in it, and several processes."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawing import cats, write_folder
from helpers import LATENT, latent_denoiser
from studio_fixtures import save_tiny
from torch.testing import assert_close
from training_runs import CPU, averaged, command, config, denoising, info, load, metrics

from diffusion import Denoiser, device
from diffusion.checkpoint import WEIGHTS_NAME, read_checkpoint
from diffusion.cli.main import main
from diffusion.training.objectives import TrainingError, heldout_loss
from diffusion.training.run_folder import METRICS_NAME, STATE_NAME
from diffusion.training.trainer import choose_precision, step_generators

pytestmark = pytest.mark.usefixtures("one_sample")


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
    with torch._dynamo.config.patch(optimize_ddp=True):
        run = denoising(config(compile=wished), info(), load(pictures), tmp_path)
        assert torch._dynamo.config.optimize_ddp != wished  # several processes need it whole
    assert compiled == [run.network] * wished


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


def test_every_step_seed_and_process_has_randomness_of_its_own():
    def draws(*place):
        return [torch.rand(2, generator=g).tolist() for g in step_generators(*place, CPU)]

    places = [(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)]
    drawn = [tuple(values) for place in places for values in draws(*place)]
    assert len(set(drawn)) == 2 * len(places)
    assert draws(1, 2, 3) == draws(1, 2, 3)


def test_precision_is_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(device, "fast_bf16", lambda device: True)
    asked = {name: choose_precision(config(precision=name), CPU) for name in ("auto", "fp32")}
    assert asked == {"auto": "bf16", "fp32": "no"}
    monkeypatch.setattr(device, "fast_bf16", lambda device: False)
    assert choose_precision(config(precision="auto"), CPU) == "no"
    assert choose_precision(config(precision="bf16"), CPU) == "bf16"


# -- several processes ------------------------------------------------------------------------


TWO_PROCESSES = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
]  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_together(tmp_path, monkeypatch):
    """By the clock and with a save at each step, the two must agree on when to stop."""
    data = write_folder(tmp_path / "cats", cats(12))
    arguments = ["train", "--data", str(data), "--preset", "tiny", "--out", str(tmp_path / "run")]
    arguments += ["--minutes", "0.03", "--save-minutes", "0"]
    if torch.accelerator.is_available():
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    process = command(*arguments, launcher=TWO_PROCESSES)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors.count("12 pictures, 0 left out") == 2  # there were two
    assert errors.count("Finished: ") == 1
    seen = [line["images_seen"] for line in metrics(tmp_path / "run")]
    assert seen == sorted(set(seen))
    assert read_checkpoint(tmp_path / "run" / WEIGHTS_NAME)[1].images_seen == seen[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pictures", "latents"])
def test_two_processes_learn_what_one_learns(tmp_path, monkeypatch, kind):
    """The same loss at every step, but for rounding; one alone goes on with a run of two."""
    base = str(tmp_path / "base.safetensors")
    if kind == "latents":
        latent_denoiser(replace(LATENT, num_classes=2)).save(base)
    else:
        save_tiny(Path(base))
    data = write_folder(tmp_path / "cats", cats(12))
    if torch.accelerator.is_available():
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def arguments(out: str, images: int) -> list[str]:
        wanted = ["train", "--init", base, "--data", str(data), "--out", str(tmp_path / out)]
        wanted += ["--images", str(images), "--batch-size", "4", "--save-minutes", "0"]
        wanted += ["--warmup-images", "4", "--decay-fraction", "0", "--label-dropout", "0.5"]
        return [*wanted, "--precision", "fp32"]

    assert main(arguments("one", 20)) == 0
    process = command(*arguments("two", 12), launcher=TWO_PROCESSES)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert errors.count("12 pictures, 0 left out") == 2
    assert main(arguments("two", 20)) == 0
    one, two = (metrics(tmp_path / out) for out in ("one", "two"))
    assert [line["images"] for line in one] == [4, 8, 12, 16, 20]
    assert [line["images"] for line in two] == [4, 8, 12, 16, 20]
    assert one[-1]["heldout_loss"] < 0.98 * one[0]["heldout_loss"]  # something is learned
    for name in ("loss", "heldout_loss", "grad_norm"):
        assert [line[name] for line in two] == pytest.approx([li[name] for li in one], rel=1e-3)
