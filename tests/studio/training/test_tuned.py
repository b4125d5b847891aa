"""The owner's models: safe names, nothing shipped is touched, and no visitor is disturbed."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from studio_fixtures import LABELS, save_tiny, wait_until

from diffusion import Denoiser
from diffusion.files import atomic_path
from studio.drawing.library import MAX_LOADED, ModelLibrary, model_hash
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Studio
from studio.training.tuned import DEFAULT_NAME, MAX_MODEL_NAME, TunedModels, slug

TOKEN = "hf_secret_token"


@pytest.fixture
def tuned(tmp_path, tiny_folder) -> TunedModels:
    """Two models of the owner's, beside one that was shipped as ``tiny``."""
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True)
    for name in ("mia", "leo"):
        shutil.copy(tiny_folder / "tiny.safetensors", folder / f"{name}.safetensors")
    choice = tmp_path / "data" / DEFAULT_NAME
    return TunedModels(
        tmp_path / "data", ModelLibrary([tiny_folder, folder], default="tiny", default_file=choice)
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Mia", "mia"), ("../x", "x"), ("/etc/passwd", "etc-passwd"), ("a\0b", "a-b"),
     (".hidden", "hidden"), ("Mia's  cat!", "mia-s-cat"), ("CON", "con-cat"), ("lpt1", "lpt1-cat"),
     ("con.txt", "con-txt"), ("Мурка", "мурка"), ("三毛猫", "三毛猫"), ("बिल्ली", "बिल्ली"),
     ("قطة", "قطة"), ("ﬁfi", "fifi"), ("a\u202eb", "a-b"), ("\ud800x", "x"), ("🐱\ufe0f 7", "7"),
     ("x" * MAX_MODEL_NAME, "x" * MAX_MODEL_NAME)],
)  # fmt: skip
def test_a_name_in_any_script_is_safe_as_a_file_name(name, expected):
    assert slug(name) == expected


def test_a_slug_stays_short_in_bytes_too():
    assert 100 < len(slug("猫" * MAX_MODEL_NAME).encode()) <= 150


@pytest.mark.parametrize("name", ["", "  ", "../..", "🐱\ufe0f", "\u0301", "x" * 200, None, 7])
def test_a_name_that_cannot_be_used_gets_a_sentence(name):
    with pytest.raises(ValueError, match=r"A model's name .*\."):
        slug(name)


def test_only_the_owners_models_are_listed(tuned):
    assert tuned.names() == ["leo", "mia"]
    assert tuned.path("mia") == tuned.folder / "mia.safetensors"
    assert TunedModels(tuned.folder.parent / "." / "models" / "..", tuned.library).names()


@pytest.mark.parametrize("change", ["path", "delete", "rename", "publish"])
def test_what_was_shipped_or_is_not_there_is_left_alone(tuned, change):
    more = {"rename": ("new",), "publish": ("a/b", TOKEN)}.get(change, ())
    with pytest.raises(ValueError, match="tiny came with the program"):
        getattr(tuned, change)("tiny", *more)
    for name in ("lion", "../models/mia", "mia.safetensors", "", "x" * 5000):
        with pytest.raises(ValueError, match="There is no model"):
            getattr(tuned, change)(name, *more)
    assert tuned.library.names == ["tiny", "leo", "mia"]


def test_a_new_model_is_called_as_it_was_named(tuned):
    name = tuned.add(tuned.path("mia"), "Nora")
    assert (name, tuned.title(name)) == ("nora", "Nora")  # by which it is not taken itself


def test_a_model_gets_a_title_and_keeps_its_name(tuned):
    assert tuned.rename("mia", "  Mia the  2nd! ") == "Mia the 2nd!"
    assert tuned.rename("leo", "Leo") == "Leo"
    assert tuned.names() == ["leo", "mia"]
    assert [tuned.title(name) for name in tuned.names()] == ["Leo", "Mia the 2nd!"]
    assert ("Mia the 2nd!", "mia") in tuned.library.choices
    for taken in ("leo", "tiny", "LEO"):
        with pytest.raises(ValueError, match="already"):
            tuned.rename("mia", taken)
    assert tuned.rename("leo", "LEO") == "LEO"
    for wrong in ("", "a\u202eb", "x" * 200, "!?", None):
        with pytest.raises(ValueError, match=r"A model's name .*\."):
            tuned.rename("mia", wrong)
    (tuned.folder / "leo.json").write_text('{"title": 7')  # damaged by hand
    assert tuned.title("leo") == "leo"


