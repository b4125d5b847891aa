"""The command line: drawing pictures, and measuring them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from command_line import refused
from drawing import cat, write_labels
from PIL import Image
from studio_fixtures import save_tiny

from diffusion import Denoiser, SampleConfig, device, generate
from diffusion.checkpoint import read_checkpoint, write_checkpoint
from diffusion.cli import commands
from diffusion.cli.commands import parse_seeds
from diffusion.cli.main import main
from diffusion.evaluation.features import FEATURES


@pytest.fixture
def model(tmp_path):
    return str(save_tiny(tmp_path / "tiny.safetensors"))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(10):
        cat(i).save(folder / f"cat-{i}.png")
    return str(folder)


def test_seeds_are_numbers_and_ranges():
    assert parse_seeds("7") == [7]
    assert parse_seeds("0-3, 8,10-10") == [0, 1, 2, 3, 8, 10]


@pytest.mark.parametrize(
    "text", ["5-2", "", "a", "1-", "-1", "1,,2", "0-999999999", "1.5", "9" * 30]
)
def test_other_seeds_are_refused(text):
    with pytest.raises(ValueError, match=r"seed"):
        parse_seeds(text)


@pytest.mark.parametrize("option", [["--steps", "4"], ["--sampler", "heun"], ["--guidance", "2"]])
def test_a_student_is_drawn_in_its_own_steps(model, tmp_path, option, capsys):
    state, info = read_checkpoint(model)
    write_checkpoint(model, state, replace(info, teacher="a" * 12))
    draw = ["sample", "--checkpoint", model, "--seeds", "0", "--out", str(tmp_path / "out")]
    assert "is a student" in refused(capsys, *draw, *option)
    assert main(draw) == 0


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
    monkeypatch.setattr(
        "diffusion.evaluation.evaluate.draw_samples", Mock(side_effect=AssertionError)
    )
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
