"""What a picture's file holds beside its pixels, read here and kept from the decoders.

Broken EXIF, a comment with a wrong checksum or megabytes of text make Pillow refuse a picture whose
pixels are whole. So a PNG, JPEG or GIF is handed on without any of that; the two things that count,
orientation and colour profile, are read by hand before, and left alone where they are damaged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

ORIENTATION = 0x0112  # the EXIF tag
MAX_PROFILE_BYTES = 4_000_000  # larger ones are as good as none

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}

# How files of formats begin that people keep pictures in, and that are not read here.
OTHER_FORMATS = {
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51\xff\x52": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"8BPS": "Photoshop",
    b"gimp xcf": "GIMP",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance",
    b"#?RGBE": "Radiance",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"SIMPLE  =": "FITS",
    b"II\xbc\x01": "JPEG XR",
    b"FUJIFILMCCD-RAW": "camera raw",
    b"FOVb": "camera raw",
    b"\0MRM": "camera raw",
    b"IIRO": "camera raw",
    b"IIU\0": "camera raw",
    b"II*\0\x10\0\0\0CR": "camera raw",
}


@dataclass(frozen=True)
class Beside:
    """What was found beside the pixels and counts: the EXIF orientation (1 to 8) and the ICC
    profile, None where there is none or it cannot be read."""

    orientation: int | None = None
    profile: bytes | None = None


def brands(data: bytes) -> set[bytes]:
    """What a file says it is that begins with a box "ftyp", as HEIC, AVIF and films do."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[i : i + 4] for i in range(16, end, 4))}


def other_format(data: bytes) -> str | None:
    """The name of a picture's format that is not read here, where one can tell."""
    if b"crx " in brands(data):
        return "camera raw"
    return next((name for head, name in OTHER_FORMATS.items() if data.startswith(head)), None)


def bare(data: bytes) -> tuple[bytes, Beside]:
    """A file with nothing in it but its (first) picture, and what was beside it.

    From where it is damaged on, it is left as it is, for the decoder to say so.
    """
    if data.startswith(PNG_SIGNATURE):
        return _bare_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _bare_jpeg(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _bare_gif(data), Beside()
    return data, Beside()


def orientation_of(exif: bytes) -> int | None:
    """The orientation in EXIF data, 1 to 8, however broken the rest of it is."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(order + "H", exif, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", exif, at)
        if tag == ORIENTATION:
            (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, at + 8)
            return value if 1 <= value <= 8 else None
    return None


# -- PNG --------------------------------------------------------------------------------------


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the contents of each whole chunk, whatever its checksum says."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            return
        yield data[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


def _bare_png(data: bytes) -> tuple[bytes, Beside]:
    view = memoryview(data)
    parts: list[bytes | memoryview] = [PNG_SIGNATURE]
    orientation = profile = None
    at = len(PNG_SIGNATURE)
    for kind, start, end in png_chunks(data):
        at = end + 4
        if kind in PNG_PIXELS:
            parts.append(view[start - 8 : at])
        elif kind == b"iCCP":
            profile = _inflated(data[start:end].partition(b"\0")[2][1:])
        elif kind == b"eXIf":
            orientation = orientation_of(data[start:end])
        if kind == b"IEND":
            break
    else:
        parts.append(view[at:])  # of a chunk that is cut short
    return b"".join(parts), Beside(orientation, profile)


def _inflated(packed: bytes) -> bytes | None:
    with suppress(zlib.error):
        unpacking = zlib.decompressobj()
        profile = unpacking.decompress(packed, MAX_PROFILE_BYTES)
        return profile if unpacking.eof else None
    return None


# -- JPEG -------------------------------------------------------------------------------------

SCAN = 0xDA  # from here on there are pixels
JFIF, EXIF, ICC, ADOBE, COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE


def _bare_jpeg(data: bytes) -> tuple[bytes, Beside]:
    view = memoryview(data)
    parts: list[bytes | memoryview] = [data[:2]]
    orientation, profile = None, {}
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == SCAN or marker < 0xC0 or 0xD0 <= marker < 0xDA or end > len(data):
            break
        contents = data[at + 4 : end]
        if marker == EXIF and contents.startswith(b"Exif\0"):
            orientation = orientation or orientation_of(contents)
        elif marker == ICC and contents.startswith(b"ICC_PROFILE\0"):
            profile[contents[12:13]] = contents[14:]
        if not (0xE0 <= marker <= 0xEF or marker == COMMENT) or marker in (JFIF, ADOBE):
            parts.append(view[at:end])
        at = end
    parts.append(view[at:])
    joined = b"".join(profile[number] for number in sorted(profile))
    return b"".join(parts), Beside(orientation, joined or None)


# -- GIF --------------------------------------------------------------------------------------


def _bare_gif(data: bytes) -> bytes:
    """The first frame and what tells how to show it."""
    view = memoryview(data)
    try:
        at = 13 + _colours(data[10])
        parts = [view[:at]]
        while data[at] == 0x21:
            end = _end_of_blocks(data, at + 2)
            if data[at + 1] == 0xF9:  # how it is shown: which colour is transparent
                parts.append(view[at:end])
            at = end
        if data[at] == 0x2C:
            end = _end_of_blocks(data, at + 11 + _colours(data[at + 9]))
            return b"".join([*parts, view[at:end], b";"])
    except IndexError:  # it is cut short
        return data
    return data


def _colours(flags: int) -> int:
    """Bytes of the colour table that flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _end_of_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1
