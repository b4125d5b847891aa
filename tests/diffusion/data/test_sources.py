"""What is in a folder or zip: nothing trusted, a reason for every file that is left out."""

import os
import stat
import struct
import time
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from drawing import cat, cats, encode, reasons, write_folder, write_zip
from PIL import Image, ImageOps

from diffusion.data import sources
from diffusion.data.dataset import load_images
from diffusion.data.sources import Zip, open_source

SIZE = 16


def patch_entry(path: Path, name: str, offset: int, layout: str, value: int) -> None:
    """Overwrite a field of an entry's record in the central directory of a zip."""
    raw = bytearray(path.read_bytes())
    start = raw.rindex(name.encode()) - 46  # the last one is in the directory
    assert raw[start : start + 4] == b"PK\x01\x02"
    struct.pack_into(layout, raw, start + offset, value)
    path.write_bytes(raw)


def directory_of(entries: int) -> bytes:
    """A zip with a directory of that many empty files, and nothing else."""
    records = bytearray()
    for i in range(entries):
        name = b"%06d.png" % i
        records += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0
        )
        records += name
    count = entries & 0xFFFF
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(records), 0, 0)
    return bytes(records) + end


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_every_picture_is_read_and_every_other_file_named(tmp_path, kind):
    files = cats(9, 64) | {
        "deep/er/and deeper/cat.webp": encode(cat(20, 64), "WEBP"),
        "Кошка/猫 🐈.png": encode(cat(21, 64)),
        "text.jpg": b"a text file called cat.jpg",
        "cut.jpg": encode(cat(22, 64), "JPEG")[:900],
        "dot.png": encode(Image.new("RGB", (1, 1))),
        "drawing.svg": b"<svg/>",
        "empty.png": b"",
        "again.jpg": encode(ImageOps.mirror(cat(4, 64)), "JPEG"),
        "giant.png": encode(Image.new("1", (17_000, 17_000))),
        "notes/README.md": b"# Cats",
        ".DS_Store": b"junk",
        "__MACOSX/._cat-000.png": b"junk",
        "deep/.hidden/cat.png": b"junk",
    }
    write = write_folder if kind == "folder" else write_zip
    compression = () if kind == "folder" else (zipfile.ZIP_STORED,)
    images = load_images(write(tmp_path / "in" / "cats", files, *compression), image_size=64)
    assert {"deep/er/and deeper/cat.webp", "Кошка/猫 🐈.png"} <= set(images.names)
    assert len(images) == 11
    assert images.pixels.shape == (11, 3, 64, 64)
    assert images.pixels.dtype == torch.uint8
    said = reasons(images)
    first, copy = sorted(["again.jpg", "cat-004.png"], reverse=kind == "zip")  # as they come
    assert said.pop(copy) == f"near-duplicate of {first}"
    assert said == {
        "text.jpg": "not an image",
        "cut.jpg": "damaged or incomplete",
        "dot.png": "1x1 is too small (at least 32 pixels)",
        "drawing.svg": "not an image",
        "empty.png": "not an image",
        "giant.png": "17000x17000 is more than 256 megapixels",
        "notes/README.md": "not an image",
    }


def test_too_few_pictures_are_a_sentence_that_says_why(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^empty has 0 usable pictures; at least 8 are needed\."):
        load_images(tmp_path / "empty", image_size=SIZE)
    few = write_folder(tmp_path / "few", cats(7) | {"a.txt": b"text"})
    with pytest.raises(ValueError, match=r"7 usable .*Left out \(1\): a\.txt: not an image\.$"):
        load_images(few, image_size=SIZE)
    write_folder(few, {"eighth.png": encode(cat(99))})
    assert len(load_images(few, image_size=SIZE)) == 8


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path):
    (tmp_path / "cat.zip").write_text("a text file called cat.zip")
    whole = write_zip(tmp_path / "whole.zip", cats(8)).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    for name in ("cat.zip", "cut.zip"):
        with pytest.raises(ValueError, match=f"^{name} is neither a folder nor a zip archive"):
            open_source(tmp_path / name)
    with pytest.raises(ValueError, match="There is no folder or zip archive at"):
        open_source(tmp_path / "nowhere")


def test_links_in_a_folder_are_named_and_not_followed(folder, tmp_path):
    outside = write_folder(tmp_path / "outside", {"secret.png": encode(cat(50))})
    (folder / "file.png").symlink_to(outside / "secret.png")
    (folder / "folder").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    images = load_images(folder, image_size=SIZE)
    assert len(images) == 12
    assert reasons(images) == {"file.png": "a link", "folder": "a link", "loop": "a link"}


