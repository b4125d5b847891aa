"""The command line: what it writes, and one sentence for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from command_line import refused
from drawing import cat, write_labels, write_zip
from helpers import LATENT, latent_denoiser
from PIL import Image
from studio_fixtures import save_tiny
from tiny_cli import TINY

from diffusion import Denoiser, device, generate
from diffusion.checkpoint import read_checkpoint, read_tensors, write_checkpoint
from diffusion.cli import commands
from diffusion.cli import main as cli
from diffusion.cli.main import main
from diffusion.config import TrainConfig
from diffusion.data.latents import LATENTS_NAME
from diffusion.presets import PRESETS
from diffusion.training import finetune, replays

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def model(tmp_path):
    return str(save_tiny(tmp_path / "tiny.safetensors"))


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(10):
        cat(i).save(folder / f"cat-{i}.png")
    return str(folder)


def test_every_mistake_in_training_is_a_sentence(pictures, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run"), "--preset", "tiny"]
    few, file = tmp_path / "few", tmp_path / "notes.txt"
    few.mkdir()
    cat(0).save(few / "one.png")
    file.write_text("no zip")
    base = ["train", "--data", pictures, *out]
    for arguments, words in (
        (base, "either in images or in minutes"),
        ([*base, "--images", "8", "--minutes", "1"], "not allowed with"),
        ([*base, "--images", "0"], "positive"),
        ([*base, "--images", "8", "--resume"], "no run to resume"),
        ([*base, "--images", "8", "--init", "nobody"], "no checkpoint 'nobody'"),
        ([*base, "--images", "8", "--labels", str(file)], "'file' and 'label'"),
        ([*base, "--images", "8", "--optimizer", "magic"], "adamw or muon"),
        (["train", "--data", str(tmp_path / "none"), *out, "--images", "8"], "no folder or zip"),
        (["train", "--data", str(file), *out, "--images", "8"], "neither a folder nor a zip"),
        (["train", "--data", str(few), *out, "--images", "8"], "at least 8"),
        ([*base, "--images", "8", "--out", str(file)], "is a file, but --out must be a folder"),
        ([*base, "--images", "8", "--batch-size", "6", "--accumulate", "4"], "must be a multiple"),
        ([*base, "--images", "eight"], "--images"),
        ([*base, "--images", "8", "--preset", "huge"], "huge"),
        ([*base, "--images", "8", "--preset", "cat-256-lite"], "draws latents"),
        ([*base, "--images", "8", "--lr", "1e30", "--warmup-images", "0"], "lower learning rate"),
    ):
        assert words in refused(capsys, *arguments)
    assert file.read_text() == "no zip"
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_help_explains_every_setting_of_a_training(capsys):
    with pytest.raises(SystemExit):
        cli.build_parser().parse_args(["train", "--help"])
    told = capsys.readouterr().out
    for field in fields(TrainConfig):
        assert field.metadata["help"]
        assert f"--{field.name.replace('_', '-').lower()}" in told
    assert "checkpoints whose weights stay" in " ".join(told.split())


def test_train_resume_and_init(pictures, tmp_path, capsys):
    base = ["train", "--data", pictures, "--preset", "tiny"]
    run = tmp_path / "run"
    assert main([*base, "--out", str(run), "--images", "16"]) == 0
    assert "Finished: 16 images" in capsys.readouterr().err
    assert main([*base, "--out", str(run), "--images", "32", "--resume"]) == 0
    assert "Finished: 32 images" in capsys.readouterr().err
    trained = str(run / "model.safetensors")
    assert main([*base, "--out", str(tmp_path / "more"), "--images", "8", "--init", trained]) == 0
    assert main(["inspect", str(tmp_path / "more" / "model.safetensors")]) == 0
    assert "40 images seen" in capsys.readouterr().out
    assert "other values of lr" in refused(
        capsys, *base, "--out", str(run), "--images", "64", "--lr", "1"
    )


def test_photos_become_latents_of_whole_squares(pictures, tmp_path, capsys):
    cat(11).resize((40, 32)).save(Path(pictures) / "wide.png")
    model, out = tmp_path / "model.safetensors", tmp_path / "run"
    latent_denoiser().save(model)
    command = ["train", "--init", str(model), "--data", pictures, "--out", str(out)]
    assert "Leave --photos out" in refused(capsys, *command, "--images", "8", "--photos")
    assert main([*command, "--images", "16", "--batch-size", "8", "--muon-lr", "1e-4"]) == 0
    latents = read_tensors(out / LATENTS_NAME)[0]["latents"]
    assert latents.shape[1:] == (11, LATENT.image_channels, LATENT.image_size, LATENT.image_size)


def test_a_student_is_not_trained_on_pictures(pictures, tmp_path, capsys):
    file = save_tiny(tmp_path / "student.safetensors")
    state, info = read_checkpoint(file)
    write_checkpoint(file, state, replace(info, teacher="a" * 12))
    start = ["train", "--data", str(pictures), "--init", str(file), "--images", "8", "--out"]
    assert main([*start, str(tmp_path / "run")]) == 1
    assert "is a student. Train its teacher" in capsys.readouterr().err


def test_init_brings_its_labels_and_its_presets_settings(pictures, tmp_path, capsys):
    labels = write_labels(tmp_path / "l.csv", {"cat-1.png": "tabby", "cat-2.png": "white"})
    base = ["train", "--data", pictures, "--images", "8"]
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--preset", "tiny", "--labels", str(labels), "--out", str(first)]
    assert main([*base, *options]) == 0
    checkpoint = str(first / "model.safetensors")
    assert main([*base, "--init", checkpoint, "--out", str(second)]) == 0  # no --preset, no labels
    assert main(["inspect", str(second / "model.safetensors")]) == 0
    told = capsys.readouterr().out
    assert "labels        tabby, white" in told
    assert "preset        tiny" in told
    assert json.loads((second / "run.json").read_text())["train"]["lr"] == TINY.train["lr"]
    other = write_labels(tmp_path / "other.csv", {"cat-1.png": "pink"})
    third = tmp_path / "third"
    arguments = [*base, "--init", checkpoint, "--labels", str(labels), "--labels", str(other)]
    assert "labelled 'tabby' and, in other.csv, 'pink'" in refused(
        capsys, *arguments, "--out", str(third)
    )
    write_labels(other, {"cat-3.png": "pink"})
    assert main([*arguments, "--out", str(third)]) == 0
    assert "New labels: pink" in capsys.readouterr().err
    info = Denoiser.load(third / "model.safetensors").info
    assert (info.labels, info.label_counts) == (("tabby", "white", "pink"), (1, 1, 1))


def test_an_unlabelled_model_is_taught_the_labels_of_a_csv(pictures, tmp_path):
    start = save_tiny(tmp_path / "start.safetensors", labels=())
    labels = write_labels(tmp_path / "l.csv", {"cat-1.png": "tabby", "cat-2.png": "white"})
    out = tmp_path / "run"
    arguments = ["train", "--data", pictures, "--init", str(start), "--labels", str(labels)]
    arguments += ["--label-lr", "0.5", "--out", str(out), "--images"]
    assert main([*arguments, "32"]) == 0
    taught = Denoiser.load(out / "model.safetensors")
    assert taught.info.labels == ("tabby", "white")
    rows = taught.model.class_embedding.weight
    assert (rows[:2] - rows[2]).abs().amax(1).min() > 0.01  # 250 times the usual rate
    assert main([*arguments, "64"]) == 0  # goes on


def test_without_a_label_the_seed_chooses_one(tmp_path):
    path = save_tiny(tmp_path / "counted.safetensors", counts=(1, 1))
    out = tmp_path / "out"
    arguments = ["sample", "--checkpoint", str(path), "--seeds", "0-5", "--steps", "2"]
    assert main([*arguments, "--out", str(out)]) == 0
    denoiser = Denoiser.load_for_sampling(path)
    chosen = [denoiser.info.any_label(seed) for seed in range(6)]
    assert len(set(chosen)) == 2
    classes = [denoiser.info.label_index(label) for label in chosen]
    config = replace(denoiser.info.sampling, num_steps=2)
    for seed, picture in enumerate(generate(denoiser, range(6), config, class_labels=classes)):
        drawn = np.asarray(Image.open(out / f"{seed:06d}.png")).astype(int)
        assert abs(drawn - picture.permute(1, 2, 0).numpy()).max() <= 3


def test_guide_puts_a_weaker_network_into_a_checkpoint(model, tmp_path, capsys):
    weak = str(save_tiny(tmp_path / "weak.safetensors", labels=()))
    out = str(tmp_path / "guided.safetensors")
    assert main(["guide", "--checkpoint", model, "--by", weak, "--out", out]) == 0
    assert main(["inspect", out]) == 0
    guided = capsys.readouterr().out
    assert main(["inspect", model]) == 0
    told = capsys.readouterr().out
    assert "guide         a network of 0.1 M parameters" in guided
    assert "guide         none" in told
    assert guided.split(" MB")[0].split(": ")[1].split(",")[0] in told  # its own parameters alone
    guide = ["guide", "--checkpoint", model, "--by"]
    assert "must not have labels" in refused(capsys, *guide, model, "--out", out)
    assert ".safetensors" in refused(capsys, *guide, weak, "--out", str(tmp_path / "guided.pt"))


def test_copies_are_kept_if_the_owner_says_so(model, tmp_path, capsys, monkeypatch):
    """Seven cats, one of them twice: too few, unless both are kept."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setattr(device, "fast_bf16", lambda device: False)  # one precision in a process
    monkeypatch.setattr(replays, "REPLAYS", 6)
    monkeypatch.setattr(finetune, "SAMPLES", 2)
    folder = tmp_path / "alike"
    folder.mkdir()
    for i in range(7):
        cat(i).save(folder / f"cat-{i}.png")
    cat(3).save(folder / "again.png", compress_level=0)
    given = ["--data", str(folder), "--images", "8", "--batch-size", "4"]
    train = ["train", "--preset", "tiny", *given, "--out", str(tmp_path / "run")]
    tune = ["finetune", "--base", model, "--label", "Mia", *given, "--out", str(tmp_path / "mia")]
    for command in (train, tune):
        assert "7 usable pictures" in refused(capsys, *command)
        assert main([*command, "--keep-both"]) == 0


