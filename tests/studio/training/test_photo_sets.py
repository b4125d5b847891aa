"""Sets of photos: their limits, a disk that fills up, and several sets beside each other."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace

import pytest
from drawing import cat, cats, encode
from photo_sets import add, names, reasons, zip_bytes
from studio_fixtures import wait_until

from studio import disk
from studio.training import arrivals
from studio.training import photos as uploads
from studio.training.photos import NoSuchSet
from studio.training.picture_sets import SET_SECONDS


def test_the_kind_of_file_decides_how_large_it_may_be(pictures, monkeypatch, tmp_path):
    monkeypatch.setattr(arrivals, "MAX_FILE_BYTES", 5_000)
    archive = zip_bytes(tmp_path, cats(8, 64))
    assert len(archive) > 5_000
    pictures.add("cats.zip", [archive[:1], archive[1:]])
    assert len(names(pictures)) == 8
    with pytest.raises(ValueError, match=r"large\.png is larger"):
        pictures.add("large.png", [b"x" * 4_000, b"x" * 4_000])
    with pytest.raises(ValueError, match="at most 1000 MB"):
        pictures.receive("x", num_bytes=10**12)
    assert not list((pictures.folder / "incoming").iterdir())


def test_too_much_that_waits_is_refused(pictures, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_INCOMING_BYTES", 10)
    with pictures._looking:  # else the thread that looks at photos may already be done with it
        with pictures.receive("x") as incoming:
            incoming.write(b"x" * 20)
            incoming.keep()
        with pytest.raises(ValueError, match="Try again"):
            pictures.receive("y")


def test_a_disk_that_is_nearly_full_takes_nothing(sets, pictures, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    for attempt in (lambda: pictures.add("a.png", [encode(cat(1, 64))]), sets.create):
        with pytest.raises(ValueError, match="free"):
            attempt()


def test_a_disk_that_fills_up_while_pictures_are_looked_at(pictures, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "atomic_path", full)
    pictures.add("cats.zip", [zip_bytes(tmp_path, cats(3, 64))])
    assert reasons(pictures) == {"cats.zip": "The disk is full; make room and try again"}
    assert pictures.scan().waiting == 0


def test_a_strange_failure_keeps_nothing_waiting(pictures, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(uploads, "decode_photo", broken)
    add(pictures, cats(2, 64))
    assert set(reasons(pictures).values()) == {"could not be read; the server's log says why"}
    assert "secret" in capsys.readouterr().err
    assert pictures.scan().waiting == 0


def test_a_file_that_breaks_off_leaves_nothing(pictures):
    def chunks():
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        pictures.add("half.png", chunks())
    assert not list((pictures.folder / "incoming").iterdir())
    assert pictures.scan().waiting == 0


def test_the_newest_set_is_the_current_one(sets):
    assert sets.current() is None
    first, second = sets.create(), sets.create()
    assert first.id != second.id
    assert sets.current() is second
    assert sets.get(first.id) is first
    sets.delete(second.id)
    assert sets.current() is first
    with pytest.raises(NoSuchSet):
        sets.get(second.id)


@pytest.mark.parametrize("identity", ["", ".", "..", "../..", "/", "x", "a/b", "\0", "a" * 999])
def test_only_ids_of_ours_are_sets(sets, identity):
    sets.create()
    with pytest.raises(NoSuchSet):
        sets.get(identity)


def test_sets_that_nobody_touched_are_cleared(sets):
    old, young = sets.create(), sets.create()
    add(old, cats(1, 64))
    add(young, cats(1, 64))
    ago = time.time() - SET_SECONDS - 60
    for path in [*old.folder.rglob("*"), old.folder]:
        os.utime(path, (ago, ago))
    newest = sets.create()
    assert sets._ids() == sorted([young.id, newest.id])


def test_many_files_at_once_are_all_there(sets):
    pictures = sets.create()
    files = cats(24, 64)

    def send(name: str, data: bytes) -> None:
        with pictures.receive(name) as incoming:
            incoming.write(data)
            incoming.keep()
        sets.arrived(pictures)

    threads = [threading.Thread(target=send, args=item) for item in files.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: pictures.scan().waiting == 0)
    assert sorted(names(pictures)) == sorted(files)
    assert sorted(p.number for p in pictures.scan().pictures) == list(range(1, 25))
