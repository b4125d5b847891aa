"""The owner's routes, behind the guard as they are served: photos, samples and models."""

from __future__ import annotations

import errno
import io
import os
from types import SimpleNamespace

import pytest
from drawing import cat, cats, encode
from PIL import Image
from studio_fixtures import save_tiny, wait_until

from studio.admin.cats import CATS, SIDE
from studio.training import arrivals
from studio.training import photos as uploads

SPEC = SimpleNamespace(name="Mia", label="mia", base="tiny", length="quick")


def new_set(owner) -> str:
    return owner.post("/admin/sets").json()["set"]


def upload(owner, identity: str, name: str, data: bytes):
    return owner.post("/admin/upload", params={"set": identity, "name": name}, content=data)


def looked_at(admin, identity: str):
    """The set, once all that arrived was looked at."""
    pictures = admin.sets.get(identity)
    wait_until(lambda: pictures.scan().waiting == 0)
    return pictures.scan()


# -- photos -----------------------------------------------------------------------------------


def test_photos_arrive_are_shown_cropped_and_removed(admin, owner):
    identity = new_set(owner)
    for name, data in cats(9, 96).items():
        answer = upload(owner, identity, f"Mia/summer/{name}", data)
        assert answer.json() == {"set": identity}
    upload(owner, identity, "notes.txt", b"not a picture")
    looked_at(admin, identity)
    html = owner.get("/admin/sets/current").text
    assert f'data-set="{identity}"' in html
    assert "9 photos to learn from · 1 left out" in html
    assert "Mia/summer/cat-003.png" in html
    assert "<b>notes.txt</b>: not an image" in html
    thumb = owner.get(f"/admin/sets/{identity}/thumb/1.jpg")
    assert thumb.headers["content-type"] == "image/jpeg"
    assert "private" in thumb.headers["cache-control"]
    assert thumb.headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(thumb.content)).size == (128, 128)
    whole = owner.get(f"/admin/sets/{identity}/picture/1.jpg")
    assert Image.open(io.BytesIO(whole.content)).size == (96, 96)
    crop = {"picture": 1, "square": [0, 8, 80]}
    answer = owner.post(f"/admin/sets/{identity}/crop", json=crop)
    assert answer.json() == {"box": [0, 8, 80, 88]}
    assert owner.get(f"/admin/sets/{identity}/thumb/1.jpg").content != thumb.content
    owner.post(f"/admin/sets/{identity}/remove", json={"picture": 2})
    assert "8 photos to learn from · 1 removed" in owner.get("/admin/sets/current").text
    owner.post(f"/admin/sets/{identity}/remove", json={"picture": 2, "removed": False})
    assert "9 photos to learn from · 1 left out" in owner.get("/admin/sets/current").text


def test_names_are_shown_as_text(admin, owner):
    identity = new_set(owner)
    name = "../<img src=x onerror=alert(1)>\"'&猫\u202e.png"
    upload(owner, identity, name, encode(cat(1, 64)))
    upload(owner, identity, name, b"")
    looked_at(admin, identity)
    html = owner.get("/admin/sets/current").text
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;猫" in html
    assert "\u202e" not in html


@pytest.mark.parametrize(
    "identity", ["", "..", "../..", "nothing", "%2e%2e", "x/../..", "x" * 5000, "\0"]
)
def test_a_set_that_is_not_there(owner, identity):
    new_set(owner)
    answer = upload(owner, identity, "cat.png", encode(cat(1, 64)))
    assert (answer.status_code, answer.json()["error"][-1]) == (404, ".")