def test_a_folder_that_cannot_be_opened_is_named(folder, monkeypatch):
    """Permissions would not do: the tests may be root's."""
    (folder / "more" / "private").mkdir(parents=True)
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    said = reasons(load_images(folder, image_size=32))
    assert said == {"more/private": "a folder that cannot be opened"}


def test_a_folder_name_that_is_no_unicode_does_no_harm(folder):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (folder / name).write_bytes(encode(cat(40)))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    images = load_images(folder, image_size=SIZE)
    assert name in images.names
    assert len(images.split(1)[1]) == 1


def test_no_entry_of_a_zip_leads_out_of_it(tmp_path):
    picture = encode(cat(60))
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write_zip(tmp_path / "a" / "b" / "evil.zip", cats(8))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../x.png", "a/../../x.png", "/etc/x.png", "//host/x.png", "C:/x.png"):
            archive.writestr(name, picture)
        archive.writestr("..\\x.png", picture)
        archive.writestr("\\x.png", picture)
        archive.writestr("(nameless)", picture)
        archive.writestr(link, "../../x.png")
    patch_entry(path, "(nameless)", 28, "<H", 0)  # the length of its name: none at all
    raw = path.read_bytes()  # and its ten letters go from the directory too
    at = raw.rindex(b"(nameless)")
    size, offset = struct.unpack_from("<II", raw, len(raw) - 10)
    end = raw[-22:-10] + struct.pack("<II", size - 10, offset) + raw[-2:]
    path.write_bytes(raw[:at] + raw[at + 10 : -22] + end)

    before = sorted(tmp_path.rglob("*"))
    images = load_images(path, image_size=SIZE)
    assert sorted(tmp_path.rglob("*")) == before
    assert len(images) == 8
    said = reasons(images)
    assert said.pop("link.png") == "a link"
    assert len(said) == 8
    assert set(said.values()) == {"a name that points outside the archive"}


def test_entries_that_would_eat_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 1_000_000)
    bomb = encode(Image.new("RGB", (600, 500)), "BMP")  # 900 KB of zeros
    files = cats(8) | {"bomb.bmp": bomb, "large.png": b"\x01" * 1_000_001, "liar.png": bomb}
    path = write_zip(tmp_path / "bombs.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("lzma.png", b"x" * 100, zipfile.ZIP_LZMA)
        archive.writestr("bzip2.png", b"x" * 100, zipfile.ZIP_BZIP2)
        archive.writestr("locked.png", encode(cat(70)))
    patch_entry(path, "liar.png", 24, "<I", 500)  # the header promises 500 bytes
    patch_entry(path, "locked.png", 8, "<H", 1)
    images = load_images(path, image_size=SIZE)
    assert len(images) == 8
    assert reasons(images) == {
        "bomb.bmp": "a suspicious compression ratio",
        "large.png": "more than 1 MB",
        "liar.png": "a damaged zip entry",
        "lzma.png": "an unsupported kind of compression",
        "bzip2.png": "an unsupported kind of compression",
        "locked.png": "encrypted",
    }


def test_a_large_file_in_a_folder_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 100_000)
    (folder / "large.bin").write_bytes(bytes(100_001))
    assert reasons(load_images(folder, image_size=SIZE)) == {"large.bin": "more than 0 MB"}


def test_of_two_entries_with_one_name_only_the_checked_one_is_read(tmp_path):
    path = write_zip(tmp_path / "twice.zip", cats(8))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("cat-000.png", encode(cat(80)))
    images = load_images(path, image_size=SIZE)
    assert reasons(images) == {"cat-000.png": "a second file of the same name"}
    assert len(images) == len(set(images.names)) == 8


def test_damage_inside_a_zip_costs_that_picture_only(tmp_path):
    path = write_zip(tmp_path / "cats.zip", cats(9), zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"cat-003.png") + 200
    raw[at : at + 20] = bytes(20)
    path.write_bytes(raw)
    assert reasons(load_images(path, image_size=SIZE)) == {"cat-003.png": "a damaged zip entry"}


@pytest.mark.slow
def test_a_hundred_thousand_entries_are_listed_in_seconds(tmp_path, monkeypatch):
    path = tmp_path / "many.zip"
    path.write_bytes(directory_of(100_001))
    started = time.monotonic()
    names, skipped = Zip(path).names()
    assert (len(names), skipped) == (100_001, [])
    assert time.monotonic() - started < 10
    monkeypatch.setattr(sources, "MAX_ENTRIES", 100_000)
    with pytest.raises(ValueError, match=r"many\.zip has more than 100,000 files"):
        Zip(path).names()
