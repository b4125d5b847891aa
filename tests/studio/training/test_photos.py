"""What an owner may upload, and what is made of it: nothing trusted, a reason for every file."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
import zipfile
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from drawing import cat, cats, encode, write_zip
from PIL import Image
from studio_fixtures import crafted_png, wait_until

from diffusion.data import load_images
from studio import disk
from studio.training import arrivals, set_file
from studio.training import photos as uploads
from studio.training.photos import NoSuchSet, PictureSets


@pytest.fixture
def sets(tmp_path) -> PictureSets:
    return PictureSets(tmp_path / "uploads")


@pytest.fixture
def pictures(sets):
    return sets.create()


def add(pictures, files) -> None:
    for name, data in files.items():
        pictures.add(name, [data])


def reasons(pictures) -> dict[str, str]:
    return {item.name: item.reason for item in pictures.scan().left_out}


def names(pictures) -> list[str]:
    return [picture.name for picture in pictures.scan().pictures]


def zip_bytes(path, files) -> bytes:
    return write_zip(path / "some.zip", files).read_bytes()


# -- honest pictures --------------------------------------------------------------------------


def test_pictures_come_in_one_by_one_or_in_a_zip(pictures, tmp_path):
    files = cats(12, 64)
    first = dict(list(files.items())[:5])
    rest = {f"deep/er/{name}": data for name, data in list(files.items())[5:]}
    add(pictures, first)
    pictures.add("more.zip", [zip_bytes(tmp_path, rest)])
    view = pictures.scan()
    assert len(view.pictures) == 12
    assert view.waiting == 0
    assert not view.left_out
    assert [p.number for p in view.pictures] == list(range(1, 13))
    assert view.pictures[0].name == "cat-000.png"
    assert view.pictures[5].name == "more.zip/deep/er/cat-005.png"
    assert sorted(p.name for p in pictures.folder.iterdir()) == ["incoming", "pictures", "set.json"]
    assert not list((pictures.folder / "incoming").iterdir())


def test_a_zip_in_many_chunks_is_the_same(pictures, tmp_path):
    data = zip_bytes(tmp_path, cats(8, 64))
    pictures.add("x.zip", (data[i : i + 100] for i in range(0, len(data), 100)))
    assert len(names(pictures)) == 8


def test_a_large_picture_is_stored_small_and_a_small_one_as_it_is(pictures):
    small = cat(1, 80)
    add(pictures, {"small.png": encode(small), "large.png": encode(cat(2, 1500))})
    assert [p.width for p in pictures.scan().pictures] == [80, uploads.STORED_SIDE]
    np.testing.assert_array_equal(np.array(pictures.open(1)), np.array(small))


def test_the_centre_is_what_the_network_sees_unless_another_square_is_chosen(pictures):
    wide = Image.new("RGB", (240, 120), "red")
    wide.paste("blue", (60, 0, 180, 120))
    pictures.add("wide.png", [encode(wide)])
    assert pictures.scan().pictures[0].box == (60, 0, 180, 120)
    assert pictures.thumbnail(1, 16).getcolors() == [(256, (0, 0, 255))]
    pictures.crop(1, [176.4, 39.6, 63.7])
    assert pictures.picture(1).box == (176, 40, 240, 104)
    assert (0, 0, 255) not in [c for n, c in pictures.thumbnail(1, 16).getcolors() if n > 16]
    pictures.crop(1, None)
    assert pictures.picture(1).box == (60, 0, 180, 120)


@pytest.mark.parametrize(
    "square",
    [
        [], [0, 0], [0, 0, 0], [0, 0, 63], [-1, 0, 80], [0, -1, 80], [30, 0, 80], [0, 30, 80],
        [0, 0, 97], [0, 0, 1e300], [0, 0, float("nan")], [0, 0, "80"], [0, 0, True], "abc", 7,
        {"left": 1}, [[0], 0, 80], [0, 0, 10**400],
    ],
)  # fmt: skip
def test_a_square_that_cannot_be(pictures, square):
    pictures.add("cat.png", [encode(cat(1, 96))])
    with pytest.raises(ValueError, match="quare"):
        pictures.crop(1, square)
    assert pictures.picture(1).square is None


def test_the_chosen_squares_are_written_for_a_training(pictures, tmp_path):
    add(pictures, cats(9, 96))
    pictures.add("huge.png", [encode(cat(77, 1200))])
    pictures.crop(1, [10, 10, 80])
    pictures.remove(2)
    paths = pictures.squares(tmp_path / "squares")
    assert len(paths) == 9
    assert len({path.name for path in paths}) == 9
    sizes = [Image.open(path).size for path in paths]
    assert sizes[:2] == [(80, 80), (96, 96)]
    assert sizes[-1] == (uploads.SQUARE_SIDE, uploads.SQUARE_SIDE)
    expected = np.array(cat(0, 96).crop((10, 10, 90, 90)))
    np.testing.assert_array_equal(np.array(Image.open(paths[0])), expected)


def test_too_few_pictures_are_told(pictures, tmp_path):
    add(pictures, cats(8, 64))
    pictures.remove(3)
    with pytest.raises(ValueError, match="There are 7 usable photos; at least 8"):
        pictures.squares(tmp_path / "squares")
    pictures.put_back(3)
    assert len(pictures.squares(tmp_path / "squares")) == 8


def arrive(pictures, files) -> None:
    for name, data in files.items():
        with pictures.receive(name) as incoming:
            incoming.write(data)
            incoming.keep()


def test_nothing_starts_before_all_is_looked_at(tmp_path):
    pictures = uploads.PictureSet(tmp_path / "set")
    (pictures.folder / "pictures").mkdir(parents=True)
    add(pictures, cats(8, 64))
    arrive(pictures, {"late.png": encode(cat(50, 64))})
    with pytest.raises(ValueError, match="still being checked"):
        pictures.squares(tmp_path / "squares")
    pictures.look()
    assert len(pictures.squares(tmp_path / "squares")) == 9


def test_two_who_look_at_once_take_nothing_in_twice(tmp_path, monkeypatch):
    pictures = uploads.PictureSet(tmp_path / "set")
    (pictures.folder / "pictures").mkdir(parents=True)
    arrive(pictures, cats(6, 64))
    decode = uploads.decode_photo
    monkeypatch.setattr(uploads, "decode_photo", lambda data: time.sleep(0.02) or decode(data))
    threads = [threading.Thread(target=pictures.look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(pictures)) == 6
    assert not reasons(pictures)


def test_a_restart_finds_everything_again(sets, pictures, tmp_path):
    add(pictures, cats(8, 96))
    pictures.add("bad.png", [b"bad"])
    pictures.crop(1, [0, 0, 80])
    pictures.remove(2)
    with pictures.receive("late.png") as incoming:  # arrived, but not looked at when it ended
        incoming.write(encode(cat(50, 64)))
        incoming.keep()
    again = PictureSets(sets.folder).current()
    wait_until(lambda: again.scan().waiting == 0)
    assert again.scan().pictures[:8] == pictures.scan().pictures[:8]
    assert names(again)[8:] == ["late.png"]
    assert reasons(again) == {"bad.png": "not an image"}


def test_a_damaged_record_is_an_empty_set(sets, pictures):
    add(pictures, cats(8, 64))
    for text in ("", "[]", "{", '{"pictures": {"1": {"square": 1}}, "left_out": []}', "null"):
        (pictures.folder / "set.json").write_text(text)
        assert PictureSets(sets.folder).current().scan().pictures == ()


# -- pictures that are left out ---------------------------------------------------------------


def test_every_file_that_is_left_out_has_its_reason(pictures):
    whole = encode(cat(1, 64))
    jpeg = encode(cat(5, 200), "JPEG")
    add(
        pictures,
        {
            "empty.png": b"",
            "notes.txt": b"hello",
            "cat.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
            "page.html": b"<script>alert(1)</script>",
            "cut.jpg": jpeg[: len(jpeg) // 2],
            "small.png": encode(cat(2, 63)),
            "thin.png": encode(Image.new("RGB", (4000, 70))),
            "first.png": whole,
            "again.png": whole,
            "near.jpg": encode(cat(1, 64), "JPEG", quality=90),
            "mirror.png": encode(cat(1, 64).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
            "bomb.png": crafted_png(60_000, 60_000, rows=10),
        },
    )
    assert names(pictures) == ["first.png"]
    found = reasons(pictures)
    assert found.pop("bomb.png").endswith("megapixels")
    assert found == {
        "empty.png": "not an image",
        "notes.txt": "not an image",
        "cat.svg": "not an image",
        "page.html": "not an image",
        "cut.jpg": "damaged or incomplete",
        "small.png": "63x63 is too small (at least 64 pixels each way)",
        "thin.png": "4000x70 is too long and narrow",
        "again.png": "the same file as first.png",
        "near.jpg": "near-duplicate of first.png",
        "mirror.png": "near-duplicate of first.png",
    }


def test_of_two_alike_the_one_that_was_not_removed_is_trained_on(pictures):
    add(pictures, {"blurred.png": encode(cat(1, 64)), "sharp.jpg": encode(cat(1, 64), "JPEG")})
    assert names(pictures) == ["blurred.png"]
    pictures.remove(1)
    assert names(pictures) == ["blurred.png", "sharp.jpg"]
    assert [p.removed for p in pictures.scan().pictures] == [True, False]
    pictures.put_back(1)
    assert names(pictures) == ["blurred.png"]


def test_the_owner_can_keep_both_of_two_alike(sets, pictures):
    add(pictures, {"one.png": encode(cat(1, 64)), "two.jpg": encode(cat(1, 64), "JPEG")})
    ((copy, original),) = pictures.scan().copies
    assert (copy.name, original.name) == ("two.jpg", "one.png")
    pictures.keep_both(copy.number)
    assert names(pictures) == ["one.png", "two.jpg"]
    assert not reasons(pictures)
    assert [p.kept for p in PictureSets(sets.folder).current().scan().pictures] == [False, True]


def on_white(seed: int) -> bytes:
    """A cut-out as shops show them: nine tenths are white."""
    picture = Image.new("RGB", (256, 256), "white")
    picture.paste(cat(seed, 88), (84, 84))
    return encode(picture)


def test_what_the_set_counts_a_training_takes(pictures, tmp_path):
    """Cut-outs on white, small squares, and two that the owner wants although they are alike."""
    add(pictures, {f"{seed}.png": on_white(seed) for seed in range(7)})
    add(pictures, {"small.png": encode(cat(20, 64)), "again.jpg": encode(cat(20, 64), "JPEG")})
    add(pictures, {"again white.png": on_white(3)[:-12] + b"x"})
    (copy, _) = next(pair for pair in pictures.scan().copies if pair[0].name == "again.jpg")
    pictures.keep_both(copy.number)
    counted = len(pictures.scan().chosen)
    assert counted == 9
    pictures.squares(tmp_path / "squares")
    for size in (64, 256):  # a larger network too
        images = load_images(tmp_path / "squares", image_size=size, photos=False, keep_copies=True)
        assert len(images) == counted


def test_a_crop_decides_anew_what_is_alike(pictures):
    wide = Image.new("RGB", (256, 128))
    wide.paste(cat(1, 128), (0, 0))
    wide.paste(cat(2, 128), (128, 0))
    add(pictures, {"left.png": encode(wide), "right.bmp": encode(wide, "BMP")})
    assert names(pictures) == ["left.png"]
    pictures.crop(1, [0, 0, 128])
    pictures.crop(2, [128, 0, 128])
    assert names(pictures) == ["left.png", "right.bmp"]


def test_a_set_of_an_earlier_version_is_still_there(sets, pictures):
    """Its pictures had two hashes where they have a look now."""
    add(pictures, cats(9, 64))
    path = pictures.folder / "set.json"
    values = json.loads(path.read_text())
    for item in values["pictures"].values():
        del item["look"], item["kept"]
        item |= {"hash": "ab" * 32, "mirror": "cd" * 32}
    path.write_text(json.dumps(values))
    assert PictureSets(sets.folder).current().scan() == pictures.scan()


def test_of_a_polyglot_only_the_pixels_are_kept(pictures, tmp_path):
    payload = b"<script>alert(1)</script>"
    add(
        pictures,
        {
            "with.png": encode(cat(1, 64)) + zip_bytes(tmp_path, {"x.html": payload}) + payload,
            "with.gif": encode(cat(2, 64), "GIF") + payload,
            "with.jpg": encode(cat(3, 64), "JPEG", comment=payload),
        },
    )
    assert len(names(pictures)) == 3
    for path in (pictures.folder / "pictures").iterdir():
        assert payload not in path.read_bytes()
        assert path.read_bytes().startswith(b"\x89PNG")


def test_no_more_than_the_limit(pictures, monkeypatch, tmp_path):
    monkeypatch.setattr(uploads, "MAX_PICTURES", 3)
    add(pictures, cats(4, 64))
    more = dict(list(cats(6, 64).items())[4:])
    pictures.add("more.zip", [zip_bytes(tmp_path, more)])
    assert len(names(pictures)) == 3
    assert set(reasons(pictures).values()) == {"over the limit of 3 pictures"}
    assert len(reasons(pictures)) == 3


def test_many_reasons_are_counted_beyond_a_limit(pictures, monkeypatch, tmp_path):
    monkeypatch.setattr(set_file, "MAX_LEFT_OUT", 5)
    pictures.add("bad.zip", [zip_bytes(tmp_path, {f"{i}.png": b"bad" for i in range(12)})])
    view = pictures.scan()
    assert (len(view.left_out), view.more_left_out) == (5, 7)


def test_the_same_file_again_takes_no_place(pictures, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_PICTURES", 8)
    add(pictures, cats(8, 64))
    add(pictures, {f"again/{name}": data for name, data in cats(8, 64).items()})
    assert reasons(pictures)["again/cat-003.png"] == "the same file as cat-003.png"
    assert len(list((pictures.folder / "pictures").iterdir())) == 8


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("猫/кот/قطة/🐈.png", "猫/кот/قطة/🐈.png"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("/etc/passwd", "/etc/passwd"),
        ("C:\\cat.png", "C:\\cat.png"),
        ("a\0b\nc\u202ed.png", "a�b�c�d.png"),
        ("\udcff.png", "?.png"),
        ("", "unnamed"),
        ("x" * 5000, "x" * 199 + "…"),
        ("CON", "CON"),
    ],
)
def test_names_are_only_ever_shown(pictures, name, shown, tmp_path):
    pictures.add(name, [encode(cat(1, 64))])
    assert names(pictures) == [shown]
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(file.name for file in files) == ["0001.png", "set.json"]


# -- archives ---------------------------------------------------------------------------------


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


def bomb(gigabytes: int, copies: int) -> bytes:
    """A zip whose entries share one compressed stream of zeros: 42 kB that would open to more."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    size = 1_000_000
    stream = squeeze.compress(bytes(size)) + squeeze.flush()
    checksum = zlib.crc32(bytes(size))
    local = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 33, checksum, len(stream), size, 1, 0
    )
    data = bytearray(local + b"a" + stream)
    start = len(data)
    for i in range(copies):
        name = b"%04d" % i
        data += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, checksum, len(stream) * 6,
            gigabytes * size, len(name), 0, 0, 0, 0, 0, 0,
        ) + name  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, copies, copies, len(data) - start, start, 0)
    return bytes(data + end)


