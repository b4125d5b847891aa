"""Anything that somebody may send in place of a picture, and how copies are told."""

import io
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing import cat, encode
from PIL import Image, ImageFile, features

from diffusion.codec import to_float, to_uint8
from diffusion.data import images
from diffusion.data.images import decode_image, decode_photo, fit_square

ROOT = Path(__file__).resolve().parents[3]


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises ``width`` x ``height`` grey pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"I am a text file called cat.jpg.\n", id="text"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', id="svg"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", id="postscript"),
        pytest.param(b"%PDF-1.4\n", id="pdf"),
        pytest.param(b"GIF89a<html><script>alert(1)</script></html>", id="html in a gif's skin"),
        pytest.param(b"\xff\xd8\xff", id="three bytes of jpeg"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="png signature"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(data):
    with pytest.raises(ValueError, match=r"^(not an image|damaged or incomplete)$"):
        decode_image(data)


@pytest.mark.parametrize("format", ["PPM", "PCX", "TGA", "ICO"])
def test_formats_that_nobody_photographs_in_are_refused(format):
    """Each decoder is a way in, EPS with a whole Ghostscript behind it."""
    with pytest.raises(ValueError, match=r"^not an image$"):
        decode_image(encode(cat(0), format))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_cut_file_is_refused_and_the_whole_one_is_not(format):
    data = encode(cat(0, 64), format)
    assert decode_image(data).size == (64, 64)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ValueError, match=r"not an image|damaged or incomplete"):
            decode_image(data[: int(share * len(data))])


@pytest.fixture
def heic() -> bytes:
    """A 64x48 photo as a telephone writes it."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    return encode(cat(0, 64).crop((0, 0, 64, 48)), "HEIF", quality=90)


def test_a_telephones_photo_is_read_for_those_who_are_trusted(heic):
    assert heic[4:12] == b"ftypheic"
    photo = decode_photo(heic)
    assert photo.mode == "RGB"
    assert np.abs(pixels(photo) - pixels(cat(0, 64))[:48]).mean() < 8
    with pytest.raises(ValueError, match=r"^a HEIC picture, a format that is not read here$"):
        decode_image(heic)
    other = encode(cat(0), "JPEG")
    np.testing.assert_array_equal(pixels(decode_photo(other)), pixels(decode_image(other)))


def test_what_is_wrong_with_a_telephones_photo_is_said(heic, monkeypatch):
    for cut in (12, 40, len(heic) // 2, len(heic) - 9):
        with pytest.raises(ValueError, match=r"^(not an image|damaged or incomplete)$"):
            decode_photo(heic[:cut])
    with pytest.raises(ValueError, match=r"^not an image$"):
        decode_photo(b"\0\0\0\x1cftypisom" + bytes(64))  # a film
    monkeypatch.setattr("diffusion.data.images.MAX_PHOTO_PIXELS", 64 * 48 - 1)
    with pytest.raises(ValueError, match="64x48 is more than"):
        decode_photo(heic)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match="needs the package pillow-heif"):
        decode_photo(heic)


@pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (100_000, 700)])
def test_a_giant_is_refused_by_its_header(size):
    started = time.monotonic()
    with pytest.raises(ValueError, match="more than 64 megapixels"):
        decode_image(png_header(*size))
    assert time.monotonic() - started < 1


def test_a_giant_is_refused_before_it_is_decoded(monkeypatch):
    blank = encode(Image.new("1", (9_000, 9_000)))  # below Pillow's own limit, 20 KB
    assert len(blank) < 100_000

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(ValueError, match="9000x9000 is more than 64 megapixels"):
        decode_image(blank)


STRANGE = """
from diffusion.data.images import decode_image
heads = [b"II*\\0\\x08\\0\\0\\0" + bytes([1, 0, n, 1, 2, 0, 9, 0, 0, 0, 99]) for n in range(9)]
for data in [b"II*\\0\\x08\\0\\0\\0", *heads]:
    try:
        decode_image(data)
    except ValueError as error:
        print(error)
