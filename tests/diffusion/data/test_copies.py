"""Copies are told from pictures that only share a background."""

import time

import pytest
from drawing import cat, encode
from PIL import Image, ImageEnhance, ImageOps

from diffusion.data.copies import find_copies, look_of
from diffusion.data.images import decode_image


def copies_of(*images: Image.Image) -> dict[int, int]:
    return find_copies([look_of(image) for image in images])


def test_copies_are_found_mirrored_and_recompressed_too():
    original = cat(3, 80)
    again = decode_image(encode(original.resize((120, 120)), "JPEG", quality=60))
    found = copies_of(cat(1, 80), original, cat(2, 80), again, ImageOps.mirror(again))
    assert found == {3: 1, 4: 1}


def test_different_pictures_are_no_copies():
    assert copies_of(*(cat(seed, 80) for seed in range(60))) == {}
    assert find_copies([]) == {}


def test_a_thousand_copies_all_point_to_the_first():
    """Also across the blocks in which they are compared, and in no time."""
    looks = [look_of(cat(0, 80))] * 2_000
    started = time.monotonic()
    assert find_copies(looks) == dict.fromkeys(range(1, 2_000), 0)
    assert time.monotonic() - started < 2


def framed(picture: Image.Image, kind: str) -> Image.Image:
    """A picture that fills a ninth of white or black, or stands between bars."""
    size = (180, 320) if kind == "letterbox" else (300, 300)
    frame = Image.new("RGB", size, "white" if kind == "white" else "black")
    side = 180 if kind == "letterbox" else 100
    frame.paste(picture.resize((side, side)), ((size[0] - side) // 2, (size[1] - side) // 2))
    return frame


@pytest.mark.parametrize("kind", ["white", "black", "letterbox"])
def test_different_cats_before_the_same_nothing_are_no_copies(kind):
    assert copies_of(*(framed(cat(seed, 100), kind) for seed in range(40))) == {}


@pytest.mark.parametrize("kind", ["white", "black", "letterbox"])
def test_copies_before_nothing_are_found_all_the_same(kind):
    first = framed(cat(3, 100), kind)
    copies = [
        decode_image(encode(first, "JPEG", quality=60)),
        first.resize((first.width * 2 // 3, first.height * 2 // 3), Image.Resampling.BICUBIC),
        ImageOps.mirror(first),
        ImageEnhance.Brightness(first).enhance(1.1),
        first.crop((2, 2, first.width - 2, first.height - 2)),
    ]
    found = copies_of(framed(cat(4, 100), kind), first, *copies)
    assert found == dict.fromkeys(range(2, 7), 1)


def test_what_is_kept_is_no_copy_and_has_none_less():
    looks = [look_of(cat(seed, 80)) for seed in (1, 1, 2, 1)]
    assert find_copies(looks, [False, True, False, False]) == {3: 0}


def test_blank_pictures_are_copies_of_each_other():
    assert copies_of(Image.new("RGB", (90, 90)), cat(1, 80), Image.new("RGB", (64, 64))) == {2: 0}
