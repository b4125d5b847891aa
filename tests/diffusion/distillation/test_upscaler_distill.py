"""A student's light upscaler: what it sees, what it learns, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import SMALL, UPSCALER, Darker, small_denoiser, small_upscaler, upscaled_denoiser
from torch.testing import assert_close

from diffusion import Denoiser, TrainConfig
from diffusion import denoiser as denoiser_module
from diffusion.checkpoint import WEIGHTS_NAME, read_tensors
from diffusion.cli.main import main
from diffusion.codecs import reconstruction
from diffusion.distillation import upscaler_distill
from diffusion.distillation.trajectories import FIRST_SEED, Trajectories, draw_trajectories
from diffusion.distillation.upscaler_distill import (
    SETTINGS,
    UpscalerDistilling,
    draw_student,
    light_upscaler,
)
from diffusion.networks.upscaler import Upscaler
from diffusion.sampling import draw_x0, from_seeds
from diffusion.training.perceptual import PerceptualDistance
from diffusion.training.run_folder import STATE_NAME
from diffusion.training.trainer import Trainer

TINY = replace(SMALL, num_classes=2)
LIGHT = replace(UPSCALER, widths=(4, 12))  # other than the teacher's
COUNT = 24


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(upscaler_distill, "CROP", 8)
    monkeypatch.setattr(upscaler_distill, "LIGHT", LIGHT)
    monkeypatch.setattr(reconstruction, "LOOK", 6)
    monkeypatch.setattr(upscaler_distill, "LOOK", 6)


@pytest.fixture(scope="module")
def teacher() -> Denoiser:
    return upscaled_denoiser(TINY)


@pytest.fixture(scope="module")
def trajectories(teacher, tmp_path_factory) -> Trajectories:
    folder = tmp_path_factory.mktemp("trajectories")
    return draw_trajectories(teacher, folder, steps=2, count=COUNT, teacher_hash="t")


def settings(**changes) -> TrainConfig:
    values = {"images": 32, "warmup_images": 0, "ema_halflife_images": 8, "precision": "fp32"}
    return TrainConfig.from_dict({**SETTINGS, **values, **changes})


def distilling(
    teacher: Denoiser, trajectories: Trajectories, config: TrainConfig | None = None, **options
) -> UpscalerDistilling:
    """The student draws just what the teacher does."""
    drawn = trajectories.states[-1]
    options = {"drawn": drawn, "perceptual": Darker(), "student_hash": "s", **options}
    return UpscalerDistilling(config or settings(), teacher, teacher, trajectories, **options)


def prepared(objective: UpscalerDistilling, config: TrainConfig, *, seed: int = 0):
    batch = next(objective.batches(config, first_step=0, share=slice(None)))
    generator = torch.Generator().manual_seed(seed)
    return objective.prepare(batch, config, generator, generator)


def test_it_sees_the_same_crops_of_both(teacher, trajectories):
    wanted = trajectories.states[-1].float().clamp(-1, 1)
    config = settings(batch_size=16)
    objective = distilling(teacher, trajectories, drawn=trajectories.states[-1] * 0.5)
    drawn, theirs, looks = prepared(objective, config)
    assert drawn.shape == theirs.shape == (16, 3, 4, 4)
    assert 0 <= looks.min() <= looks.max() <= 2
    inside = theirs.abs() < 0.98  # not clipped
    assert_close(drawn[inside], theirs[inside] * 0.5, atol=2e-3, rtol=0)
    pieces = wanted[2:].unfold(2, 4, 1).unfold(3, 4, 1).movedim(1, 3).flatten(0, 2)
    for crop in theirs:  # each is a piece of a picture that is not held out, mirrored or not
        assert any((pieces == one).flatten(1).all(dim=1).any() for one in (crop, crop.flip(2)))


def test_what_is_wanted_is_what_the_teachers_upscaler_makes(teacher, trajectories):
    config = settings(batch_size=4)
    objective = distilling(teacher, trajectories, drawn=trajectories.states[-1] * 0.5)
    drawn, theirs, looks = prepared(objective, config)
    wanted = teacher.codec.network(theirs).clamp(-1, 1)
    with torch.no_grad():
        made = objective.network(drawn)
        loss = objective.loss(drawn, theirs, looks)
    seen = torch.stack([
        (wanted - made)[i, :, y : y + 6, x : x + 6].mean()
        for i, (y, x) in enumerate(looks.tolist())
    ])  # fmt: skip
    assert_close(loss, (made - wanted).abs().mean(dim=(1, 2, 3)) + 0.5 * seen)


def test_the_teachers_own_upscaler_has_nothing_left_to_learn(teacher, trajectories):
    objective = distilling(teacher, trajectories)
    assert objective.heldout(teacher.codec.network) < 0.2 * objective.heldout(objective.network)


def test_several_processes_wrap_its_network(teacher, trajectories):
    objective, config = distilling(teacher, trajectories), settings()
    identity, rows = objective.identity, prepared(objective, config)
    objective.network = torch.nn.Sequential(objective.network)  # which hides what is inside
    assert objective.identity == identity
    assert all(map(torch.equal, prepared(objective, config), rows))


def test_it_goes_on_with_the_same_seeds_held_out_only(teacher, trajectories):
    runs = [distilling(teacher, trajectories, settings(holdout=count)) for count in (1, 1, 2)]
    assert [runs[0].is_same(other.identity) for other in runs] == [True, True, False]


def test_where_nothing_is_held_out_there_is_no_held_out_error(teacher, trajectories):
    objective = distilling(teacher, trajectories, settings(holdout=0))
    assert objective.heldout(objective.network) is None


def test_it_learns_and_is_saved_with_the_student(teacher, trajectories, tmp_path):
    config = settings(images=320, batch_size=8, lr=3e-3, muon_lr=1e-2)
    objective = distilling(teacher, trajectories, config)
    before = objective.heldout(objective.network)
    trainer = Trainer(config, objective, tmp_path)
    assert trainer.train()
    assert trainer.progress.last_loss < 0.7 * before
    student = Denoiser.load(tmp_path / WEIGHTS_NAME)
    assert student.info.codec == LIGHT
    assert student.info.labels == teacher.info.labels
    saved, averaged = student.codec.network.state_dict(), trainer.ema.module.state_dict()
    assert all(torch.equal(saved[name], averaged[name].half().float()) for name in saved)
    own = student.model.state_dict()
    assert_close(own, {k: v.half().float() for k, v in teacher.model.state_dict().items()})


def test_it_goes_on_from_a_light_upscaler_that_the_student_has(teacher, trajectories):
    student = small_denoiser(TINY).decoded_by(small_upscaler(LIGHT))
    own = student.codec.network
    begun = light_upscaler(student, factor=2)
    assert all(map(torch.equal, begun.state_dict().values(), own.state_dict().values()))
    assert begun is not own
    other = light_upscaler(teacher, factor=2)  # whose own is not light
    assert other.config == LIGHT
    assert torch.equal(other.conv_out.weight, Upscaler(LIGHT).conv_out.weight)  # untrained


def test_a_stopped_run_goes_on_to_the_same_weights(teacher, trajectories, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert Trainer(settings(), distilling(teacher, trajectories), whole).train()
    asked = iter(range(99))
    objective = distilling(teacher, trajectories)
    assert not Trainer(settings(), objective, broken).train(stop=lambda: next(asked) == 3)
    assert Trainer(settings(), distilling(teacher, trajectories), broken).train()
    one, other = (read_tensors(run / STATE_NAME)[0] for run in (whole, broken))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="other"):
        Trainer(settings(), distilling(teacher, trajectories, student_hash="x"), broken)


def test_the_student_draws_each_seed_once(teacher, trajectories, tmp_path, monkeypatch):
    student = small_denoiser(TINY)
    x0 = draw_student(student, trajectories, tmp_path, student_hash="s")
    assert (x0.shape, x0.dtype) == ((COUNT, 3, 8, 8), torch.float16)
    start = from_seeds(student, [FIRST_SEED + 5], trajectories.class_labels[5:6].tolist())
    expected = draw_x0(student, start, student.info.sampling)
    assert_close(x0[5:6].float(), expected, atol=2e-3, rtol=1e-3)
    monkeypatch.setattr(upscaler_distill, "draw_x0", None)
    assert torch.equal(draw_student(student, trajectories, tmp_path, student_hash="s"), x0)
    with pytest.raises(ValueError, match="of another student"):
        draw_student(student, trajectories, tmp_path, student_hash="other")


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def taught(teacher, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A teacher's file, and the run of its student."""
    monkeypatch.setattr(PerceptualDistance, "load", staticmethod(Darker))
    path, run = tmp_path / "teacher.safetensors", tmp_path / "quick"
    teacher.save(path)
    student = ["distill", "--teacher", str(path), "--seeds", "16", "--out", str(run)]
    assert main([*student, "--images", "16", "--batch-size", "8"]) == 0
    return path, run


