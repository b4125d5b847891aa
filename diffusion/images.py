"""From bytes somebody sent us to an upright RGB picture, safely; and a hash to tell copies."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFile, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
HEIC_BRANDS = {  # after "ftyp"
    b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevm", b"hevs", b"hevx",
    b"mif1", b"mif2", b"msf1",
}  # fmt: skip
MAX_PIXELS = 64_000_000  # before decoding; a 64 megapixel RGB picture takes 192 MB
HASH_SIDE = 16  # the difference hash has HASH_SIDE ** 2 bits
HASH_DISTANCE = 24  # differing bits up to which two pictures count as copies

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half a picture is refused, whatever others have set
# Pillow's warning comes above its own limit, ours is lower. (catch_warnings is not thread-safe.)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode_image(data: bytes) -> Image.Image:
    """First frame of an encoded picture: RGB, turned upright, transparency over white.

    Raises ValueError with the reason, in words that fit after "cat.jpg: ".
    """
    return _decode(data, FORMATS)


def decode_photo(data: bytes) -> Image.Image:
    """``decode_image`` for what the machine's owner sends: HEIC too, which telephones write.

    Its decoder is a large library in C++, so no stranger's picture gets there. Raises ValueError.
    """
    if data[4:8] != b"ftyp" or data[8:12] not in HEIC_BRANDS:
        return _decode(data, FORMATS)
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ValueError("a HEIC photo, for which the package pillow-heif is missing") from None
    register_heif_opener(thumbnails=False)
    return _decode(data, ("HEIF",))


def _decode(data: bytes, formats: Sequence[str]) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS // 1_000_000} megapixels") from None
    except Exception:  # whatever a broken header does to the format's parser
        raise ValueError("not an image") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} is more than {MAX_PIXELS // 1_000_000} megapixels")
    try:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except Exception:  # truncated or corrupt data surface as almost any exception
        raise ValueError("corrupt or cut short") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more per channel
        values = np.asarray(image, dtype=np.float64)
        peak = 65535.0 if image.mode.startswith("I") else max(values.max(), 1e-9)
        image = Image.fromarray((values / peak * 255).clip(0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size`` pixels by area averaging, then the centre square."""
    return ImageOps.fit(
        image,
        (size, size),
        method=Image.Resampling.BOX if min(image.size) >= size else Image.Resampling.BICUBIC,
    )


def difference_hash(image: Image.Image) -> np.ndarray:
    """256 bits, as -1 and 1 (int8): is each cell of a 17x16 grey thumbnail darker than the next?"""
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    return np.where(grey[:, :-1] < grey[:, 1:], 1, -1).astype(np.int8).ravel()


def find_copies(
    hashes: Sequence[np.ndarray], mirrored: Sequence[np.ndarray], *, distance: int = HASH_DISTANCE
) -> dict[int, int]:
    """Index of each near-copy to the earlier picture that it repeats, mirror images too."""
    if not hashes:
        return {}
    plain, mirror = (np.stack(h).astype(np.float32) for h in (hashes, mirrored))
    same = plain.shape[1] - 2 * distance  # +-1 vectors: dot product = bits - 2 * distance
    copies: dict[int, int] = {}
    original = np.ones(len(plain), dtype=bool)
    for start in range(0, len(plain), 256):
        block, others = plain[start : start + 256], slice(0, start + 256)
        close = (block @ plain[others].T >= same) | (block @ mirror[others].T >= same)
        for index, row in enumerate(close, start):
            earlier = np.flatnonzero(row[:index] & original[:index])
            if len(earlier):
                copies[index], original[index] = int(earlier[0]), False
    return copies
