"""Going on with a run: with pictures that have changed, or whose state is damaged."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from drawing import cat, cats, encode, write_folder, write_labels
from safetensors import SafetensorError
from studio_fixtures import save_tiny
from tiny_cli import TINY

from diffusion.checkpoint import (
    WEIGHTS_NAME,
    CheckpointInfo,
    read_checkpoint,
    read_tensors,
    write_tensors,
)
from diffusion.cli.main import main
from diffusion.config import FinetuneConfig, TrainConfig
from diffusion.data.changes import changes, digest, have_nothing_in_common
from diffusion.data.dataset import load_images
from diffusion.presets import PRESETS
from diffusion.training import finetune, objectives, replays
from diffusion.training.objectives import Denoising, TrainingError
from diffusion.training.run_folder import PROGRESS_NAME, STATE_NAME, STEPS_NAME
from diffusion.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(objectives, "SAMPLE_SEEDS", (0,))
    monkeypatch.setattr(replays, "REPLAYS", 6)
    monkeypatch.setattr(finetune, "SAMPLES", 2)
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "cats", cats(24))


def train(data: Path, out: Path, images: int, *options: str) -> int:
    return main([
        "train", "--preset", "tiny", "--data", str(data), "--images", str(images),
        "--out", str(out), *options,
    ])  # fmt: skip


def trainer(data: Path, out: Path, **changes) -> Trainer:
    """A run over all that is in a folder now."""
    config = TrainConfig.from_dict({**TINY.train, "images": 16, "holdout": 4, **changes})
    images = load_images(data, image_size=16)
    return Trainer(config, Denoising(config, CheckpointInfo(TINY.model), images), out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def add(folder: Path) -> None:
    (folder / "new.png").write_bytes(encode(cat(99)))


def remove(folder: Path) -> None:
    (folder / "cat-003.png").unlink()


def exchange(folder: Path) -> None:
    (folder / "cat-003.png").write_bytes(encode(cat(98)))


# -- records of pictures ----------------------------------------------------------------------


def test_what_changed_is_counted_by_name_and_file():
    before = {"a": "1", "b": "2", "c": "3"}
    assert changes(before, dict(reversed(before.items()))) == ""
    assert changes(before, {"a": "1", "b": "9", "d": "4", "e": "5"}) == (
        "2 added, 1 removed, 1 exchanged"
    )
    assert changes({}, before) == ""  # a run that is older than the record
    assert digest(b"a") != digest(b"b")


def test_another_set_shares_neither_a_name_nor_a_file():
    before = {"a": "1", "b": "2"}
    assert have_nothing_in_common(before, {"c": "3"})
    assert not have_nothing_in_common(before, {"c": "2"})  # renamed
    assert not have_nothing_in_common(before, {"b": "3"})  # exchanged


# -- changed pictures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"), [(add, "1 added"), (remove, "1 removed"), (exchange, "1 exchanged")]
)
def test_a_run_goes_on_with_changed_pictures_and_says_so(folder, tmp_path, capsys, change, told):
    out = tmp_path / "run"
    assert trainer(folder, out).train()
    change(folder)
    capsys.readouterr()
    again = trainer(folder, out, images=32)
    assert f"The pictures of this run have changed: {told}. It goes" in capsys.readouterr().err
    assert set(again.objective.record) == {path.name for path in folder.iterdir()}
    assert again.progress.images == 16
    assert again.train()
    trainer(folder, out, images=48)
    assert "changed" not in capsys.readouterr().err  # once is enough


def test_the_record_of_the_best_held_out_loss_begins_anew(folder, tmp_path):
    """With patience, a loss that other pictures once had would keep all weights from the file."""
    out = tmp_path / "run"
    assert trainer(folder, out, patience=0.5).train()
    tensors, values = read_tensors(out / STATE_NAME)
    values["progress"] |= {"best_loss": 1e-9, "risen_images": 12, "risen_seconds": 9.0}
    write_tensors(out / STATE_NAME, tensors, values)
    assert trainer(folder, out, patience=0.5).finished
    add(folder)
    again = trainer(folder, out, patience=0.5, images=24)
    assert not again.finished
    assert (again.progress.best_loss, again.progress.best_images) == (None, 16)
    assert again.train()
    assert read_checkpoint(out / WEIGHTS_NAME)[1].images_seen == 24


def test_new_pictures_are_shown_to_the_network(folder, tmp_path, monkeypatch):
    out, seen = tmp_path / "run", set()
    assert trainer(folder, out).train()
    add(folder)
    again = trainer(folder, out, images=72)
    pictures = again.objective.images
    new = pictures.pixels[pictures.names.index("new.png")]
    loss = again.objective.prepare

    def prepare(batch, *rest):
        seen.update(bool((picture == new).all()) for picture in batch[0])
        return loss(batch, *rest)

    monkeypatch.setattr(again.objective, "prepare", prepare)
    assert again.train()
    assert seen == {True, False}


def test_labels_of_new_pictures_are_no_reason_to_refuse(folder, tmp_path, capsys):
    names = sorted(path.name for path in folder.iterdir())
    labels = {name: "tabby" if i % 2 else "white" for i, name in enumerate(names)}
    csv = write_labels(tmp_path / "labels.csv", labels)
    assert train(folder, tmp_path / "run", 8, "--labels", str(csv)) == 0
    add(folder)
    write_labels(csv, {**labels, "new.png": "white"})
    assert train(folder, tmp_path / "run", 16, "--labels", str(csv)) == 0
    assert "1 added" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "run" / WEIGHTS_NAME)[1].label_counts == (12, 13)


def test_a_run_whose_budget_is_spent_says_how_to_learn_from_new_pictures(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "run", 8) == 0
    add(folder)
    assert train(folder, tmp_path / "run", 8) == 0
    assert "1 added. Its budget is spent; to learn from them, give it" in capsys.readouterr().err


# -- other pictures ---------------------------------------------------------------------------


def others(folder: Path) -> Path:
    return write_folder(folder, {f"other-{i}.png": encode(cat(50 + i)) for i in range(10)})


def test_a_mistyped_data_leaves_a_finished_run_as_it_was(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(folder, out, 8) == 0
    before = contents(out)
    for data in (tmp_path / "cast", others(tmp_path / "others")):
        assert train(data, out, 8) == 1
        assert train(data, out, 16) == 1
    assert "none of these is among them. Check --data" in capsys.readouterr().err
    assert train(folder, out, 8) == 0  # nothing is left to do
    assert contents(out) == before


def test_a_mistyped_data_leaves_a_finished_fine_tuning_as_it_was(folder, tmp_path):
    base, out = save_tiny(tmp_path / "tiny.safetensors"), tmp_path / "run"
    config = FinetuneConfig(label="Mia", images=8, batch_size=4)
    assert finetune.finetune(base, folder, out, config)
    before = contents(out)
    assert json.loads(before[PROGRESS_NAME])["state"] == "finished"
    for data in (tmp_path / "cast", others(tmp_path / "others")):
        with pytest.raises(ValueError, match=r"cast|none of these"):
            finetune.finetune(base, data, out, config)
    assert contents(out) == before
    longer = replace(config, images=16)
    assert not finetune.finetune(base, folder, out, longer, stop=lambda: True)
    with pytest.raises(ValueError, match="cast"):  # not finished any more
        finetune.finetune(base, tmp_path / "cast", out, longer)
    assert json.loads((out / PROGRESS_NAME).read_text())["state"] == "failed"


# -- damaged states ---------------------------------------------------------------------------


def test_a_damaged_state_names_what_is_whole_and_how_to_go_on(folder, tmp_path, capsys):
    out = tmp_path / "run"
    options = ("--keep-steps", "2", "--save-images", "4")
    assert train(folder, out, 8, *options) == 0
    (out / STATE_NAME).write_bytes((out / STATE_NAME).read_bytes()[:-100])
    for whole in (out / WEIGHTS_NAME, *(out / STEPS_NAME / f"{n:09d}.safetensors" for n in (8, 4))):
        assert train(folder, out, 16, *options) == 1
        told = f"But {whole} is whole: start a new run from it with --init and another --out."
        assert told in capsys.readouterr().err
        other = tmp_path / f"from-{whole.stem}"
        assert train(folder, other, 4, "--init", str(whole)) == 0
        capsys.readouterr()
        whole.write_bytes(b"cut")
    assert train(folder, out, 16, *options) == 1
    assert "Nothing beside it is whole either; choose another --out." in capsys.readouterr().err


# -- a full disk ------------------------------------------------------------------------------

FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    SafetensorError("I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_stays(
    folder, tmp_path, monkeypatch, error
):
    out = tmp_path / "run"
    assert trainer(folder, out).train()
    before = {name: data for name, data in contents(out).items() if "safetensors" in name}

    def save(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("diffusion.checkpoint.save_file", save)
        with pytest.raises(TrainingError, match=r"The disk is full\. The last checkpoint is kept"):
            trainer(folder, out, images=32).train()
    after = contents(out)
    assert {name: after[name] for name in before} == before
    assert trainer(folder, out, images=32).train()


def test_a_fine_tuning_on_a_full_disk_says_so(folder, tmp_path, monkeypatch):
    base, out = save_tiny(tmp_path / "tiny.safetensors"), tmp_path / "run"

    def full(*_, **__):
        raise FULL[0]

    monkeypatch.setattr(Denoising, "save", full)
    with pytest.raises(TrainingError, match="The disk is full"):
        finetune.finetune(base, folder, out, FinetuneConfig(label="Mia", images=8, batch_size=4))
    told = json.loads((out / PROGRESS_NAME).read_text())
    assert (told["state"], told["message"][:17]) == ("failed", "The disk is full.")
    monkeypatch.setattr(finetune.RunProgress, "write", full)  # not even that can be written
    with pytest.raises(TrainingError, match="The disk is full"):
        finetune.finetune(base, folder, out, FinetuneConfig(label="Mia", images=8, batch_size=4))