def test_a_zip_bomb_is_no_work(pictures):
    data = bomb(1, 800)
    assert len(data) < 60_000
    start = time.monotonic()
    pictures.add("42.zip", [data])
    assert time.monotonic() - start < 5
    assert names(pictures) == []
    assert len(reasons(pictures)) == 800
    written = sum(path.stat().st_size for path in pictures.folder.rglob("*") if path.is_file())
    assert written < 300_000


def test_what_is_read_out_of_one_archive_is_limited(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_UNPACKED_BYTES", 10_000)
    pictures.add("much.zip", [zip_bytes(tmp_path, cats(12, 64))])
    taken = len(names(pictures))
    assert 0 < taken < 12
    assert list(reasons(pictures).values()) == ["the archive holds too many bytes"] * (12 - taken)


def test_an_archive_of_a_hundred_thousand_entries(pictures, tmp_path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(100_000):
            archive.writestr(f"{i}", b"")
    start = time.monotonic()
    pictures.add("many.zip", [path.read_bytes()])
    assert time.monotonic() - start < 2
    assert reasons(pictures) == {"many.zip": "an archive of more than 10,000 files"}


@pytest.mark.parametrize("name", ["{:0200}", "{}"])
def test_a_directory_that_is_too_large_is_not_even_read(pictures, tmp_path, monkeypatch, name):
    """Python makes objects of it all, at once: with long names, or with zip64 beyond 65,535."""
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20_000 if len(name) > 2 else 66_000):
            archive.writestr(name.format(i), b"")
    monkeypatch.setattr(arrivals, "Zip", None)
    pictures.add("many.zip", [path.read_bytes()])
    assert reasons(pictures) == {"many.zip": "an archive of more than 10,000 files"}


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


# -- limits and the disk ----------------------------------------------------------------------


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


# -- several sets -----------------------------------------------------------------------------


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
    ago = time.time() - uploads.SET_SECONDS - 60
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
