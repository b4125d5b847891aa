"""Very many pictures: the same bytes from any number of processes and in any number of goes."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from studio_fixtures import LABELS, save_tiny
from training_runs import command

from diffusion import Denoiser, generate, processes
from diffusion.cli.main import main
from diffusion.output import bulk
from diffusion.output.pictures import from_image
from studio.drawing.library import model_hash
from studio.drawing.recipe import Recipe

SEEDS = "5-24"
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture
def model(tmp_path) -> str:
    return str(save_tiny(tmp_path / "tiny.safetensors", counts=(3, 1)))


@pytest.fixture
def small(monkeypatch):
    """Shards of eight pictures, drawn four at a time, and no waiting."""
    monkeypatch.setattr(bulk, "SHARD", 8)
    monkeypatch.setattr(bulk, "CPU_BATCH", 4)
    monkeypatch.setattr(bulk, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(processes, "choose_device", lambda: torch.device("cpu"))


def arguments(model: str, out: Path, *more: str) -> list[str]:
    wanted = ["--checkpoint", model, "--seeds", SEEDS, "--steps", "2", "--shards"]
    return ["sample", *wanted, "--out", str(out), *more]


def hashes(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("*.tar"))}


def as_webdataset_reads(out: Path) -> dict[str, dict[str, bytes]]:
    """Samples by key: what comes before the first dot of a name; files of a sample follow each
    other in the tar."""
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            last = ""
            for entry in tar:
                key, ending = entry.name.split(".", 1)
                assert key == last or key not in samples
                last = key
                samples.setdefault(key, {})[ending] = tar.extractfile(entry).read()
    return samples


def test_each_seed_is_there_once_with_its_picture_and_its_recipe(model, tmp_path, small):
    assert main(arguments(model, tmp_path / "out")) == 0
    samples = as_webdataset_reads(tmp_path / "out")
    assert [int(key) for key in samples] == list(range(5, 25))
    assert {tuple(files) for files in samples.values()} == {("png", "json")}
    denoiser = Denoiser.load_for_sampling(model)
    recipes = [Recipe.from_dict(json.loads(files["json"])) for files in samples.values()]
    assert {recipe.coat for recipe in recipes} == set(LABELS)
    for recipe, files in list(zip(recipes, samples.values(), strict=True))[:3]:
        assert (recipe.model, recipe.model_hash) == ("tiny", model_hash(Path(model)))
        label = denoiser.info.label_index(recipe.coat)
        config = recipe.config(denoiser.info.sampling)
        drawn = generate(denoiser, [recipe.seed], config, class_labels=[label])[0]
        there = from_image(Image.open(io.BytesIO(files["png"])))
        assert (drawn.int() - there.int()).abs().max() <= 3  # another batch size


def test_what_was_broken_off_goes_on_without_doubles_or_gaps(model, tmp_path, small, monkeypatch):
    assert main(arguments(model, tmp_path / "whole")) == 0
    left = [1, 1, 1]  # batches; the fourth is in the second shard

    def dies(*args, **options):
        if not left:
            raise SystemExit  # as a signal would
        left.pop()
        return generate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(bulk, "generate", dies)
        with pytest.raises(SystemExit):
            main(arguments(model, tmp_path / "out"))
    assert list(hashes(tmp_path / "out")) == ["cats-000000.tar"]
    first = (tmp_path / "out" / "cats-000000.tar").stat().st_mtime_ns
    assert main(arguments(model, tmp_path / "out")) == 0
    assert (tmp_path / "out" / "cats-000000.tar").stat().st_mtime_ns == first
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    assert len(hashes(tmp_path / "out")) == 3


def test_a_folder_holds_one_kind_of_pictures(model, tmp_path, small, capsys):
    out = tmp_path / "out"
    assert main(arguments(model, out)) == 0
    before = hashes(out)
    for more, changed in (
        (["--steps", "3"], "sampling"),
        (["--label", "tabby"], "label"),
        (["--seeds", "5"], "seeds"),
    ):
        assert main(arguments(model, out, *more)) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.endswith(f"begun with other values of {changed}. Choose another --out.")
    (out / bulk.IDENTITY_NAME).write_text("[")
    assert main(arguments(model, out)) == 1
    assert "is damaged. Choose another --out." in capsys.readouterr().err
    assert hashes(out) == before


def test_mistakes_are_sentences(model, tmp_path, small, capsys):
    for more, said in (
        (["--grid", "a.png"], "need --out DIR alone"), (["--seeds", "1-3,2"], "list twice"),
        (["--seeds", "0-1000000"], "At most 1,000,000 seeds"), (["--label", "blue"], "blue"),
    ):  # fmt: skip
        assert main(arguments(model, tmp_path / "out", *more)) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_draw_the_bytes_of_one(model, tmp_path, monkeypatch):
    """That is several at all: one alone would write no shards unasked."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    wanted = ["sample", "--checkpoint", model, "--seeds", "0-40", "--steps", "1", "--out"]
    for name, more, launcher in (("one", ["--shards"], []), ("two", [], LAUNCHER)):
        run = [*wanted, str(tmp_path / name), *more]
        process = command(*run, launcher=[sys.executable, *launcher])
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert errors.count(" 0/41 ") == 2  # one bar, drawn anew where it begins
        assert " 41/41 " in errors
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert len(hashes(tmp_path / "one")) == 2