def command(teacher: Path, student: Path, run: Path, out: Path, *more: str) -> list[str]:
    start = ["distill-upscaler", "--teacher", str(teacher), "--student", str(student), "--out"]
    return [*start, str(out), "--trajectories", str(run / "trajectories"), "--seeds", "16", *more]


def test_the_command(taught, tmp_path, capsys):
    (path, run), out = taught, tmp_path / "light"
    own = command(path, run / WEIGHTS_NAME, run, out)
    assert main([*own, "--images", "8"]) == 0
    assert "Finished: 8 images" in capsys.readouterr().err
    student = Denoiser.load(out / WEIGHTS_NAME)
    assert student.info.teacher == Denoiser.load(run / WEIGHTS_NAME).info.teacher != ""
    assert student.codec.picture_size == 16
    assert main([*own, "--images", "16"]) == 0  # goes on


def test_the_student_is_saved_as_exactly_as_it_was(taught, tmp_path, monkeypatch):
    """Also where it draws in half precision."""
    (path, run), out = taught, tmp_path / "light"
    monkeypatch.setattr(denoiser_module, "sampling_dtype", lambda device: torch.bfloat16)
    own = command(path, run / WEIGHTS_NAME, run, out)
    assert main([*own, "--images", "8"]) == 0
    before, after = (Denoiser.load(file / WEIGHTS_NAME).model.state_dict() for file in (run, out))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_run_goes_on_with_more_seeds(taught, tmp_path):
    (path, run), out = taught, tmp_path / "light"
    own = command(path, run / WEIGHTS_NAME, run, out)
    for seeds, images in (("16", "8"), ("19", "16"), ("17", "24")):
        own[own.index("--seeds") + 1] = seeds
        assert main([*own, "--images", images]) == 0


