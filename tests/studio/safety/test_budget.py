"""The budget of uploads: of each client, of all together, of small ones, and of the disk."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest
from helpers import Clock

from studio import disk
from studio.page import files
from studio.safety import budget
from studio.safety.budget import UploadBudget

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(clock) -> UploadBudget:
    return UploadBudget(clock)


def accepted(uploads: UploadBudget, client: str, size: int, times: int) -> int:
    return sum(uploads.charge(client, size) is None for _ in range(times))


def test_a_client_may_send_so_much_and_later_again(uploads, clock):
    assert accepted(uploads, "a", 20_000_000, 50) == 10
    assert "Too much was uploaded" in uploads.charge("a", 20_000_000)
    assert accepted(uploads, "b", 20_000_000, 1) == 1
    clock.now += 600  # half of it is there again
    assert accepted(uploads, "a", 20_000_000, 50) == 5
    clock.now += 10**6  # never more than all of it
    assert accepted(uploads, "a", 20_000_000, 50) == 10


def test_all_clients_together_may_send_so_much(uploads, clock):
    got = [accepted(uploads, str(i), 20_000_000, 10) for i in range(10)]
    assert got == [10] * 5 + [0] * 5
    clock.now += 720
    assert accepted(uploads, "x", 20_000_000, 50) == 10


def test_what_is_refused_is_not_charged(uploads):
    assert accepted(uploads, "a", 300_000_000, 5) == 0
    assert accepted(uploads, "a", 20_000_000, 50) == 10


def test_many_small_uploads_are_many(uploads):
    assert accepted(uploads, "a", 0, 5000) == 2000


def test_the_memory_for_clients_is_bounded(uploads, clock, monkeypatch):
    monkeypatch.setattr(budget, "MAX_CLIENTS", 100)
    for i in range(1000):
        clock.now += 10
        uploads.charge(str(i), 0)
    assert len(uploads._each) <= 150
    clock.now += 10**6
    accepted(uploads, "a", 20_000_000, 50)
    for i in range(500):  # at once, so that none of them is full again
        uploads.charge(f"crowd {i}", 0)
    assert len(uploads._each) <= 100


def test_a_full_disk_takes_nothing(uploads, monkeypatch, upload_folder):
    assert uploads.charge("a", 10) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 499_000_000))
    assert "nearly full" in uploads.charge("a", 10)
    with pytest.raises(ValueError, match="nearly full"):
        files.save_file(b"x", "x.png")


def test_the_disk_is_that_of_the_cache_even_before_its_first_file(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: asked.append(path) or Usage(10**12, 0, 10**11)
    )
    assert not disk.is_low(tmp_path / "not" / "yet")
    assert asked == [tmp_path]
