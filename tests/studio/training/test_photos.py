"""What an owner may upload, and what is made of it: nothing trusted, a reason for every file."""

from __future__ import annotations

import json
import threading
import time
from unittest.mock import Mock

import numpy as np
import pytest
from drawing import cat, cats, encode
from photo_sets import add, names, reasons, zip_bytes
from PIL import Image, ImageCms
from studio_fixtures import crafted_png, wait_until

from diffusion.data.dataset import load_images
from studio.training import photos as uploads
from studio.training import set_file
from studio.training.photos import PictureSet
from studio.training.picture_sets import PictureSets

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


def test_a_picture_is_decoded_where_its_memory_is_given_back(pictures, monkeypatch):
    """In the one thread for that, also where several are looked at."""
    decode, threads = uploads.decode_photo, set()

    def noting(data):
        threads.add(threading.current_thread().name)
        return decode(data)

    monkeypatch.setattr(uploads, "decode_photo", noting)
    add(pictures, cats(2, 64))
    assert len(pictures.scan().pictures) == 2
    assert threads == {"decoder_0"}


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


@pytest.fixture
def unwatched(tmp_path) -> PictureSet:
    """A set at which no thread looks."""
    (tmp_path / "uploads" / "1" / "pictures").mkdir(parents=True)
    return PictureSet(tmp_path / "uploads" / "1")


def after_a_restart(unwatched: PictureSet) -> PictureSet:
    again = PictureSets(unwatched.folder.parent).current()
    wait_until(lambda: not list((again.folder / "incoming").iterdir()))
    return again


def test_a_zip_that_a_restart_broke_off_is_read_again_without_a_word(unwatched, tmp_path):
    files = {**cats(9, 96), "notes.txt": b"hello", "bad.png": b"bad"}
    arrive(unwatched, {"cats.zip": zip_bytes(tmp_path, files)})

    def broken_off(paths: object) -> None:
        unwatched._save()
        raise SystemExit

    unwatched._done_with = broken_off
    with pytest.raises(SystemExit):
        unwatched.look()
    before, after = unwatched.scan(), after_a_restart(unwatched).scan()
    assert (len(after.pictures), len(after.left_out)) == (9, 1 + 1 - after.captions)
    assert (after.pictures, after.left_out) == (before.pictures, before.left_out)


def test_a_file_that_ends_the_server_each_time_is_left_out_in_the_end(unwatched, monkeypatch):
    arrive(unwatched, {"large.png": encode(cat(1, 64))})
    monkeypatch.setattr(uploads, "decode_photo", Mock(side_effect=SystemExit))
    for _ in range(3):
        with pytest.raises(SystemExit):
            PictureSet(unwatched.folder).look()
    monkeypatch.undo()
    assert "ended 3 times" in reasons(after_a_restart(unwatched))["large.png"]


def test_what_was_arriving_when_a_server_was_killed_is_gone(unwatched):
    with unwatched.receive("half.png") as incoming:
        incoming.write(b"half")
        (part,) = (unwatched.folder / "incoming").iterdir()
        PictureSet(unwatched.folder)
        assert not part.exists()


@pytest.mark.parametrize("name", ["/", ".", "..", ""])
def test_a_name_that_is_none_harms_no_set(pictures, name):
    add(pictures, cats(8, 64))
    pictures.add(name, [encode(cat(20, 64))])
    assert len(pictures.scan().pictures) == 9


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
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    add(
        pictures,
        {
            "with.png": encode(cat(1, 64)) + zip_bytes(tmp_path, {"x.html": payload}) + payload,
            "with.gif": encode(cat(2, 64), "GIF") + payload,
            "with.jpg": encode(cat(3, 64), "JPEG", comment=payload),
            "with.webp": encode(cat(4, 64), "WEBP", icc_profile=profile),
            "with.tiff": encode(cat(5, 64), "TIFF", icc_profile=profile),
        },
    )
    assert len(names(pictures)) == 5
    for path in (pictures.folder / "pictures").iterdir():
        assert payload not in path.read_bytes()
        assert path.read_bytes().startswith(b"\x89PNG")
        with Image.open(path) as image:
            assert not image.info


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


def test_captions_beside_photos_are_counted_and_nothing_more(pictures):
    for name, data in cats(3, 64).items():
        pictures.add(f"Mia/{name}", [data])
    for name in ("Mia/cat-000.txt", "Mia/cat-001.JSON", "Mia/cat-002.png.txt"):
        pictures.add(name, [b"a photo of mia " + name.encode()])
    for name in ("Mia/notes.txt", "cat-000.txt", "Mia/cat-000.doc"):
        pictures.add(name, [b"something else " + name.encode()])
    view = pictures.scan()
    assert view.captions == 3
    assert [skipped.name for skipped in view.left_out] == [
        "Mia/notes.txt", "cat-000.txt", "Mia/cat-000.doc",
    ]  # fmt: skip
