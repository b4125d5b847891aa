"""Copies are told from pictures that only share a background."""

import time

from drawing import cat, encode
from PIL import Image, ImageOps

from diffusion.copies import find_copies, look_of
from diffusion.images import decode_image


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
