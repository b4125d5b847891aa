"""Which pictures of a set are usable: not too small, and not copies of each other.

What an upload counts and what a training accepts is decided here, by the same functions.

Two pictures are copies if they agree twice. First in the directions of their coarse gradients, in
which flat areas have no say: two cats before white agree in nothing but their outline. Then in
their grey values, wherever there is something to see, and away from outlines: those of a cut-out or
of a letterbox are alike in all pictures of a set. Both hold for pictures that were encoded anew,
resized, mirrored, brightened or cropped by a hair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .images import fit_square

MIN_IMAGES = 8  # that a training needs
MIN_SIDE = 64  # pixels that are always enough, also for a network that draws larger pictures

LOOK_SIDE = 48
COARSE = 3  # pixels of a look in a cell of the coarse one, each way
FLAT = 6.0  # grey levels: a smaller step from pixel to pixel is none
FLAT_COARSE = 3.0  # and from cell to cell
LIKE = 0.8  # cosine of the coarse gradients from which on a closer look is taken
SAME = 0.85  # correlation of the grey values from which on two pictures are copies
LEAST_SEEN = 20  # pixels that a closer look needs
BLOCK = 256  # pictures that are compared with all earlier ones at once


def require_enough(count: int, who_has: str, why: str = "", *, what: str = "pictures") -> None:
    """Raises ValueError for fewer pictures than a training needs. The sentence begins with
    ``who_has``; ``why`` follows it."""
    if count < MIN_IMAGES:
        sentence = f"{who_has} {count} usable {what}; at least {MIN_IMAGES} are needed. {why}"
        raise ValueError(sentence.rstrip())


def look_of(image: Image.Image) -> np.ndarray:
    """What copies are told by: the centre square, grey and small, uint8 [48, 48]."""
    return np.asarray(fit_square(image, LOOK_SIDE).convert("L"))


def find_copies(looks: Sequence[np.ndarray], kept: Sequence[bool] | None = None) -> dict[int, int]:
    """Index of each copy to the earlier picture that it repeats, mirror images too.

    looks: of the pictures, in order (``look_of``); kept: which of them stay whatever they are like.
    """
    if not len(looks):
        return {}
    grey = np.stack(looks)
    gradients = _gradients(grey)
    copies: dict[int, int] = {}
    original = np.ones(len(grey), dtype=bool)
    for start in range(0, len(grey), BLOCK):
        block = slice(start, start + BLOCK)
        earlier = gradients[: start + BLOCK].T
        turned = _gradients(grey[block, :, ::-1])
        alike = (gradients[block] @ earlier >= LIKE, turned @ earlier >= LIKE)
        details = _details(grey[block])
        for row, (look, seen) in enumerate(zip(grey[block], details, strict=True)):
            index = start + row
            if kept is not None and kept[index]:
                continue
            found = []
            for step, close in zip((1, -1), alike, strict=True):  # as it is, and mirrored
                others = np.flatnonzero(close[row, :index] & original[:index])
                if len(others):
                    same = _agree(look[:, ::step], seen[:, ::step], grey[others])
                    found += others[same].tolist()
            if found:
                copies[index], original[index] = min(found), False
    return copies


def _gradients(grey: np.ndarray) -> np.ndarray:
    """Coarse gradients of looks [N, 48, 48], as unit vectors [N, D] float32; zero where flat.

    Their roots are taken, or a few strong edges would decide. What is flat all over is like its
    kind: the last number stands for that.
    """
    side = LOOK_SIDE // COARSE
    cells = grey.reshape(-1, side, COARSE, side, COARSE).mean((2, 4), dtype=np.float32)
    steps = (np.diff(cells, axis=2), np.diff(cells, axis=1))
    vectors = np.concatenate([step.reshape(len(grey), -1) for step in steps], axis=1)
    vectors = np.sign(vectors) * np.sqrt(np.maximum(np.abs(vectors) - FLAT_COARSE, 0))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.concatenate([vectors, lengths == 0], axis=1, dtype=np.float32)
    return vectors / np.where(lengths == 0, 1, lengths)


def _agree(look: np.ndarray, seen: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether others [N, 48, 48] have the grey values of ``look``, up to brightness and contrast,
    in the pixels ``seen``: bool [N]."""
    a, b = look[seen].astype(np.float32), others[:, seen].astype(np.float32)
    a, b = a - a.mean(), b - b.mean(axis=1, keepdims=True)
    return b @ a >= SAME * np.linalg.norm(a) * np.linalg.norm(b, axis=1)


def _details(grey: np.ndarray) -> np.ndarray:
    """Where looks are not flat, without outlines before something flat: bool [N, 48, 48]."""
    values = grey.astype(np.int16)
    busy: np.ndarray = np.zeros(grey.shape, dtype=bool)
    across, down = (np.abs(np.diff(values, axis=axis)) > FLAT for axis in (2, 1))
    busy[:, :, 1:] |= across
    busy[:, :, :-1] |= across
    busy[:, 1:] |= down
    busy[:, :-1] |= down
    # Single pixels are noise, or gaps in it.
    busy = np.asarray(sum(_neighbours(busy, diagonal=True)) >= 5)
    for _ in range(2):
        inner = np.logical_and.reduce(_neighbours(busy, diagonal=False))
        busy = np.where(_enough(inner), inner, busy)
    return np.where(_enough(busy), busy, True)


def _enough(seen: np.ndarray) -> np.ndarray:
    return seen.sum(axis=(1, 2), keepdims=True) >= LEAST_SEEN


def _neighbours(masks: np.ndarray, *, diagonal: bool) -> list[np.ndarray]:
    """Masks [N, H, W] and themselves moved by one pixel each way, as uint8."""
    padded = np.pad(masks.astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    height, width = masks.shape[1:]
    return [
        padded[:, i : i + height, j : j + width]
        for i in range(3)
        for j in range(3)
        if diagonal or 1 in (i, j)
    ]