def test_a_renamed_model_can_be_made_the_default(tuned):
    tuned.rename("mia", "Queen Mia")
    tuned.set_default("mia")
    assert tuned.library.choices[0] == ("Queen Mia", "mia")


def test_cards_tell_what_a_model_is_made_of(tuned, tmp_path):
    source = save_tiny(tmp_path / "new.safetensors", seed=3, taught=True)
    before = time.time()
    assert tuned.add(source, "Zoë B.", base="tiny", photos=12) == "zoë-b"
    assert tuned.add(source, "Zoë B.", base="gone") == "zoë-b-2"
    again, card, *others = tuned.cards()
    assert (card.title, card.info.taught_label, card.base, card.photos) == (
        "Zoë B.",
        LABELS[-1],
        "tiny",
        12,
    )
    assert before <= card.made <= time.time()
    assert card.hash == model_hash(source)
    assert (again.title, again.base, again.photos) == ("Zoë B. 2", "", 0)
    assert {(c.name, c.info.taught_label, c.base, c.photos) for c in others} == {
        ("mia", "", "", 0), ("leo", "", "", 0),
    }  # fmt: skip
    tuned.rename("zoë-b", "Queen")
    tuned.add(source, "other", replacing="zoë-b", base="tiny", photos=13)
    assert [(c.title, c.photos) for c in tuned.cards() if c.name == "zoë-b"] == [("Queen", 13)]
    tuned.delete("zoë-b")
    assert not list(tuned.folder.glob("zoë-b.*"))


def test_the_default_is_chosen_outlives_a_rename_and_ends_with_its_model(tuned):
    library = tuned.library
    tuned.set_default("mia")
    assert library.default == "mia"
    assert library.names[0] == "mia"
    tuned.rename("mia", "queen")
    assert library.default == "mia"
    tuned.delete("mia")
    assert library.default == "tiny"
    tuned.set_default("leo")
    tuned.set_default("tiny")  # one that was shipped, again
    assert library.default == "tiny"
    tuned.set_default("leo")
    for _ in range(2):
        tuned.clear_default()
        assert library.default == "tiny"
    with pytest.raises(ValueError, match="There is no model"):
        tuned.set_default("../tiny")
    (tuned.folder.parent / DEFAULT_NAME).write_bytes(b"\xff\xfe")
    assert library.default == "tiny"


def test_a_model_is_added_under_a_free_name_or_in_place_of_one(tuned, tmp_path):
    source = save_tiny(tmp_path / "new.safetensors", seed=3)
    assert [tuned.add(source, name) for name in ("Mia", "tiny", "mia", "Zoe")] == [
        "mia-2", "tiny-2", "mia-3", "zoe",
    ]  # fmt: skip
    before = tuned.library.get("mia").hash
    assert tuned.add(source, "whatever", replacing="mia") == "mia"
    assert tuned.library.get("mia").hash != before
    assert model_hash(tuned.path("mia")) == model_hash(source)
    assert tuned.by_hash()[model_hash(source)] == "mia"
    assert tuned.add(source, "other", replacing="tiny") == "other"  # shipped: not replaced