"""


def test_what_is_odd_in_a_file_writes_no_line_into_a_log():
    done = subprocess.run([sys.executable, "-c", STRANGE], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "not an image\n" * 10
    assert done.stderr == ""


def test_one_pixel_is_a_picture():
    image = decode_image(encode(Image.new("RGB", (1, 1), (1, 2, 3))))
    assert image.size == (1, 1)
    assert image.getpixel((0, 0)) == (1, 2, 3)


def test_cmyk_becomes_rgb():
    image = decode_image(encode(Image.new("RGB", (8, 8), (200, 40, 90)).convert("CMYK"), "JPEG"))
    assert image.mode == "RGB"
    assert np.abs(pixels(image) - [200, 40, 90]).max() <= 4


def test_sixteen_bits_keep_their_brightness():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    source = Image.fromarray(ramp)
    assert source.mode == "I;16"
    image = decode_image(encode(source))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(pixels(image)[..., 0].ravel(), np.arange(256))


def test_sixteen_bits_take_a_strip_at_a_time_and_no_larger_numbers():
    data = encode(Image.new("I;16", (3000, 3000), 65535))
    tracemalloc.start()
    try:
        image = decode_image(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert peak < 12e6  # 18 MB are all its pixels, and 8 MB a strip of doubles


def test_transparency_lies_over_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 250, 0, 0])
    palette.putdata([0, 1])
    image = decode_image(encode(palette, transparency=0))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (250, 0, 0)]

    half = decode_image(encode(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert half.getpixel((0, 0)) == (127, 127, 127)
    grey = decode_image(encode(Image.new("LA", (1, 1), (0, 0))))
    assert grey.getpixel((0, 0)) == (255, 255, 255)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phone_photo_is_turned_upright(orientation):
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste("red", (0, 0, 24, 16))  # red top left, blue bottom right
    upright.paste("blue", (24, 16, 48, 32))
    turn = Image.Transpose
    undo = [
        None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM,
        turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270,
    ][orientation - 1]  # fmt: skip
    held = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encode(held, "JPEG", exif=exif, quality=95))
    assert image.size == (48, 32)
    assert np.abs(pixels(image)[8, 12] - [255, 0, 0]).max() < 20
    assert np.abs(pixels(image)[24, 36] - [0, 0, 255]).max() < 20


def test_a_picture_with_a_zip_behind_it_is_only_a_picture():
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w") as archive:
        archive.writestr("evil.py", "print('evil')")
    picture = encode(cat(1), "JPEG")
    both = decode_image(picture + hidden.getvalue())
    np.testing.assert_array_equal(pixels(both), pixels(decode_image(picture)))


def test_all_256_values_survive_the_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    floats = to_float(values)
    assert floats.dtype == torch.float32
    assert floats.min() == -1
    assert floats.max() == 1
    assert torch.equal(to_uint8(floats), values)
    assert torch.equal(to_uint8(floats.half()), values)
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]
    assert to_uint8(torch.tensor([0.003])).item() == 128  # nearest, not down


def test_a_smaller_square_is_the_mean_of_its_areas():
    checks = Image.fromarray((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    assert set(pixels(fit_square(checks, 4)).ravel()) <= {127, 128}
    wide = Image.new("RGB", (30, 10), "white")
    wide.paste("red", (10, 0, 20, 10))
    assert fit_square(wide, 5).getcolors() == [(25, (255, 0, 0))]
    assert fit_square(wide, 20).size == (20, 20)


# -- what stands beside the pixels ------------------------------------------------------------


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def with_chunk(png: bytes, added: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return png[:33] + added + png[33:]


LONG = b"x" * 3_000_000
ZIPPED = zlib.compress(LONG)


@pytest.mark.parametrize(
    "added",
    [
        pytest.param(chunk(b"tEXt", b"Comment\0" + LONG), id="long text"),
        pytest.param(chunk(b"zTXt", b"Comment\0\0" + ZIPPED), id="text that unpacks to megabytes"),
        pytest.param(chunk(b"iCCP", b"icc\0\0" + ZIPPED), id="a profile of megabytes"),
        pytest.param(chunk(b"iCCP", b"icc\0\0broken"), id="a broken profile"),
        pytest.param(chunk(b"tEXt", b"Comment\0hello", 0), id="a wrong checksum"),
        pytest.param(chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"), id="broken exif"),
    ],
)
def test_what_is_beside_a_pngs_pixels_never_costs_it(added):
    original = cat(4, 64)
    image = decode_image(with_chunk(encode(original), added))
    np.testing.assert_array_equal(pixels(image), pixels(original))
    assert image.info == {"size": (64, 64)}


@pytest.mark.parametrize("rest", [b"", b"\xff" * 40, b"\x1a\x01\2\0" + b"\xff" * 8], ids=len)
def test_a_photo_with_broken_exif_is_read_and_turned(rest):
    """Orientation 6, and behind it whatever a program has made of the rest."""
    entries = b"\x12\x01\3\0\1\0\0\0\6\0\0\0" + rest
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 30) + entries
    jpeg = encode(cat(4, 64).crop((0, 0, 64, 48)), "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    image = decode_image(jpeg[:2] + segment + jpeg[2:])
    assert image.size == (48, 64)
    upright = cat(4, 64).crop((0, 0, 64, 48)).transpose(Image.Transpose.ROTATE_270)
    assert np.abs(pixels(image) - pixels(upright)).mean() < 4


def test_a_gif_with_megabytes_of_comments_is_read_at_once():
    gif = encode(cat(4, 64), "GIF")
    start = gif.index(b",", 13 + 768)
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0"
    started = time.monotonic()
    image = decode_image(gif[:start] + comment + gif[start:])
    assert time.monotonic() - started < 5
    np.testing.assert_array_equal(pixels(image), pixels(decode_image(gif)))


# -- large ones -------------------------------------------------------------------------------


def test_large_pictures_come_smaller_and_say_how_large_they_were(monkeypatch):
    monkeypatch.setattr("diffusion.data.images.WHOLE_PIXELS", 10_000)
    monkeypatch.setattr("diffusion.data.images.LEAST_SIDE", 50)
    monkeypatch.setattr("diffusion.data.images.BAND_PIXELS", 3_000)
    original = cat(5, 400).crop((0, 0, 400, 230))
    expected = pixels(original.resize((100, 58), Image.Resampling.BOX))
    glass = original.convert("RGBA")
    glass.putalpha(Image.new("L", original.size, 255))
    decoded, shrunk = [], images._shrunk
    monkeypatch.setattr(images, "_shrunk", lambda i, f: decoded.append(i.size) or shrunk(i, f))
    for picture, format in ((original, "PNG"), (glass, "PNG"), (original, "JPEG")):
        image = decode_image(encode(picture, format))
        assert image.size == (100, 58)
        assert image.info["size"] == (400, 230)
        assert np.abs(pixels(image) - expected)[:57].mean() < 3
    assert decoded == [(400, 230), (400, 230), (100, 58)]  # the last one never was larger
    clear = Image.new("RGBA", (400, 230), (0, 0, 0, 0))
    assert decode_image(encode(clear)).getextrema() == ((255, 255),) * 3


def test_the_owners_photos_may_be_larger_than_a_strangers():
    data = encode(Image.new("L", (16_384, 6_200)), "JPEG")  # 101 megapixels
    with pytest.raises(ValueError, match="16384x6200 is more than 64 megapixels"):
        decode_image(data)
    photo = decode_photo(data)
    assert min(photo.size) >= 1280
    assert photo.info["size"] == (16_384, 6_200)


def test_what_would_take_too_much_memory_is_refused(monkeypatch):
    monkeypatch.setattr("diffusion.data.images.MAX_DECODED_BYTES", 64 * 64 * 4 - 1)
    assert decode_image(encode(cat(1, 64).convert("L"))).size == (64, 64)
    with pytest.raises(ValueError, match="takes more than 1 GB of memory"):
        decode_image(encode(cat(1, 64)))
    monkeypatch.setattr("diffusion.data.images.MAX_DECODED_BYTES", 64 * 64 * 4)
    assert decode_image(encode(cat(1, 64), "JPEG")).size == (64, 64)
    dear = [encode(cat(1, 64), "JPEG", progressive=True)]
    dear += [encode(cat(1, 64), "AVIF")] if features.check("avif") else []
    for data in dear:
        with pytest.raises(ValueError, match="takes more than 1 GB of memory"):
            decode_image(data)


# -- strange pixels ---------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_picture_of_no_numbers_is_refused_and_not_black(odd):
    values = np.linspace(0, 3, 64 * 64, dtype=np.float32).reshape(64, 64)
    ramp = decode_image(encode(Image.fromarray(values), "TIFF"))
    assert ramp.getextrema() == ((0, 255),) * 3
    values[5, 7] = odd
    with pytest.raises(ValueError, match=r"^some of its pixels are no numbers \(NaN\)$"):
        decode_image(encode(Image.fromarray(values), "TIFF"))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read():
    image = decode_image(encode(cat(1, 64), "AVIF", quality=90))
    assert np.abs(pixels(image) - pixels(cat(1, 64))).mean() < 8


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\xff\x52", "JPEG 2000"),
        (b"\xff\x0a", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera raw"),
    ],
)
def test_a_format_that_is_not_read_is_named(head, name):
    for decode in (decode_image, decode_photo):
        with pytest.raises(ValueError, match=f"^a {name} picture, a format that is not read here$"):
            decode(head + bytes(100))