@pytest.mark.parametrize("number", [0, 99, 10**30])
def test_a_picture_that_is_not_there(owner, number):
    identity = new_set(owner)
    for kind in ("thumb", "picture"):
        assert owner.get(f"/admin/sets/{identity}/{kind}/{number}.jpg").status_code == 404
    for change in ("crop", "remove"):
        answer = owner.post(f"/admin/sets/{identity}/{change}", json={"picture": number})
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "body", [{}, [], None, {"picture": "1"}, {"picture": 1.5}, {"picture": True}, {"picture": None}]
)
def test_a_strange_change_is_a_sentence(owner, body):
    identity = new_set(owner)
    for change in ("crop", "remove"):
        answer = owner.post(f"/admin/sets/{identity}/{change}", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"].endswith(".")


def test_a_file_that_is_too_large_leaves_nothing(admin, owner, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_FILE_BYTES", 200_000)
    identity = new_set(owner)
    answer = upload(owner, identity, "huge.png", bytes(300_000))
    assert answer.status_code == 400
    assert "huge.png is larger than 0 MB" in answer.json()["error"]
    assert not list(admin.sets.get(identity).folder.rglob("*.*"))
    claimed = {"content-length": str(10**15)}
    assert owner.post(f"/admin/upload?set={identity}", headers=claimed).status_code == 400


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "The data folder cannot be written to")],
)
def test_a_full_or_read_only_disk_is_a_sentence(admin, owner, monkeypatch, number, sentence):
    identity = new_set(owner)

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(uploads.Incoming, "write", refuse)
    monkeypatch.setattr(uploads, "atomic_path", refuse)
    monkeypatch.setattr(uploads.Path, "mkdir", refuse)
    admin.sets.get(identity)._contents.pictures[1] = uploads.Picture(1, "a", 64, 64, "", "", "")
    for answer in (
        upload(owner, identity, "cat.png", encode(cat(1, 64))),
        owner.post(f"/admin/sets/{identity}/remove", json={"picture": 1}),
        owner.post("/admin/sets"),
    ):
        assert answer.status_code == 400
        assert sentence in answer.json()["error"]


def test_both_of_two_alike_are_kept_at_the_owners_word(owner, admin):
    identity = new_set(owner)
    upload(owner, identity, "one.png", encode(cat(1, 64)))
    looked_at(admin, identity)
    upload(owner, identity, "two.jpg", encode(cat(1, 64), "JPEG"))
    ((copy, _),) = looked_at(admin, identity).copies
    html = owner.get("/admin/sets/current").text
    assert f'data-admin="keep-both" data-number="{copy.number}"' in html
    assert "Left out: 1<" in html
    answer = owner.post(f"/admin/sets/{identity}/keep-both", json={"picture": copy.number})
    assert answer.json() == {"kept": True}
    assert len(looked_at(admin, identity).chosen) == 2
    assert "keep-both" not in owner.get("/admin/sets/current").text


# -- trainings and models ---------------------------------------------------------------------


def test_samples_and_models_are_those_that_are_listed(admin, owner):
    training = admin.trainings.create(SPEC, [])
    (admin.trainings.folder / training / "secret.png").write_bytes(b"secret")
    answer = owner.get(f"/admin/trainings/{training}/samples/base.png")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    for path in (
        f"trainings/{training}/samples/secret.png", f"trainings/{training}/samples/..%2fsecret.png",
        f"trainings/{training}/samples/%2e%2e%2fsecret.png",
        f"trainings/{training}/samples/nothing.png",
        "trainings/nothing/samples/base.png", "models/nothing.safetensors",
        "models/..%2fmodels%2fmia.safetensors", "models/%2e%2e.safetensors",
    ):  # fmt: skip
        answer = owner.get(f"/admin/{path}")
        assert answer.status_code in (400, 404), path
        assert b"secret" not in answer.content
    model = owner.get("/admin/models/mia.safetensors")
    assert model.content == b"weights"
    assert 'filename="mia.safetensors"' in model.headers["content-disposition"]
    assert model.headers["cache-control"] == "no-store"


def test_a_models_cats_are_drawn_once_and_beside_what_was_before(owner, admin, gate, monkeypatch):
    library = admin.studio.library
    monkeypatch.setattr(library, "places", (*library.places, save_tiny(admin.models.path("mia"))))
    first = owner.get("/admin/models/mia/cats.jpg")
    assert (first.status_code, first.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(first.content)).size == (CATS * SIDE, SIDE)
    assert "private" in first.headers["cache-control"]
    before = owner.get("/admin/models/mia/before.jpg")
    assert before.content != first.content
    assert gate.batches == [CATS, CATS]
    assert owner.get("/admin/models/mia/cats.jpg").content == first.content
    assert gate.batches == [CATS, CATS]
    for path in ("lion/cats", "lion/before", "..%2fmia/cats", "tiny/cats"):
        assert owner.get(f"/admin/models/{path}.jpg").status_code == 404, path
