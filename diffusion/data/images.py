"""From bytes somebody sent us to an upright sRGB picture, safely.

What stands beside the pixels never decides over them: of the metadata only the orientation and the
colour profile are used, where they can be read, and nothing of it is kept.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, features

from . import containers

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
HEIC_BRANDS = {  # after "ftyp"
    b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevm", b"hevs", b"hevx",
    b"mif1", b"mif2", b"msf1",
}  # fmt: skip
AVIF_BRANDS = {b"avif", b"avis"}
MAX_PIXELS = 64_000_000  # of a stranger's picture, before decoding
MAX_PHOTO_PIXELS = 256_000_000  # of the owner's
MAX_DECODED_BYTES = 1_100_000_000  # that a decoded picture may take, whoever sent it
LARGE_BYTES = 64_000_000  # decoded ones from here on are decoded one at a time
WHOLE_PIXELS = 8_000_000  # larger pictures are made smaller as they are decoded, but their
LEAST_SIDE = 1280  # shorter side keeps as many pixels: more than any caller needs
BAND_PIXELS = 1_000_000  # that are looked at together on the way

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half a picture is refused, whatever others have set
# Pillow's own limit: a warning from here on, an error from twice as many. Ours are lower.
Image.MAX_IMAGE_PIXELS = MAX_PHOTO_PIXELS
# Nor is there a line in a log for whatever Pillow finds odd in a file: strangers could write many.
# (catch_warnings is not thread-safe.)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
# Pixels in pieces that malloc takes from the system and gives back at once (M_MMAP_THRESHOLD is
# 32 MB at most); Pillow's own of 16 MB stay in the hands of whatever thread has decoded.
Image.core.set_block_size(64 * 2**20)

_one_large = threading.Lock()
_srgb = ImageCms.createProfile("sRGB")


def decode_image(data: bytes) -> Image.Image:
    """First frame of an encoded picture: RGB, turned upright, transparency over white.

    Colours are converted to sRGB, and a large picture comes smaller: ``info["size"]``, the only
    thing in ``info``, is the size that it has in the file. Raises ValueError with the reason, in
    words that fit after "cat.jpg: ".
    """
    return _decode(data, _kind(data, trusted=False), MAX_PIXELS)


def decode_photo(data: bytes) -> Image.Image:
    """``decode_image`` for what the machine's owner sends: larger ones, and HEIC, which telephones
    write.

    Its decoder is a large library in C++, so no stranger's picture gets there. Raises ValueError.
    """
    return _decode(data, _kind(data, trusted=True), MAX_PHOTO_PIXELS)


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size`` pixels by area averaging, then the centre square."""
    return ImageOps.fit(
        image,
        (size, size),
        method=Image.Resampling.BOX if min(image.size) >= size else Image.Resampling.BICUBIC,
    )


# -- formats ----------------------------------------------------------------------------------


def _kind(data: bytes, *, trusted: bool) -> tuple[str, ...]:
    """Pillow's names of the formats that the data may be in. Raises ValueError for a picture of a
    format that is not read, with its name."""
    brands = containers.brands(data)
    if brands & AVIF_BRANDS:
        if not features.check("avif"):
            raise ValueError("an AVIF picture, for which this Pillow is too old")
        return ("AVIF",)
    if brands & HEIC_BRANDS:
        if not trusted:
            raise ValueError("a HEIC picture, a format that is not read here")
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ValueError("a HEIC photo, which needs the package pillow-heif") from None
        register_heif_opener(thumbnails=False)
        return ("HEIF",)
    name = containers.other_format(data)
    if name:
        raise ValueError(f"a {name} picture, a format that is not read here")
    return FORMATS


# -- decoding ---------------------------------------------------------------------------------


