"""From a folder or a zip of pictures to batches of uint8 tensors."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..codec import to_float
from ..names import composed
from .changes import digest, record_of
from .copies import MIN_SIDE, find_copies, look_of, require_enough
from .images import decode_photo, fit_square
from .sources import Skipped, Source, join_labels, open_sources, rows_of

IN_MEMORY_BYTES = 4 * 2**30  # pixels kept in memory; larger sets stream from workers
GRACE_SECONDS = 5  # between SIGTERM and the end of a data worker
CROP_MARGIN = 1.25  # photos are kept at 5/4 of the size and cropped anew each time


# -- a set of pictures ------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSet:
    """Pictures of one size, ready to train on.

    ``pixels`` is uint8 [N, 3, S, S], S being ``image_size``, or 5/4 of it for photos, which are
    cropped anew each time; None where the set is too large and streams. ``classes`` is int64 [N],
    -1 where there is no label.
    """

    source: Source
    names: tuple[str, ...]
    image_size: int
    stored_size: int
    classes: Tensor
    labels: tuple[str, ...]
    pixels: Tensor | None
    skipped: tuple[Skipped, ...] = field(default=())
    unmatched_rows: int | None = None  # of a CSV of labels, that name no picture; None without one
    digests: tuple[str, ...] = ()  # of each picture's file; "" for what is nobody's picture

    def __len__(self) -> int:
        return len(self.names)

    def summary(self, *, lines: int = 10) -> str:
        """How many pictures there are, and why so many ``lines`` of the others were left out."""
        told = [f"  {skipped.name}: {skipped.reason}" for skipped in self.skipped[:lines]]
        more = ["  …"] if len(self.skipped) > lines else []
        counts = f"{len(self):,} pictures, {len(self.skipped):,} left out"
        return "\n".join([counts, *self._labels_told(), *told, *more])

    def _labels_told(self) -> list[str]:
        unlabelled = int((self.classes < 0).sum())
        if self.unmatched_rows is None or not (self.unmatched_rows or unlabelled):
            return []
        return [
            f"{self.unmatched_rows:,} rows name no picture, {unlabelled:,} pictures have no label"
        ]

    def subset(self, indices: Sequence[int]) -> ImageSet:
        """The pictures at ``indices``, in that order."""
        index = torch.as_tensor(indices, dtype=torch.long)
        return replace(
            self,
            names=tuple(self.names[i] for i in index.tolist()),
            classes=self.classes[index],
            pixels=None if self.pixels is None else self.pixels[index],
            digests=tuple(self.digests[i] for i in index.tolist()) if self.digests else (),
        )

    def joined(self, other: ImageSet) -> ImageSet:
        """These pictures, then the other's. Both are in memory."""
        assert self.pixels is not None
        assert other.pixels is not None
        return replace(
            self,
            names=self.names + other.names,
            classes=torch.cat([self.classes, other.classes]),
            pixels=torch.cat([self.pixels, other.pixels]),
            digests=self.digests + other.digests,
        )

    @property
    def record(self) -> dict[str, str]:
        """Name and digest of each picture (see ``changes``)."""
        return record_of(self.names, self.digests)

    def split(self, holdout: int, *, at_most: float = 0.1) -> tuple[ImageSet, ImageSet]:
        """Training and held-out part, of which at most a tenth, or the share ``at_most``, is held
        out. It is chosen by a hash of the names, so that the choice survives when pictures are
        added or the order changes."""
        kept, held = split_names(self.names, holdout, at_most=at_most)
        return self.subset(kept), self.subset(held)

    def get(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pictures [B, 3, S, S] and their classes [B]."""
        if self.pixels is not None:
            index = indices.to(self.pixels.device)
            return self.pixels[index], self.classes[indices]
        pictures = [
            _to_tensor(self.source, self.names[i], self.stored_size) for i in indices.tolist()
        ]
        return torch.stack(pictures), self.classes[indices]

    @property
    def label_counts(self) -> tuple[int, ...]:
        """Pictures with each label."""
        counts = torch.bincount(self.classes[self.classes >= 0], minlength=len(self.labels))
        return tuple(counts.tolist())

    @property
    def in_memory(self) -> bool:
        """Whether ``get`` only has to look."""
        return self.pixels is not None

    def x0(self, pictures: Tensor, generator: torch.Generator, *, mirror: bool) -> Tensor:
        """What ``get`` gave, cropped, half of it mirrored if so wished: float32 in [-1, 1]."""
        pictures = random_crop(pictures, self.image_size, generator)
        return to_float(random_mirror(pictures, generator) if mirror else pictures)

    def to(self, device: torch.device) -> ImageSet:
        """The same set with its pixels on ``device``."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.to(device))


def split_names(
    names: Sequence[str], holdout: int, *, at_most: float
) -> tuple[list[int], list[int]]:
    """Indices of the training and of the held-out part (see ``ImageSet.split``)."""
    count = min(holdout, int(len(names) * at_most))
    digests = [hashlib.sha256(name.encode(errors="surrogatepass")).digest() for name in names]
    order = sorted(range(len(names)), key=digests.__getitem__)
    return sorted(order[count:]), sorted(order[:count])


def load_images(
    paths: str | Path | Sequence[str | Path],
    *,
    image_size: int,
    labels_csv: str | Path | Sequence[str | Path] | None = None,
    labels: Sequence[str] | None = None,
    photos: bool | None = None,
    keep_copies: bool = False,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> ImageSet:
    """Read every usable picture below a folder or in a zip, or in several of them.

    Of pictures that repeat each other the first is kept, or with ``keep_copies`` all are.

    ``photos`` chooses between a plain area resize (False: for pictures that are square and aligned)
    and random crops from 5/4 of the size (True); None looks whether all are square. ``labels``
    fixes the classes and their order, by default those of the CSV, sorted. Raises ValueError if
    fewer than 8 pictures are left.
    """
    paths, tables = _several(paths), _several(labels_csv)
    source, by_name = open_sources(paths), join_labels(tables)
    title = " and ".join(Path(path).name for path in paths)
    names, skipped = source.names()
    smallest = min(image_size // 2, MIN_SIDE)
    with ThreadPoolExecutor() as pool:
        scanned = list(pool.map(lambda name: _scan(source, name, smallest), names))
    skipped += [Skipped(n, s) for n, s in zip(names, scanned, strict=True) if isinstance(s, str)]
    found = [(n, s) for n, s in zip(names, scanned, strict=True) if not isinstance(s, str)]
    copies = {} if keep_copies else find_copies([scan.look for _, scan in found])
    skipped += [Skipped(found[i][0], f"near-duplicate of {found[j][0]}") for i, j in copies.items()]
    kept = [item for i, item in enumerate(found) if i not in copies]
    require_enough(len(kept), f"{title} has", _summary(skipped))
    if photos is None:
        photos = not all(scan.square for _, scan in kept)
    stored = int(image_size * CROP_MARGIN) if photos else image_size
    in_memory = len(kept) * 3 * stored**2 <= in_memory_bytes
    rows = rows_of([name for name, _ in kept], by_name)
    classes = [None if row is None else by_name[row] for row in rows]
    if by_name and not any(classes):
        named = " and ".join(Path(table).name for table in tables)
        raise ValueError(f"{named} does not name any of the pictures in {title}.")
    label_names = tuple(sorted(set(by_name.values())))
    if labels is not None:
        label_names = tuple(composed(label) for label in labels)
    unknown = {c for c in classes if c is not None} - set(label_names)
    if unknown:
        raise ValueError(f"The labels {', '.join(sorted(unknown))} are not known to this model.")
    ids = [-1 if c is None else label_names.index(c) for c in classes]
    kept_names = tuple(name for name, _ in kept)
    pixels = None
    if in_memory:
        pixels = torch.empty(len(kept), 3, stored, stored, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            tensors = pool.map(lambda n: _to_tensor(source, n, stored), kept_names)
            for row, tensor in zip(pixels, tensors, strict=True):
                row.copy_(tensor)
    return ImageSet(
        source=source,
        names=kept_names,
        image_size=image_size,
        stored_size=stored,
        classes=torch.tensor(ids, dtype=torch.long),
        labels=label_names,
        pixels=pixels,
        skipped=tuple(skipped),
        unmatched_rows=len(by_name) - len(set(rows) - {None}) if tables else None,
        digests=tuple(scan.digest for _, scan in kept),
    )


def _several(paths: str | Path | Sequence[str | Path] | None) -> Sequence[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else paths or []


@dataclass(frozen=True)
class _Scan:
    square: bool
    look: np.ndarray
    digest: str


def _scan(source: Source, name: str, smallest: int) -> _Scan | str:
    """What the set needs to know of a picture, or the reason to leave it out."""
    try:
        data = source.read(name)
        image = decode_photo(data)
    except (ValueError, OSError) as error:
        return str(error)
    if min(image.size) < smallest:
        return f"{image.width}x{image.height} is too small (at least {smallest} pixels)"
    return _Scan(image.width == image.height, look_of(image), digest(data))


def _to_tensor(source: Source, name: str, size: int) -> Tensor:
    try:
        picture = fit_square(decode_photo(source.read(name)), size)
    except ValueError as error:  # it was whole when it was scanned
        raise ValueError(f"{name} has changed since it was first read: {error}.") from None
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _summary(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return "No file was left out."
    shown = "; ".join(f"{s.name}: {s.reason}" for s in skipped[:5])
    return f"Left out ({len(skipped)}): {shown}{' …' if len(skipped) > 5 else ''}."


# -- batches ----------------------------------------------------------------------------------


def batch_indices(num_images: int, batch_size: int, step: int, *, seed: int) -> Tensor:
    """Indices of training batch ``step``: a function of its arguments alone, so that a resumed run
    sees the same pictures. Every epoch shows each picture once, in an order of its own."""
    start = step * batch_size
    indices: list[Tensor] = []
    while start < (step + 1) * batch_size:
        epoch, offset = divmod(start, num_images)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(num_images, generator=generator)
        chunk = order[offset : offset + (step + 1) * batch_size - start]
        indices.append(chunk)
        start += len(chunk)
    return torch.cat(indices)


class Examples(Protocol):
    """A set to train on: what ``ImageSet`` has in common with a set of latents."""

    @property
    def in_memory(self) -> bool: ...

    def __len__(self) -> int: ...

    def get(self, indices: Tensor) -> tuple[Tensor, Tensor]: ...


class _Stream(Dataset):
    """Item ``i`` is a share of the batch of training step ``first + i``."""

    def __init__(
        self, images: Examples, batch_size: int, first: int, seed: int, share: slice
    ) -> None:
        self.images, self.batch_size, self.first, self.seed = images, batch_size, first, seed
        self.share = share

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        step = self.first + i
        indices = batch_indices(len(self.images), self.batch_size, step, seed=self.seed)
        return self.images.get(indices[self.share])


def endless_indices(
    num_images: int, batch_size: int, *, first_step: int, seed: int, share: slice
) -> Iterator[Tensor]:
    """``batch_indices`` from a step on, of each batch this process's share."""
    for step in itertools.count(first_step):
        yield batch_indices(num_images, batch_size, step, seed=seed)[share]


def training_batches(
    images: Examples,
    batch_size: int,
    *,
    first_step: int,
    seed: int,
    share: slice = slice(None),
    workers: int = 4,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (uint8 pictures, classes) from step ``first_step`` on.

    A set in memory is indexed where it lies; a larger one is decoded ahead by worker processes.
    Where several processes train, ``share`` is the part of each batch that this one gets.
    """
    stream = _Stream(images, batch_size, first_step, seed, share)
    if images.in_memory:
        return (stream[i] for i in range(len(stream)))
    loader = DataLoader(
        stream,
        batch_sampler=([i] for i in range(len(stream))),
        collate_fn=_only,
        num_workers=workers,
        worker_init_fn=_outlive_signals,
    )
    return iter(loader)


def _outlive_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM reach every process of a group; the trainer needs its workers to save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        # A little later it does end, as if it were done: lost workers are ended by SIGTERM too.
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))


def _only(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return items[0]


def random_crop(pictures: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A random crop of each picture, resized, as uint8 [B, 3, size, size] (see ``crop_box``)."""
    if pictures.shape[-1] == size:
        return pictures
    from torchvision.transforms.v2 import functional as TF  # two seconds that drawing need not wait

    crops = []
    for picture in pictures:
        top, left, height, width = crop_box(picture.shape[-1], generator)
        crops.append(
            TF.resized_crop(picture, top, left, height, width, [size, size], antialias=True)
        )
    return torch.stack(crops)


def crop_box(size: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random crop of a ``size`` square.

    Its area is 0.8 to 1.0 of the square's; a little less where a side had to be cut to fit.
    """
    area, stretch, y, x = torch.rand(4, generator=generator).tolist()
    side = (0.8 + 0.2 * area) ** 0.5
    ratio = (4 / 3) ** (stretch - 0.5)
    height, width = min(size, round(size * side / ratio)), min(size, round(size * side * ratio))
    return round(y * (size - height)), round(x * (size - width)), height, width


def random_mirror(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture mirrored left to right with probability one half."""
    mirrored = torch.rand(len(pictures), generator=generator) < 0.5
    return torch.where(
        mirrored.to(pictures.device)[:, None, None, None], pictures.flip(3), pictures
    )
