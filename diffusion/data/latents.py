"""Pictures as latents: encoded once, kept beside the run, and trained on from memory.

The mirrored latents of a picture are not the latents of the mirrored picture: hence two
``versions`` of each, both encoded ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import read_tensors, write_tensors
from ..codec import LatentCodec
from ..codec_file import weights_hash
from ..denoiser import Denoiser
from ..device import choose_device
from ..processes import join_processes, shared_bar, shared_out
from .changes import have_nothing_in_common, record_of
from .dataset import ImageSet, split_names

LATENTS_NAME = "latents.safetensors"
ENCODE_BATCH = 8


@dataclass(frozen=True)
class LatentSet:
    """The latents of a set of pictures, ready to train on.

    ``latents``: float16 [2, N, C, h, w], the versions of each picture: as it is, then mirrored.
    ``classes`` is int64 [N], -1 where there is no label.
    """

    names: tuple[str, ...]
    classes: Tensor
    labels: tuple[str, ...]
    latents: Tensor
    digests: tuple[str, ...] = ()  # of each picture's file

    in_memory = True

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> LatentSet:
        """The pictures at ``indices``, in that order."""
        index = torch.as_tensor(indices, dtype=torch.long)
        names = tuple(self.names[i] for i in index.tolist())
        return replace(
            self,
            names=names,
            classes=self.classes[index],
            latents=self.latents[:, index],
            digests=tuple(self.digests[i] for i in index.tolist()) if self.digests else (),
        )

    @property
    def record(self) -> dict[str, str]:
        """Name and digest of each picture (see ``changes``)."""
        return record_of(self.names, self.digests)

    def joined(self, other: LatentSet) -> LatentSet:
        """These pictures, then the other's."""
        return replace(
            self,
            names=self.names + other.names,
            classes=torch.cat([self.classes, other.classes]),
            latents=torch.cat([self.latents, other.latents], dim=1),
            digests=self.digests + other.digests,
        )

    def split(self, holdout: int, *, at_most: float = 0.1) -> tuple[LatentSet, LatentSet]:
        """Training and held-out part, chosen by the names as ``ImageSet.split`` does."""
        kept, held = split_names(self.names, holdout, at_most=at_most)
        return self.subset(kept), self.subset(held)

    def get(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Both versions of some pictures, float16 [B, 2, C, h, w], and their classes [B]."""
        index = indices.to(self.latents.device)
        return self.latents[:, index].transpose(0, 1), self.classes[indices]

    def to(self, device: torch.device) -> LatentSet:
        """The same set with its latents on ``device``."""
        return replace(self, latents=self.latents.to(device))

    def x0(self, versions: Tensor, generator: torch.Generator, *, mirror: bool) -> Tensor:
        """One version of each picture that ``get`` gave, mirrored only if so wished: float32
        [B, C, h, w]."""
        chosen = torch.randint(1 + mirror, (len(versions),), generator=generator)
        rows = torch.arange(len(versions), device=versions.device)
        return versions[rows, chosen.to(versions.device)].float()


def as_latents(images: ImageSet, checkpoint: Path, out: Path) -> LatentSet:
    """The pictures in the latents of a checkpoint's codec, encoded once for the run in ``out``."""
    join_processes()  # each has a GPU of its own
    codec = Denoiser.load(checkpoint, device=choose_device()).codec
    assert isinstance(codec, LatentCodec)
    return encode_images(images, codec, out / LATENTS_NAME)


def encode_images(images: ImageSet, codec: LatentCodec, path: str | Path) -> LatentSet:
    """Encode every picture, as it is and mirrored; kept in the file ``path``. Pictures that are in
    there already are read, not encoded; several processes share the others, and one of them writes.
    Raises ValueError if the file is of another codec, or of pictures that have nothing in common
    with these: it took long, and is not overwritten; and for pictures that are kept larger, to be
    cropped."""
    if images.stored_size != images.image_size:
        raise ValueError("Latents are of whole squares: load the pictures as such.")
    identity: dict[str, object] = {
        "encoder": weights_hash(codec.network.encoder),
        "shifts": [[0, 0]],  # no others are made any more
    }
    kept, latents = _kept(Path(path), identity, images)
    state = join_processes()
    state.wait_for_everyone()  # so that all have read the same
    if latents is None or kept != images.digests:
        place = {key: column for column, key in enumerate(kept)}
        missing = [i for i, key in enumerate(images.digests) if key not in place]
        place |= {images.digests[i]: len(kept) + column for column, i in enumerate(missing)}
        parts = [] if latents is None else [latents]
        parts += _encoded(images.subset(missing), codec)
        latents = torch.cat(parts, dim=1)[:, [place[key] for key in images.digests]]
        if state.is_main_process:
            write_tensors(path, {"latents": latents}, {**identity, "pictures": images.record})
    return LatentSet(images.names, images.classes, images.labels, latents, images.digests)


@torch.no_grad()
def _encoded(images: ImageSet, codec: LatentCodec) -> list[Tensor]:
    """Both versions of the pictures, in batches: float16 [2, B, C, h, w]."""
    device = next(codec.parameters()).device

    def encode(index: Tensor) -> Tensor:
        pictures = images.get(index)[0].to(device)
        return torch.stack([codec.encode(v).half().cpu() for v in (pictures, pictures.flip(3))])

    batches = torch.arange(len(images)).split(ENCODE_BATCH) if len(images) else ()
    with shared_bar(len(images), of="encoding") as bar:
        return shared_out(batches, encode, bar, len)


def _kept(
    path: Path, identity: dict[str, object], images: ImageSet
) -> tuple[tuple[str, ...], Tensor | None]:
    """Digests and latents of the pictures in a file; none where there is no whole file. Raises
    ValueError if it is not of this ``identity``, or of other pictures."""
    try:
        tensors, found = read_tensors(path)
        latents = tensors["latents"]
    except (ValueError, KeyError):  # not there, or damaged
        return (), None
    record = found.get("pictures", {})
    if found.get("names") == list(images.names):  # of a version that knew no digests
        record = images.record
    other = ""
    if found.get("encoder") != identity["encoder"]:
        other = "codec"
    elif found.get("shifts") != identity["shifts"] or have_nothing_in_common(record, images.record):
        other = "set of pictures"
    if other:
        raise ValueError(
            f"{path} holds the latents of another {other}; remove it, or choose another --out."
        )
    return tuple(record.values()), latents