@pytest.mark.parametrize(
    ("option", "stored"), [(["--photos"], 20), (["--no-photos"], 16), ([], 16)]
)
def test_photos_are_what_train_is_told(pictures, tmp_path, monkeypatch, option, stored):
    made = Mock(side_effect=ValueError("enough"))
    monkeypatch.setattr("diffusion.training.objectives.Denoising", made)
    arguments = ["train", "--data", pictures, "--preset", "tiny", "--images", "8"]
    assert main([*arguments, *option, "--out", str(tmp_path / "run")]) == 1
    assert made.call_args.args[2].stored_size == stored


def test_a_guide_is_left_behind_and_that_is_said(model, tmp_path, capsys):
    weak = str(save_tiny(tmp_path / "weak.safetensors", labels=()))
    guided, large = (str(tmp_path / f"{name}.safetensors") for name in ("guided", "large"))
    assert main(["guide", "--checkpoint", model, "--by", weak, "--out", guided]) == 0
    assert main(["grow", "--checkpoint", guided, "--out", large]) == 0
    assert (
        "new checkpoint has no guide: the old one draws small pictures" in capsys.readouterr().err
    )
    assert Denoiser.load(large).guide is None
    assert main(["grow", "--checkpoint", model, "--out", large]) == 0
    assert "guide" not in capsys.readouterr().err


