"""The command line: what it writes, and one sentence for every mistake."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from drawing import cat, write_labels, write_zip
from PIL import Image
from studio_fixtures import save_tiny
from tiny_cli import TINY

from diffusion import Denoiser, SampleConfig, cli, commands, device, generate
from diffusion.cli import main
from diffusion.commands import parse_seeds
from diffusion.features import FEATURES
from diffusion.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]


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


def refused(capsys, *arguments) -> str:
    """The one sentence that a bad command ends in."""
    assert main(list(arguments)) == 1
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert "Traceback" not in captured.err
    assert last.startswith("Error: ")
    assert ("\n" + captured.err).count("\nError: ") == 1
    return last.removeprefix("Error: ")


def test_seeds_are_numbers_and_ranges():
    assert parse_seeds("7") == [7]
    assert parse_seeds("0-3, 8,10-10") == [0, 1, 2, 3, 8, 10]


@pytest.mark.parametrize(
    "text", ["5-2", "", "a", "1-", "-1", "1,,2", "0-999999999", "1.5", "9" * 30]
)
def test_other_seeds_are_refused(text):
    with pytest.raises(ValueError, match=r"seed"):
        parse_seeds(text)


def test_sample_writes_pictures_a_grid_and_animations(model, tmp_path, capsys):
    out = tmp_path / "out"
    paths = [str(tmp_path / name) for name in ("grid.png", "a.gif")]
    arguments = ["sample", "--checkpoint", model, "--seeds", "0-4", "--steps", "3"]
    arguments += ["--label", "tabby", "--guidance", "2.5"]
    assert main([*arguments, "--out", str(out), "--grid", paths[0], "--animation", paths[1]]) == 0
    assert sorted(p.name for p in out.iterdir()) == [f"{seed:06d}.png" for seed in range(5)]
    denoiser, config = Denoiser.load_for_sampling(model), SampleConfig(num_steps=3, guidance=2.5)
    tabby = generate(denoiser, [3], config, class_labels=[denoiser.info.label_index("tabby")])
    drawn = np.asarray(Image.open(out / "000003.png")).astype(int)
    assert abs(drawn - tabby[0].permute(1, 2, 0).numpy()).max() <= 3  # another batch size
    with Image.open(paths[1]) as film:
        assert film.n_frames >= 3
    assert Image.open(paths[0]).size[0] > 32


def test_what_is_drawn_is_written_at_once(model, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "SAMPLE_BATCH", 2)
    batches = iter([generate(Denoiser.load(model), [0, 1])])
    monkeypatch.setattr(commands, "generate", lambda *_, **__: next(batches))
    with pytest.raises(StopIteration):
        main(["sample", "--checkpoint", model, "--seeds", "0-5", "--out", str(tmp_path / "out")])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png"]


def test_an_animation_of_several_batches_shows_every_picture(model, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "SAMPLE_BATCH", 2)
    films = []
    for seeds in ("0-4", "4"):
        films.append(str(tmp_path / f"{seeds}.gif"))
        arguments = ["--seeds", seeds, "--steps", "2", "--animation", films[-1]]
        assert main(["sample", "--checkpoint", model, *arguments]) == 0
    five, one = (Image.open(film).size for film in films)
    assert five[0] >= 2 * one[0]
    assert five[1] >= 2 * one[1]


def test_the_same_seed_gives_the_same_file(model, tmp_path):
    """Whatever else is drawn with it."""
    for name, seeds in (("a", "3"), ("b", "3"), ("c", "0-20")):
        arguments = ["--seeds", seeds, "--steps", "4", "--out", str(tmp_path / name)]
        main(["sample", "--checkpoint", model, *arguments])
    first, second, third = ((tmp_path / name / "000003.png").read_bytes() for name in "abc")
    assert first == second == third
    assert (tmp_path / "c" / "000004.png").read_bytes() != first


def test_every_mistake_in_sampling_is_a_sentence(model, tmp_path, capsys):
    grid = ["--grid", str(tmp_path / "g.png")]
    pickled, half = tmp_path / "model.pt", tmp_path / "half.safetensors"
    torch.save({"a": torch.zeros(3)}, pickled)
    half.write_bytes(Path(model).read_bytes()[:2000])
    base = ["sample", "--checkpoint", model]
    before = half.read_bytes()
    for arguments, words in (
        ([*base, *grid, "--seeds", "5-2"], "must not be larger"),
        ([*base, *grid, "--steps", "0"], "between 1 and 1000"),
        ([*base, *grid, "--steps", "x"], "--steps"),
        ([*base, *grid, "--guidance", "nan"], "Guidance"),
        ([*base, *grid, "--label", "pink"], "does not know the label 'pink'"),
        ([*base, *grid, "--sampler", "magic"], "magic"),
        ([*base], "Say where to write the pictures"),
        ([*base, "--animation", str(tmp_path / "a.txt")], ".gif or .mp4"),
        ([*base, "--grid", str(tmp_path / "g.xyz")], "must end in .png"),
        ([*base, "--out", str(half)], "is a file, but --out must be a folder"),
        ([*base, "--grid", str(half / "g.png")], "half.safetensors"),
        ([*base, *grid, "--seeds", "99999999999999999"], "seed must be"),
        (["sample", "--checkpoint", "nobody", *grid], "no checkpoint 'nobody'"),
        (["sample", "--checkpoint", str(pickled), *grid], "not a complete safetensors file"),
        (["sample", "--checkpoint", str(half), *grid], "not a complete safetensors file"),
        ([], "COMMAND"),
        (["dance"], "dance"),
    ):
        assert words in refused(capsys, *arguments)
    assert not (tmp_path / "g.png").exists()
    assert half.read_bytes() == before


def test_where_pictures_go_is_checked_before_they_are_drawn(model, tmp_path, capsys, monkeypatch):
    def generate(*_, **__):
        raise AssertionError("drawn")

    monkeypatch.setattr(commands, "generate", generate)
    out = ["--out", str(tmp_path / "out")]
    for wrong in (["--grid", "g.xyz"], ["--animation", "a.avi"], ["--out", model]):
        refused(capsys, "sample", "--checkpoint", model, *out, *wrong)


class Means(torch.nn.Module):
    """Mean colours as features, so that no large network is needed."""

    def forward(self, pictures):
        return pictures.float().mean(dim=(2, 3)) / 255

    def is_cat(self, features):
        return features[:, 0] > 0.5


def test_evaluate_prints_and_writes_its_figures(model, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(FEATURES, "effnet-lite0", Means)
    monkeypatch.setattr(device, "fast_bf16", lambda device: True)
    labels = write_labels(tmp_path / "l.csv", {f"cat-{i}.png": "tabby" for i in range(6)})
    out, plot = tmp_path / "new" / "report.json", tmp_path / "pairs.png"
    arguments = ["--data", pictures, "--labels", str(labels), "--samples", "50", "--steps", "2"]
    arguments += ["--guidance", "2", "--out", str(out), "--plot", str(plot)]
    assert main(["evaluate", "--checkpoint", model, *arguments]) == 0
    report = json.loads(out.read_text())
    assert report["checkpoint"] == "tiny"
    assert report["sha256"] == hashlib.sha256(Path(model).read_bytes()).hexdigest()
    assert (report["images_seen"], report["data"]) == (0, "pictures")
    assert report["sampling"]["guidance"] == 2
    assert report["dtype"] == "bfloat16"  # as the page draws
    assert report["per_label"]["tabby"]["samples"] == 30
    assert report["per_label"]["black"]["samples"] == 0
    told = capsys.readouterr().out
    assert "compared at 16 pixels" in told
    assert f"FD {report['fd']:.4g}, KID x 1000 {report['kid']:.4g}" in told
    assert Image.open(plot).size == (10 * 18 + 2, 4 * 18 + 2)


def test_every_mistake_in_evaluating_is_a_sentence(model, pictures, tmp_path, capsys, monkeypatch):
    """Before anything is drawn."""
    monkeypatch.setitem(FEATURES, "effnet-lite0", Means)
    monkeypatch.setattr("diffusion.evaluate.draw_samples", Mock(side_effect=AssertionError))
    out = tmp_path / "report.json"
    pink = write_labels(tmp_path / "pink.csv", {"cat-1.png": "pink"})
    base = ["evaluate", "--checkpoint", model, "--data", pictures, "--out", str(out)]
    for arguments, words in (
        ([*base, "--samples", "49"], "At least 50 samples"),
        ([*base, "--samples", "100001"], "At most 100,000 samples"),
        ([*base, "--samples", "many"], "--samples"),
        ([*base, "--steps", "0"], "between 1 and 1000"),
        ([*base, "--features", "eyes"], "eyes"),
        ([*base, "--labels", str(pink)], "labels pink are not known"),
        ([*base, "--plot", "pairs.txt"], "must end in .png"),
        ([*base, "--out", str(tmp_path / "report.txt")], "must end in .json"),
        ([*base, "--data", str(tmp_path / "none")], "no folder or zip"),
        ([*base, "--checkpoint", "nobody"], "no checkpoint 'nobody'"),
    ):
        assert words in refused(capsys, *arguments)
    assert not out.exists()


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
        ([*base, "--images", "8", "--lr", "1e30", "--warmup-images", "0"], "lower learning rate"),
    ):
        assert words in refused(capsys, *arguments)
    assert file.read_text() == "no zip"
    assert not (tmp_path / "run" / "model.safetensors").exists()


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


@pytest.mark.parametrize(
    ("option", "stored"), [(["--photos"], 20), (["--no-photos"], 16), ([], 16)]
)
def test_photos_are_what_train_is_told(pictures, tmp_path, monkeypatch, option, stored):
    made = Mock(side_effect=ValueError("enough"))
    monkeypatch.setattr("diffusion.objectives.Denoising", made)
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