def test_what_does_not_load_is_not_added(tuned, tmp_path):
    whole = save_tiny(tmp_path / "whole.safetensors").read_bytes()
    for data in (b"", whole[:-5], b"\x80\x04pickle"):
        (tmp_path / "bad.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match="not a complete safetensors"):
            tuned.add(tmp_path / "bad.safetensors", "bad")
    assert tuned.names() == ["leo", "mia"]


def test_a_model_that_is_being_written_is_not_listed(tuned):
    with atomic_path(tuned.folder / "new.safetensors") as temporary:
        assert temporary.parent == tuned.folder
        assert tuned.library.names == ["tiny", "leo", "mia"]
    assert "new" in tuned.library.names


def test_a_full_disk_or_a_read_only_folder_is_a_sentence(tuned, tmp_path, monkeypatch):
    source = save_tiny(tmp_path / "new.safetensors")

    def refuse(number):
        def fail(*_, **__):
            raise OSError(number, "no")

        return fail

    monkeypatch.setattr(shutil, "copyfile", refuse(errno.ENOSPC))
    with pytest.raises(ValueError, match="disk is full"):
        tuned.add(source, "new")
    monkeypatch.setattr(Path, "unlink", refuse(errno.EROFS))
    with pytest.raises(ValueError, match="cannot be written to"):
        tuned.delete("mia")
    monkeypatch.setattr(os, "replace", refuse(errno.EACCES))
    with pytest.raises(ValueError, match="cannot be written to"):
        tuned.rename("mia", "new")
    assert tuned.names() == ["leo", "mia"]


@pytest.mark.parametrize("change", ["delete", "rename", "replace"])
def test_a_visitors_cats_are_finished_whatever_becomes_of_their_model(
    tuned, tmp_path, gate, change
):
    studio = Studio(tuned.library, draw=gate)
    # two turns, so that the model is looked up again after the change
    studio.max_batch, studio._resized_at = 1, time.monotonic()
    recipes = [Recipe(model="mia", seed=seed, steps=2) for seed in (1, 2)]
    expected = studio.draw(recipes).pictures
    with gate.close():
        job = studio.submit(recipes)
        wait_until(lambda: gate.steps > 0)
        if change == "delete":
            tuned.delete("mia")
        elif change == "rename":
            tuned.path("mia").rename(tuned.folder / "new.safetensors")  # by hand
        else:
            tuned.add(save_tiny(tmp_path / "new.safetensors", seed=9), "", replacing="mia")
        for seed in range(MAX_LOADED):  # other visitors crowd it out of the library's memory
            save_tiny(tuned.folder / f"other-{seed}.safetensors", seed=20 + seed)
            tuned.library.get(f"other-{seed}")
        gate.event.set()
        job.wait(20)
    assert job.error is None
    assert gate.batches == [1, 1]
    assert torch.equal(job.pictures, expected)


class Hub:
    """What huggingface_hub's HfApi would be told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.said, self.files = error, [], {}

    def __call__(self, *, token: str) -> Hub:
        self.said.append(("token", token))
        return self

    def create_repo(self, repo, *, exist_ok):
        self.said.append((repo, exist_ok))
        if self.error:
            raise self.error

    def file_exists(self, repo, name):
        return name in self.files

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id):
        path = path_or_fileobj
        self.files[path_in_repo] = path.read_bytes() if isinstance(path, Path) else path


def test_publishing_uploads_the_model_with_a_card_and_forgets_the_token(tuned):
    hub = Hub()
    models = TunedModels(tuned.folder.parent, tuned.library, hub=hub)
    assert models.publish("mia", " me/cats ", f" {TOKEN}\n") == "https://huggingface.co/me/cats"
    assert hub.said == [("token", TOKEN), ("me/cats", True)]
    assert hub.files["model.safetensors"] == models.path("mia").read_bytes()
    assert ", ".join(LABELS) in hub.files["README.md"].decode()
    hub.files["README.md"] = b"the owner's own"
    models.publish("mia", "me/cats", TOKEN)
    assert hub.files["README.md"] == b"the owner's own"
    assert TOKEN not in repr(vars(models))
    written = b"".join(p.read_bytes() for p in tuned.folder.parent.rglob("*") if p.is_file())
    assert TOKEN.encode() not in written


def test_what_was_published_is_loaded_as_its_card_says(tuned, tmp_path):
    hub = Hub()
    TunedModels(tuned.folder.parent, tuned.library, hub=hub).publish("mia", "me/cats", TOKEN)
    for name, data in hub.files.items():
        (tmp_path / name).write_bytes(data)
    assert 'Denoiser.from_pretrained("me/cats")' in (tmp_path / "README.md").read_text()
    assert Denoiser.from_pretrained(str(tmp_path)).info.labels == LABELS


@pytest.mark.parametrize(
    ("repo", "token"), [("cats", TOKEN), ("../x", TOKEN), ("a/b/c", TOKEN), ("a/b", " "),
                        ("a/b", None), (None, TOKEN), ("мия/cats", TOKEN)],
)  # fmt: skip
def test_publishing_needs_a_repository_and_a_token(tuned, repo, token):
    hub = Hub()
    with pytest.raises(ValueError, match=r"repository as user/name|token"):
        TunedModels(tuned.folder.parent, tuned.library, hub=hub).publish("mia", repo, token)
    assert not hub.said


class Refusal(OSError):
    def __init__(self, status: int) -> None:
        super().__init__(f"{status} for token {TOKEN}")
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(Refusal(403), "This token has no write access to a/b"), (Refusal(500), "HTTP 500"),
     (ConnectionError(TOKEN), "could not be reached"), (ValueError(TOKEN), "does not accept")],
)  # fmt: skip
def test_what_the_hub_refuses_is_a_sentence_without_the_token(tuned, error, sentence, capsys):
    with pytest.raises(ValueError, match=sentence) as caught:
        TunedModels(tuned.folder.parent, tuned.library, hub=Hub(error)).publish("mia", "a/b", TOKEN)
    assert TOKEN not in str(caught.value)
    assert caught.value.__context__ is None  # no way from here to the request
    assert TOKEN not in "".join(capsys.readouterr())