def _decode(data: bytes, formats: tuple[str, ...], max_pixels: int) -> Image.Image:
    pixels, beside = containers.bare(data)
    too_large = f"more than {max_pixels // 1_000_000} megapixels"
    try:
        image = Image.open(io.BytesIO(pixels), formats=formats)
    except Image.DecompressionBombError:
        raise ValueError(too_large) from None
    except Exception:  # whatever a broken header does to the format's parser
        raise ValueError("not an image") from None
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"{width}x{height} is {too_large}")
    factor = _factor(width, height)
    turn = _quarter_turns(image, beside)
    profile = beside.profile or image.info.get("icc_profile")
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (width // factor, height // factor))
        factor = _factor(*image.size) if max(image.size) < max(width, height) else factor
    needed = _decoded_bytes(image, width * height)
    if needed > MAX_DECODED_BYTES:
        raise ValueError(f"{width}x{height} in this format takes more than 1 GB of memory")
    try:
        with _one_large if needed > LARGE_BYTES else nullcontext():
            image.load()
            small = _shrunk(image, factor)
            del image  # before another large one takes its place
    except _Unusable:
        raise
    except Exception:  # truncated or corrupt data surface as almost any exception
        raise ValueError("damaged or incomplete") from None
    result = _to_srgb(small, profile)
    if turn is not None:
        result = result.transpose(turn)
    upright = (width, height) if turn not in SIDEWAYS else (height, width)
    result.info = {"size": upright}
    return result


class _Unusable(ValueError):
    """A picture that is whole, but no picture that one can see."""


def _factor(width: int, height: int) -> int:
    """By which whole number a picture is made smaller."""
    if width * height <= WHOLE_PIXELS:
        return 1
    return max(1, min(width, height) // LEAST_SIDE)


def _decoded_bytes(image: Image.Image, pixels: int) -> int:
    """About the most memory that decoding takes; ``pixels`` are those in the file."""
    if image.format in ("HEIF", "AVIF"):  # there, in the plug-in, and in Pillow
        return (9 if image.format == "HEIF" else 14) * pixels
    wide = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "LA": 4, "PA": 4}
    here = wide.get(image.mode, 4) * image.size[0] * image.size[1]
    if image.info.get("progressive"):  # all coefficients are kept
        here += 2 * 3 * pixels
    return here


def _bands(image: Image.Image, rows: int) -> Iterator[tuple[int, Image.Image]]:
    """The picture in strips of so many rows, each with the first of them."""
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _shrunk(image: Image.Image, factor: int) -> Image.Image:
    """Eight bits, nothing transparent, and ``factor`` times smaller: L, RGB, CMYK or LAB.

    Beside the picture there are never more than a few strips of it in memory.
    """
    flat = _flattener(image)
    rows = factor * max(1, BAND_PIXELS // image.width // factor)
    if factor == 1 and rows >= image.height:
        return flat(image)
    result = None
    size = (-(-image.width // factor), -(-image.height // factor))
    for top, band in _bands(image, rows):
        if flat is _over_white and factor > 1:  # of small strips that is done in no time
            band = band.convert("RGBA").convert("RGBa").reduce(factor).convert("RGBA")
        strip = flat(band)
        if strip.size[0] > size[0]:
            strip = strip.reduce(factor)
        if result is None:
            result = Image.new(strip.mode, size)
        result.paste(strip, (0, top // factor))
    assert result is not None  # there is at least one strip
    return result


def _flattener(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What makes of a strip of ``image`` one of eight bits over white. Raises _Unusable."""
    if image.mode == "F":
        peak = max(_finite_peak(image), 1e-9)
        return lambda strip: _from_array((np.asarray(strip) * (255 / peak)).clip(0, 255).round())
    if image.mode.startswith("I"):  # 16 bits and more
        values = np.arange(2**16, dtype=np.uint32)
        lower = ((values * 255 + 2**15 - 1) // (2**16 - 1)).astype(np.uint8)
        return lambda strip: _from_array(lower[np.asarray(strip).clip(0, 2**16 - 1)])
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        return _over_white
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return lambda strip: strip
    return lambda strip: strip.convert("L" if strip.mode == "1" else "RGB")


def _from_array(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def _finite_peak(image: Image.Image) -> float:
    peaks = []
    for _, band in _bands(image, max(1, BAND_PIXELS // image.width)):
        values = np.asarray(band)
        if not np.isfinite(values).all():
            raise _Unusable("some of its pixels are no numbers (NaN)")
        peaks.append(float(values.max()))
    return max(peaks)


def _over_white(strip: Image.Image) -> Image.Image:
    strip = strip.convert("RGBA")
    white = Image.new("RGBA", strip.size, "white")
    return Image.alpha_composite(white, strip).convert("RGB")


# -- orientation and colours ------------------------------------------------------------------

SIDEWAYS = (
    Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270,
)  # fmt: skip
TURNS = {  # EXIF orientation to what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def _quarter_turns(image: Image.Image, beside: containers.Beside) -> Image.Transpose | None:
    """What makes a picture upright, where that can be read."""
    orientation = beside.orientation
    if orientation is None:
        exif = image.info.get("exif")
        orientation = containers.orientation_of(exif) if isinstance(exif, bytes) else None
    if orientation is None and image.format == "TIFF":
        with suppress(Exception):
            # Only the images of TIFF have these tags.
            orientation = image.tag_v2.get(containers.ORIENTATION)  # type: ignore[attr-defined]
    return None if orientation is None else TURNS.get(orientation)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB, the colours being those of sRGB; a profile that cannot be used is as good as none."""
    result = None
    if profile and len(profile) <= containers.MAX_PROFILE_BYTES:
        with suppress(Exception):  # of whatever a broken profile does to LittleCMS
            result = _convert(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    if result is None and image.mode == "LAB":
        result = _convert(image, ImageCms.createProfile("LAB"))
    return result or image.convert("RGB")


def _convert(
    image: Image.Image, profile: ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile
) -> Image.Image:
    # Whites stay white. Black points are matched: LittleCMS' perceptual tables differ by maker.
    converted = ImageCms.profileToProfile(
        image, profile, _srgb, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    assert converted is not None  # as it is in place only
    return converted