def test_grow_makes_what_train_takes_further(pictures, tmp_path, capsys):
    small = str(save_tiny(tmp_path / "small.safetensors", labels=()))
    large, out = str(tmp_path / "large.safetensors"), tmp_path / "run"
    assert main(["grow", "--checkpoint", small, "--out", large]) == 0
    arguments = ["--init", large, "--images", "8", "--data", pictures, "--precision", "fp32"]
    assert main(["train", *arguments, "--out", str(out)]) == 0
    before, after = Denoiser.load(large), Denoiser.load(out / "model.safetensors")
    assert after.info.model == before.info.model
    assert after.info.model.image_size == 2 * Denoiser.load(small).info.model.image_size
    assert after.info.history[0].startswith("grown from")
    assert after.model.fine.conv_out.weight.any()
    assert "once" in refused(capsys, "grow", "--checkpoint", large, "--out", large)
    assert ".safetensors" in refused(capsys, "grow", "--checkpoint", small, "--out", "large.pt")


def test_an_error_in_a_data_worker_is_one_line(capsys, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ValueError("Caught ValueError in worker 0.\nTraceback:\n  ...\nValueError: a.png\n")

    monkeypatch.setattr(commands, "load_images", fail)
    assert refused(capsys, "inspect", str(tmp_path)) == "ValueError: a.png"


def test_memory_that_runs_out_is_a_sentence(capsys, monkeypatch, tmp_path):
    on_cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to"), on_cpu):
        monkeypatch.setattr(commands, "load_images", Mock(side_effect=error))
        assert refused(capsys, "inspect", str(tmp_path)) == "There is not enough memory."
    mistake = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    monkeypatch.setattr(commands, "load_images", Mock(side_effect=mistake))
    with pytest.raises(RuntimeError, match="mat1"):
        cli.main(["inspect", str(tmp_path)])


def test_ctrl_c_leaves_without_a_traceback(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "load_images", Mock(side_effect=KeyboardInterrupt))
    assert main(["inspect", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_inspect_tells_what_is_usable_and_what_is_not(pictures, tmp_path, capsys):
    Path(pictures, "cat.jpg").write_text("not a picture")
    archive = write_zip(
        tmp_path / "cats.zip", {p.name: p.read_bytes() for p in Path(pictures).iterdir()}
    )
    for path in (pictures, str(archive)):
        assert main(["inspect", path, "--size", "16"]) == 0
        told = capsys.readouterr()
        assert told.out == "10 pictures, 1 left out\n  cat.jpg: not an image\n"
        assert told.err == ""


def test_inspect_judges_pictures_for_a_size(tmp_path, capsys):
    cat(8).resize((63, 80)).save(tmp_path / "small.png")
    for i in range(8):
        cat(i).resize((64, 64)).save(tmp_path / f"wide-{i}.png")
    assert main(["inspect", str(tmp_path)]) == 0
    assert "small.png: 63x80 is too small (at least 64 pixels)" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path), "--size", "64"]) == 0
    assert capsys.readouterr().out == "9 pictures, 0 left out\n"
    for size in ("0", "1025"):
        assert "between 1 and 1024" in refused(capsys, "inspect", str(tmp_path), "--size", size)