def test_every_mistake_is_a_sentence(taught, tmp_path, capsys):
    (path, run), out = taught, tmp_path / "light"
    plain = tmp_path / "plain.safetensors"
    small_denoiser(TINY).save(plain)
    own = ["distill", "--teacher", str(plain), "--seeds", "16", "--out", str(tmp_path / "plainrun")]
    assert main([*own, "--images", "8", "--batch-size", "8"]) == 0
    plain_student = tmp_path / "plainrun" / WEIGHTS_NAME
    for arguments, words in (
        (command(path, path, run, out), "is no student of teacher"),
        (command(plain, run / WEIGHTS_NAME, run, out), "is no student of plain"),
        (command(plain, plain_student, tmp_path / "plainrun", out), "has no upscaler"),
        (command(path, run / WEIGHTS_NAME, tmp_path / "plainrun", out), "of another teacher"),
        (command(path, "nobody", run, out), "There is no checkpoint 'nobody'"),
        (command(path, run / WEIGHTS_NAME, tmp_path / "no", out), "There is no folder"),
        (command(path, run / WEIGHTS_NAME, run, out, "--seeds", "7"), "At least 8 seeds"),
        (command(path, run / WEIGHTS_NAME, run, out, "--seeds", "0"), "must be at least 1"),
    ):
        assert main([*arguments, "--images", "8"]) == 1
        assert words in capsys.readouterr().err
