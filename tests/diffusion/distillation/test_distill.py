"""A student: its steps lie on its teacher's grid, and what it learns is what the teacher draws."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers import (
    LATENT,
    SMALL,
    Darker,
    latent_denoiser,
    small_autoencoder,
    small_denoiser,
    small_upscaler,
    upscaled_denoiser,
)
from torch.testing import assert_close

from diffusion import Denoiser, SampleConfig, TrainConfig
from diffusion.cli.main import main
from diffusion.codec_file import weights_hash
from diffusion.config import UpscalerConfig
from diffusion.distillation import trajectories
from diffusion.distillation.distill import BETWEEN, Distilling, has_gradient
from diffusion.distillation.trajectories import (
    FIRST_SEED,
    FOLDER_NAME,
    draw_trajectories,
    student_sampling,
    student_steps,
)
from diffusion.sampling import draw_x0, from_seeds, generate, sampling_sigmas
from diffusion.training.perceptual import PerceptualDistance
from diffusion.training.trainer import Trainer, step_generators

TINY = replace(SMALL, image_size=8, num_classes=2)


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr(trajectories, "PER_FILE", 8)


def teacher(**sampling) -> Denoiser:
    denoiser = small_denoiser(TINY, guide=replace(TINY, channels=4, num_classes=0))
    denoiser.info = replace(denoiser.info, sampling=replace(denoiser.info.sampling, **sampling))
    return denoiser


def draw(teacher: Denoiser, folder, *, steps=2, count=20):
    return draw_trajectories(teacher, folder, steps=steps, count=count, teacher_hash="t")


def config(**changes) -> TrainConfig:
    values = {"images": 640, "batch_size": 8, "precision": "fp32", "warmup_images": 0}
    return TrainConfig(**{**values, "ema_halflife_images": 60, **changes})


# -- the teacher's trajectories ---------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 12])
def test_the_students_grid_lies_on_the_teachers(steps):
    sampling = SampleConfig()
    theirs, ends = sampling_sigmas(sampling), student_steps(sampling, steps)
    own = sampling_sigmas(student_sampling(sampling, steps))
    assert_close(own, theirs[[0, *ends]])
    assert ends[-1] == 12


@pytest.mark.parametrize("steps", [0, -1, 13])
def test_a_student_takes_no_more_steps_than_its_teacher(steps):
    with pytest.raises(ValueError, match=f"takes 1 to 12 steps, not {steps}"):
        student_steps(SampleConfig(), steps)


def test_states_are_those_that_the_teacher_passes(tmp_path):
    own = teacher()
    made = draw(own, tmp_path)
    assert made.states.shape == (2, 20, 3, 8, 8)
    passed = []
    labels = made.class_labels[11:12].tolist()
    start = from_seeds(own, [FIRST_SEED + 11], labels)
    x0 = draw_x0(own, start, own.info.sampling, callback=lambda step: passed.append(step.x))
    assert_close(made.states[0, 11], passed[5][0].half(), atol=0.02, rtol=0.01)
    assert_close(made.states[1, 11], x0[0].half(), atol=0.01, rtol=0.01)
    assert set(made.class_labels.tolist()) == {0, 1, 2}


def test_drawing_goes_on_where_it_stopped(tmp_path, monkeypatch):
    own, drawn = teacher(), []
    whole = draw(own, tmp_path / "whole")
    draw(own, tmp_path / "part", count=12)  # one file of 8, one of 4
    inner = trajectories._draw
    monkeypatch.setattr(
        trajectories, "_draw", lambda *args: drawn.append(len(args[1])) or inner(*args)
    )
    again = draw(own, tmp_path / "part")
    assert drawn == [8, 4]  # the file that was not full, and the rest
    assert torch.equal(again.states, whole.states)
    assert torch.equal(draw(own, tmp_path / "part", count=5).states, whole.states[:, :5])


def test_those_of_another_teacher_are_not_taken(tmp_path):
    draw(teacher(), tmp_path)
    with pytest.raises(ValueError, match="of another teacher, or for another number of steps"):
        draw(teacher(), tmp_path, steps=3)
    with pytest.raises(ValueError, match="of another teacher"):
        draw_trajectories(teacher(), tmp_path, steps=2, count=20, teacher_hash="other")


# -- the student ------------------------------------------------------------------------------


def test_a_student_of_a_teacher_that_does_just_the_same_has_nothing_to_learn(tmp_path):
    own = teacher(sampler="euler", num_steps=3, guidance=1.0)
    objective = Distilling(own, draw(own, tmp_path, steps=3), teacher_hash="t")
    objective.to(torch.device("cpu"))
    assert objective.heldout(objective.network) < 2e-3  # half precision
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        rows = objective.prepare(torch.arange(8), config(), generator, generator)
        with torch.no_grad():
            assert objective.loss(*rows).max() < 2e-2


def test_all_that_learns_has_a_gradient(tmp_path):
    """Several processes refuse to train anything else."""
    own = small_denoiser(replace(TINY, augment_channels=6))
    objective = Distilling(own, draw(own, tmp_path, count=8), teacher_hash="t")
    generator = torch.Generator().manual_seed(0)
    objective.network.requires_grad_(True)
    objective.loss(
        *objective.prepare(torch.arange(4), config(), generator, generator)
    ).sum().backward()
    idle = [name for name, weight in objective.network.named_parameters() if weight.grad is None]
    assert idle == ["augment_embedding.weight"]
    assert [
        name for name, _ in objective.network.named_parameters() if not has_gradient(name)
    ] == idle


def test_it_learns_through_all_steps_to_end_where_the_teacher_does(tmp_path):
    own = teacher()
    made = draw(own, tmp_path, steps=3)
    plain = Distilling(own, made, teacher_hash="t")
    seen = Distilling(own, made, teacher_hash="t", perceptual=Darker())
    made = plain.trajectories  # without those that are held out
    batch, generator = torch.arange(4), torch.Generator().manual_seed(0)
    rows = plain.prepare(batch, config(), generator, generator)
    sigmas, labels = sampling_sigmas(plain.info.sampling), made.class_labels[:4]
    x, errors = made.noise(own, batch) * 80.0, []
    with torch.no_grad():
        for step, (sigma, below) in enumerate(pairwise(sigmas.tolist())):
            x0 = plain.denoiser(x, sigma, labels)
            leads_there = (made.states[step, :4].float() - below / sigma * x) / (1 - below / sigma)
            errors.append((x0 - leads_there).abs().mean(dim=(1, 2, 3)))
            x = x0 + below / sigma * (x - x0)
        assert_close(plain.loss(*rows), errors[2] + BETWEEN * (errors[0] + errors[1]))
        darker = (made.states[2, :4].float() - x).mean(dim=(1, 2, 3))  # the end alone is looked at
        assert_close(seen.loss(*rows) - plain.loss(*rows), 0.5 * darker)
    first = plain.denoiser(rows[0], 80.0, labels).detach().requires_grad_()
    plain.denoiser = lambda x, sigma, labels: first if sigma == 80 else x  # what follows the first
    plain.loss(rows[0], labels, made.states[:, :4].movedim(0, 1).float(), rows[3]).sum().backward()
    assert first.grad.abs().max() > 2 * BETWEEN / first[0].numel()  # more than it has of its own


def test_it_looks_at_one_place_of_a_batch_whichever_rows_a_process_has(tmp_path):
    own = small_denoiser(replace(TINY, image_size=128))
    objective = Distilling(own, draw(own, tmp_path, count=4), teacher_hash="t")
    cpu = torch.device("cpu")
    looks = [
        objective.prepare(torch.tensor(rows), config(), *step_generators(0, 5, 0, cpu))[-1]
        for rows in ([0, 1, 2, 3], [1, 3])
    ]
    assert [len(places) for places in looks] == [4, 2]
    assert torch.cat(looks).unique(dim=0).shape == (1, 2)
    assert looks[0].max() > 0  # of 128 pixels, it sees 96


def test_it_comes_nearer_to_its_teacher_and_is_drawn_by_what_its_file_says(tmp_path):
    own = teacher()
    made = draw(own, tmp_path / "t", count=40)
    objective = Distilling(own, made, teacher_hash="t")
    assert (len(objective.trajectories), len(objective.heldout_trajectories)) == (36, 4)
    objective.heldout_trajectories = objective.trajectories  # so few are soon known by heart
    trainer = Trainer(config(lr=4e-3, images=1200), objective, tmp_path / "run")
    before = objective.heldout(objective.network)
    assert trainer.train()
    after = objective.heldout(trainer.ema.module)
    assert after < 0.7 * before
    student = Denoiser.load(tmp_path / "run" / "model.safetensors")
    assert (student.guide, student.info.sampling.num_steps) == (None, 2)
    assert student.info.teacher == "t"
    assert student.info.labels == own.info.labels
    x0 = draw_x0(
        student,
        from_seeds(student, [FIRST_SEED + 4], made.class_labels[4:5].tolist()),  # learned
        student.info.sampling,
    )
    assert (x0 - made.states[-1, 4:5].float()).abs().mean() < 2 * after


def test_a_stopped_distillation_goes_on_to_the_same_weights(tmp_path):
    own = teacher()
    made = draw(own, tmp_path / "t")
    runs = []
    for name, stop_at in (("whole", -1), ("broken", 3)):
        steps = iter(range(10**6))
        while True:
            objective = Distilling(own, made, teacher_hash="t")
            trainer = Trainer(config(images=64), objective, tmp_path / name)
            if trainer.train(stop=lambda steps=steps, at=stop_at: next(steps) == at):
                break
        runs.append(trainer.ema.module.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_it_can_begin_as_another_student(tmp_path):
    """Such as one of the same teacher before that learned more; its own upscaler comes along."""
    first = upscaled_denoiser(TINY)
    made = draw(first, tmp_path / "t")
    objective = Distilling(first, made, teacher_hash="a" * 64)
    assert Trainer(config(images=16), objective, tmp_path / "first").train()
    before = Denoiser.load(tmp_path / "first" / "model.safetensors")
    before = before.decoded_by(small_upscaler(UpscalerConfig(widths=(4, 4), blocks=(1, 1))))
    going_on = Distilling(first, made, teacher_hash="b" * 64, init=before)
    weights = going_on.network.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in before.model.state_dict().items())
    assert Trainer(config(images=24), going_on, tmp_path / "second").train()
    after = Denoiser.load(tmp_path / "second" / "model.safetensors")
    assert after.info == replace(before.info, teacher="b" * 12, images_seen=16 + 24)
    assert weights_hash(after.codec.network) == weights_hash(before.codec.network)
    assert weights_hash(after.model) != weights_hash(before.model)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"teacher": ""}, "no student"),
        ({"labels": ("one", "other")}, "does not fit"),
        ({"codec": None}, "does not fit"),
        ({"sampling": SampleConfig(num_steps=2)}, "takes other steps"),
    ],
)
def test_a_student_to_begin_as_must_fit(tmp_path, change, sentence):
    own = upscaled_denoiser(TINY)
    made = draw(own, tmp_path)
    init = Distilling(own, made, teacher_hash="t").denoiser
    init.info = replace(init.info, **change)
    with pytest.raises(ValueError, match=sentence):
        Distilling(own, made, teacher_hash="t", init=init)


def test_a_student_to_begin_as_must_know_the_same_latents(tmp_path):
    own = latent_denoiser(replace(LATENT, num_classes=2))
    made = draw(own, tmp_path)
    init = Distilling(own, made, teacher_hash="t").denoiser
    init.codec = latent_denoiser().codec
    init.codec.network.load_state_dict(small_autoencoder(seed=9).state_dict())
    with pytest.raises(ValueError, match="another encoder"):
        Distilling(own, made, teacher_hash="t", init=init)


def test_a_run_in_which_other_weights_learned_is_a_sentence(tmp_path):
    own = teacher()
    objective = Distilling(own, draw(own, tmp_path / "t"), teacher_hash="t")
    assert Trainer(config(images=16), objective, tmp_path / "run").train()
    for others in (
        lambda name: name.startswith("conv_out."),  # fewer
        lambda name: not name.startswith("conv_in."),  # of other shapes
    ):
        with pytest.raises(ValueError, match="Other weights learned"):
            Trainer(config(images=32), objective, tmp_path / "run", trainable=others).train()


def test_a_student_of_latents_carries_the_codec(tmp_path):
    own = latent_denoiser(replace(LATENT, num_classes=2))
    objective = Distilling(own, draw(own, tmp_path / "t"), teacher_hash="t")
    assert Trainer(config(images=16), objective, tmp_path / "run").train()
    student = Denoiser.load(tmp_path / "run" / "model.safetensors")
    assert generate(student, [1]).shape == (1, 3, 16, 16)


def test_without_the_perceptual_distance_nothing_more_is_needed(tmp_path, monkeypatch):
    def load():
        raise ValueError("The perceptual loss needs a package.")

    monkeypatch.setattr(PerceptualDistance, "load", load)
    path = tmp_path / "teacher.safetensors"
    teacher().save(path)
    command = ["distill", "--teacher", str(path), "--seeds", "16", "--images", "16", "--out"]
    assert main([*command, str(tmp_path / "pixels"), "--no-perceptual"]) == 0
    assert main([*command, str(tmp_path / "seen")]) == 1


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(PerceptualDistance, "load", Darker)
    path = tmp_path / "teacher.safetensors"
    teacher().save(path)
    out = tmp_path / "run"
    arguments = ["distill", "--teacher", str(path), "--seeds", "16", "--out", str(out)]
    assert main([*arguments, "--images", "64"]) == 0
    assert "Finished: 64 images" in capsys.readouterr().err
    assert Denoiser.load(out / "model.safetensors").info.sampling.num_steps == 2
    assert main([*arguments, "--images", "128"]) == 0  # goes on
    begun = ["--init", str(out / "model.safetensors"), "--images", "64", "--out"]
    assert main([*arguments[:-2], *begun, str(tmp_path / "on")]) == 0
    student = Denoiser.load(tmp_path / "on" / "model.safetensors")
    assert student.info.images_seen == 128 + 64
    assert main([*arguments[:-2], *begun, str(out)]) == 1
    assert main([*arguments[:-2], "--init", str(path), *begun[2:], str(tmp_path / "not")]) == 1
    assert "is no student" in capsys.readouterr().err
    assert not (tmp_path / "not" / FOLDER_NAME).exists()  # nothing was drawn for that
    assert main([*arguments, "--images", "64", "--steps", "0"]) == 1
    assert "takes 1 to 12 steps, not 0" in capsys.readouterr().err
    assert main([*arguments, "--images", "64", "--steps", "3"]) == 1
    assert "for another number of steps" in capsys.readouterr().err
    assert main(["distill", "--teacher", str(path), "--seeds", "0", "--out", str(out)]) == 1
