"""What an archive of photos may hold, and that nothing it says of itself is trusted."""

from __future__ import annotations

import struct
import time
import zipfile

import pytest
from drawing import cat, cats, encode, write_zip
from photo_sets import names, reasons, zip_bytes

from studio.training import arrivals


def test_what_an_archive_may_not_hold(pictures, tmp_path):
    files = {
        "fine.png": encode(cat(1, 64)),
        "../up.png": encode(cat(2, 64)),
        "/abs.png": encode(cat(3, 64)),
    }
    files["C:/drive.png"] = encode(cat(4, 64))
    files["inner.zip"] = zip_bytes(tmp_path, {"a.png": encode(cat(5, 64))})
    files["bomb.png"] = bytes(30_000_000)
    files["猫.png"] = encode(cat(6, 64))
    files["__MACOSX/._fine.png"] = b"resource fork"
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    path = write_zip(tmp_path / "mixed.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    pictures.add("mixed.zip", [path.read_bytes()])
    assert names(pictures) == ["mixed.zip/fine.png", "mixed.zip/猫.png"]
    outside = "a name that points outside the archive"
    assert reasons(pictures) == {
        "mixed.zip/../up.png": outside,
        "mixed.zip//abs.png": outside,
        "mixed.zip/C:/drive.png": outside,
        "mixed.zip/inner.zip": "a zip inside a zip, which is not opened",
        "mixed.zip/bomb.png": "a suspicious compression ratio",
        "mixed.zip/link.png": "a link",
    }
    assert not (tmp_path / "up.png").exists()


def test_an_encrypted_archive(pictures, tmp_path):
    data = bytearray(zip_bytes(tmp_path, {"cat.png": encode(cat(1, 64))}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    pictures.add("secret.zip", [bytes(data)])
    assert reasons(pictures) == {"secret.zip/cat.png": "encrypted"}


def test_a_zip_bomb_is_no_work(pictures, tmp_path):
    data = zip_bytes(tmp_path, {f"{i:03d}.png": bytes(1_000_000) for i in range(400)})
    assert len(data) < 500_000
    start = time.monotonic()
    pictures.add("42.zip", [data])
    assert time.monotonic() - start < 5
    assert names(pictures) == []
    assert list(reasons(pictures).values()) == ["a suspicious compression ratio"] * 400
    written = sum(path.stat().st_size for path in pictures.folder.rglob("*") if path.is_file())
    assert written < 300_000


def test_what_is_read_out_of_one_archive_is_limited(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_UNPACKED_BYTES", 10_000)
    pictures.add("much.zip", [zip_bytes(tmp_path, cats(12, 64))])
    taken = len(names(pictures))
    assert 0 < taken < 12
    assert list(reasons(pictures).values()) == ["the archive holds too many bytes"] * (12 - taken)


@pytest.mark.slow
def test_an_archive_of_a_hundred_thousand_entries(pictures, tmp_path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(100_000):
            archive.writestr(f"{i}", b"")
    start = time.monotonic()
    pictures.add("many.zip", [path.read_bytes()])
    assert time.monotonic() - start < 2
    assert reasons(pictures) == {"many.zip": arrivals.ZIP64}


@pytest.mark.parametrize(
    ("name", "reason"), [("{:0200}", arrivals.TOO_MANY_ENTRIES), ("{}", arrivals.ZIP64)]
)
def test_a_directory_that_is_too_large_is_not_even_read(
    pictures, tmp_path, monkeypatch, name, reason
):
    """Python makes objects of it all, at once: with long names, or with zip64 beyond 65,535."""
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20_000 if len(name) > 2 else 66_000):
            archive.writestr(name.format(i), b"")
    monkeypatch.setattr(arrivals, "Zip", None)
    pictures.add("many.zip", [path.read_bytes()])
    assert reasons(pictures) == {"many.zip": reason}


def test_the_entries_of_an_archive_are_counted_whatever_it_says(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_ENTRIES", 20)
    data = bytearray(zip_bytes(tmp_path, {str(i): b"x" for i in range(30)}))
    end = data.rindex(b"PK\x05\x06")
    data[end + 8 : end + 12] = struct.pack("<2H", 10, 10)
    pictures.add("lying.zip", [bytes(data)])
    assert list(reasons(pictures)) == ["lying.zip"]


@pytest.mark.parametrize("keep", [4, 30, 300, -1])
def test_a_damaged_archive(pictures, tmp_path, keep):
    data = zip_bytes(tmp_path, cats(3, 64))
    pictures.add("cut.zip", [data[:keep] if keep > 0 else data[:50] + bytes(50) + data[100:]])
    for name, reason in reasons(pictures).items():
        assert name.startswith("cut.zip")
        assert reason in ("an incomplete or damaged zip archive", "a damaged zip entry")
    assert reasons(pictures)


def test_an_archive_under_another_name_is_still_one(pictures, tmp_path):
    pictures.add("cat.png", [zip_bytes(tmp_path, cats(2, 64))])
    assert names(pictures) == ["cat.png/cat-000.png", "cat.png/cat-001.png"]
