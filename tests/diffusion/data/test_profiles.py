"""Colour profiles: converted on reading, and as good as none where they are too long."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from drawing import cat, encode
from PIL import Image

from diffusion.data import containers
from diffusion.data.containers import MAX_PROFILE_BYTES, bare
from diffusion.data.images import decode_image, decode_photo


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


D50 = (0.9642, 1.0, 0.8249)
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))


def matrix_profile(columns: tuple, gamma: float) -> bytes:
    """An ICC profile of three primaries (XYZ at D50) and a power law."""

    def xyz(values: tuple) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = [(b"wtpt", xyz(D50))]
    for name, column in zip((b"r", b"g", b"b"), columns, strict=True):
        tags += [(name + b"XYZ", xyz(column)), (name + b"TRC", curve)]
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(
        ">I4sI4s4s4s", at + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    header = header.ljust(36, b"\0") + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", *(round(v * 65536) for v in D50))
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("decode", [decode_image, decode_photo])
def test_colours_are_converted_from_their_profile(format, decode):
    exact = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = exact.get(format, {})
    flat = Image.new("RGB", (32, 32), (120, 180, 100))
    data = encode(flat, format, icc_profile=matrix_profile(ADOBE_RGB, 2.2), **options)
    image = decode(data)
    linear = (np.array([120, 180, 100]) / 255) ** (563 / 256) @ np.array(ADOBE_RGB)
    to_srgb = np.array(
        [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    )
    light = (to_srgb @ linear).clip(0, 1)
    right = 255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    assert np.abs(pixels(image).mean((0, 1)) - right).max() < 3
    assert np.abs(right - [120, 180, 100]).max() > 15
    assert "icc_profile" not in image.info


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("spare", "used"), [(0, True), (-1, False)])
def test_a_profile_that_is_too_long_is_as_good_as_none(format, spare, used, monkeypatch):
    profile = matrix_profile(ADOBE_RGB, 2.2) + bytes(100_000)  # in several parts of a JPEG
    monkeypatch.setattr("diffusion.data.containers.MAX_PROFILE_BYTES", len(profile) + spare)
    flat = Image.new("RGB", (32, 32), (120, 180, 100))
    image = decode_image(encode(flat, format, icc_profile=profile))
    assert bool(np.abs(pixels(image) - (120, 180, 100)).max() > 15) is used


def with_profile(png: bytes, profile: bytes) -> bytes:
    """A PNG with a profile behind its header."""
    data = b"icc\0\0" + zlib.compress(profile, 1)
    chunk = struct.pack(">I", len(data)) + b"iCCP" + data
    return png[:33] + chunk + struct.pack(">I", zlib.crc32(b"iCCP" + data)) + png[33:]


@pytest.mark.parametrize(("length", "read"), [(-1, True), (0, True), (1, False), (10**8, False)])
def test_a_packed_profile_is_unpacked_up_to_a_limit(length, read, monkeypatch):
    """However much it would become: 100 MB of zeros are packed in some hundred kB."""
    most, make = 0, zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self.inner = make()

        @property
        def eof(self) -> bool:
            return self.inner.eof

        def decompress(self, *how) -> bytes:
            nonlocal most
            unpacked = self.inner.decompress(*how)
            most = max(most, len(unpacked))
            return unpacked

    monkeypatch.setattr(containers.zlib, "decompressobj", Watched)
    profile = bytes(MAX_PROFILE_BYTES + length)
    pixels, beside = bare(with_profile(encode(cat(1, 16)), profile))
    assert beside.profile == (profile if read else None)
    assert 0 < most <= MAX_PROFILE_BYTES
    assert b"iCCP" not in pixels
