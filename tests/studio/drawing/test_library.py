"""The model library: names from a list, each file read once, and again when it changes."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from studio_fixtures import LABELS, save_tiny

import studio.drawing.library as library_module
from studio.drawing.library import MAX_LOADED, ModelLibrary, model_hash


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """Names of the models that were read from disk."""
    names, load = [], library_module._load
    monkeypatch.setattr(
        library_module, "_load", lambda name, *rest: names.append(name) or load(name, *rest)
    )
    return names


def test_the_default_comes_first_and_an_empty_name_means_it(tmp_path, tiny_folder):
    for name in ("a", "b", "c"):
        shutil.copy(tiny_folder / "tiny.safetensors", tmp_path / f"{name}.safetensors")
    (tmp_path / "notes.md").write_text("no model")
    assert ModelLibrary([tmp_path]).names == ["a", "b", "c"]
    library = ModelLibrary([tmp_path], default="b")
    assert library.names == ["b", "a", "c"]
    assert library.get().name == library.get("b").name == library.default == "b"


def test_earlier_folders_hide_later_ones(tmp_path, tiny_folder):
    other = save_tiny(tmp_path / "tiny.safetensors", seed=5)
    first = ModelLibrary([tiny_folder, tmp_path])
    assert first.paths()["tiny"].parent == tiny_folder
    assert ModelLibrary([tmp_path, tiny_folder]).paths()["tiny"] == other


def test_half_written_files_are_no_models(tmp_path, tiny_folder):
    shutil.copy(tiny_folder / "tiny.safetensors", tmp_path / ".mia-0123abcd.safetensors")
    assert ModelLibrary([tmp_path]).names == []
    shutil.copy(tiny_folder / "tiny.safetensors", tmp_path / "mia.safetensors")
    assert ModelLibrary([tmp_path]).names == ["mia"]


def test_the_owners_file_names_the_default(tmp_path, tiny_folder):
    for name in ("a", "b", "Мурка"):
        shutil.copy(tiny_folder / "tiny.safetensors", tmp_path / f"{name}.safetensors")
    file = tmp_path / "default-model"
    library = ModelLibrary([tmp_path], default="b", default_file=file)
    assert library.default == "b"  # there is no such file yet
    file.write_text("Мурка\n", encoding="utf-8")
    assert library.names == ["Мурка", "b", "a"]
    assert library.get().name == "Мурка"
    (tmp_path / "Мурка.safetensors").unlink()
    assert library.default == "b"


@pytest.mark.parametrize(
    "content", [b"", b"lion", b"\xff\xfe", b"../a", b"a\nb", b"a" * 10**6, b"\0", "a folder"]
)
def test_a_bad_default_is_ignored(tmp_path, tiny_folder, content):
    for name in ("a", "b"):
        shutil.copy(tiny_folder / "tiny.safetensors", tmp_path / f"{name}.safetensors")
    file = tmp_path / "default-model"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.mkdir()
    assert ModelLibrary([tmp_path], default="b", default_file=file).names == ["b", "a"]


def test_a_model_deleted_between_two_looks(tmp_path, monkeypatch):
    library = ModelLibrary([tmp_path])
    monkeypatch.setattr(library, "paths", lambda: {"gone": tmp_path / "gone.safetensors"})
    with pytest.raises(ValueError, match="There is no model 'gone' here"):
        library.get("gone")


def test_the_hash_is_that_of_the_file(tiny_folder):
    model = ModelLibrary([tiny_folder]).get("tiny")
    data = (tiny_folder / "tiny.safetensors").read_bytes()
    assert model.hash == hashlib.sha256(data).hexdigest()[:12]
    assert model.info.labels == LABELS


@pytest.mark.parametrize(
    "name",
    ["lion", "../tiny", "../../etc/passwd", "/etc/passwd", "tiny.safetensors", ".", "x" * 5000,
     "http://x.org/tiny", "tiny\0"],
)  # fmt: skip
def test_only_names_of_the_list(tiny_folder, name):
    with pytest.raises(ValueError, match="There is no model") as caught:
        ModelLibrary([tiny_folder]).get(name)
    assert len(str(caught.value)) < 100


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(ValueError, match="There is no model yet"):
        ModelLibrary([tmp_path, tmp_path / "not there"]).get()


def test_a_file_that_is_no_model_says_so(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        ModelLibrary([tmp_path]).get("bad")


def test_a_model_is_read_once_and_new_files_are_seen(tmp_path, loads):
    path = save_tiny(tmp_path / "one.safetensors")
    library = ModelLibrary([tmp_path])
    assert library.get("one") is library.get("one")
    save_tiny(tmp_path / "two.safetensors", seed=1)
    assert library.names == ["one", "two"]
    library.get("two")
    before = library.get("one")
    save_tiny(path, seed=2)
    assert library.get("one") is not before
    assert loads == ["one", "two", "one"]


def test_a_file_that_is_restored_is_the_same_model(tmp_path, loads):
    path = save_tiny(tmp_path / "one.safetensors")
    library = ModelLibrary([tmp_path])
    before = library.get("one")
    kept = path.read_bytes()
    path.unlink()
    path.write_bytes(kept)
    os.utime(path, ns=(1, 1))
    assert library.get("one") is before
    assert loads == ["one"]


def test_a_file_is_read_for_its_hash_only_when_it_has_changed(tmp_path, monkeypatch):
    path, opened, open_path = tmp_path / "a", [], Path.open
    path.write_bytes(b"a" * 3_000_000)
    monkeypatch.setattr(Path, "open", lambda p, *a, **k: opened.append(p) or open_path(p, *a, **k))
    assert len({model_hash(path) for _ in range(3)}) == 1
    assert opened == [path]
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    other = tmp_path / "b"
    other.write_bytes(b"b" * 3_000_000)
    os.replace(other, path)
    os.utime(path, ns=times)  # of the same size and age, but another file
    assert model_hash(path) == hashlib.sha256(b"b" * 3_000_000).hexdigest()[:12]


def test_the_memory_holds_a_few_models_only(tmp_path, tiny_folder, loads):
    for i in range(MAX_LOADED + 1):
        shutil.copy(tiny_folder / "tiny.safetensors", tmp_path / f"m{i}.safetensors")
    library = ModelLibrary([tmp_path])
    for i in range(MAX_LOADED):
        library.get(f"m{i}")
    library.get("m0")  # used again, so m1 is the one that is left longest
    library.get(f"m{MAX_LOADED}")
    library.get("m0")
    assert loads == [f"m{i}" for i in range(MAX_LOADED + 1)]
    library.get("m1")
    assert loads[-1] == "m1"


def test_a_model_that_a_job_still_holds_is_not_read_again(tmp_path, tiny_folder, loads):
    for i in range(MAX_LOADED + 1):
        shutil.copy(tiny_folder / "tiny.safetensors", tmp_path / f"m{i}.safetensors")
    library = ModelLibrary([tmp_path])
    held = library.get("m0")
    for i in range(1, MAX_LOADED + 1):
        library.get(f"m{i}")
    assert library.get("m0") is held
    assert loads.count("m0") == 1


def test_weights_are_recalled_by_their_hash(tmp_path):
    path = save_tiny(tmp_path / "one.safetensors")
    library = ModelLibrary([tmp_path])
    old = library.get()
    save_tiny(path, seed=1)
    os.utime(path, ns=(1, 1))
    new = library.get()
    assert new.hash != old.hash
    assert library.recall("one", old.hash) is old
    assert library.recall("one", new.hash) is new
    assert ModelLibrary([tmp_path]).recall("one", new.hash).hash == new.hash
    with pytest.raises(ValueError, match="was just replaced"):
        ModelLibrary([tmp_path]).recall("one", old.hash)


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_a_damaged_model_does_not_stop_the_others(tiny_folder, tmp_path, capsys, damage):
    """The default, or the one that sorts first: the next good one serves, and the log says why."""
    weights = (tiny_folder / "tiny.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(weights[:-100] if damage is None else damage)
    (tmp_path / "b.safetensors").mkdir()
    (tmp_path / "c.safetensors").write_bytes(weights)
    for default in ("", "a", "b"):
        library = ModelLibrary([tmp_path], default=default)
        assert library.get().name == library.default == "c"
        assert "a" not in library.names or default == "b"
        said = capsys.readouterr().err
        for name in library.faults():
            assert said.count(f"The model '{name}' is left out: ") == 1
        assert library.faults()
    library = ModelLibrary([tmp_path], default="a")
    library.get()
    assert library.faults()["a"].endswith(".")
    with pytest.raises(ValueError, match="no model 'a' here"):
        library.get("a")
    (tmp_path / "a.safetensors").write_bytes(weights)  # put right while the page runs
    os.utime(tmp_path / "a.safetensors", (1, 1))
    assert library.get().name == "a"
    assert "a" not in library.faults()


def test_where_all_models_are_damaged_a_sentence_is_said(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="There is no model"):
        ModelLibrary([tmp_path]).get()