def test_inspect_tells_what_a_checkpoint_is(model, tmp_path, capsys):
    assert main(["inspect", model]) == 0
    told = capsys.readouterr().out
    assert told.startswith("tiny.safetensors: ")
    assert "16x16, edm" in told
    assert "black, tabby" in told
    torch.save({"a": torch.zeros(3)}, tmp_path / "pickle.safetensors")
    torch.save({"a": torch.zeros(3)}, tmp_path / "pickle.pt")
    pickled = str(tmp_path / "pickle.safetensors")
    assert "not a complete safetensors file" in refused(capsys, "inspect", pickled)
    assert "0 usable pictures" in refused(capsys, "inspect", str(tmp_path / "pickle.pt"))
    assert "no folder or zip" in refused(capsys, "inspect", str(tmp_path / "nowhere"))


def test_the_real_command_ends_with_a_sentence_and_an_exit_code(tmp_path):
    command = [sys.executable, "-m", "diffusion", "sample", "--checkpoint", "nobody", "--out", "x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no checkpoint 'nobody'")
    assert "Traceback" not in done.stderr


def test_a_name_that_is_not_utf_8_is_shown_as_well_as_can_be(tmp_path):
    for seed in range(8):
        cat(seed).save(tmp_path / f"{seed}.png")
    try:
        Path(tmp_path, "caf\udce9.png").write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system knows UTF-8 alone")
    command = [sys.executable, "-m", "diffusion", "inspect", str(tmp_path), "--size", "16"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "caf?.png: not an image" in done.stdout
