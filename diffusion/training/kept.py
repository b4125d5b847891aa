"""Drawings that are kept in files of some pictures each, so that drawing can be stopped and gone on
with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..checkpoint import read_tensors, write_tensors
from ..processes import join_processes, shared_bar, shared_out

PER_FILE = 240

Rows = TypeVar("Rows", bound=Sized)
Tensors = dict[str, Tensor]


def kept_in_files(
    parts: Mapping[Path, Rows],
    read: Callable[[Path, Rows], Tensors | None],
    make: Callable[[Path, Rows], None],
    *,
    of: str,
    unit: str = "picture",
) -> list[Tensors]:
    """What ``read`` finds in each file; ``make`` writes those in which it finds nothing.

    Several processes write files in turn. Shows a progress bar, which says what it is ``of``.
    """
    found = {path: read(path, rows) for path, rows in parts.items()}
    missing = [path for path, tensors in found.items() if tensors is None]
    join_processes().wait_for_everyone()  # so that all have seen the same
    there = sum(len(rows) for path, rows in parts.items() if path not in missing)
    total = sum(map(len, parts.values()))
    with shared_bar(total, of=of, unit=unit, done=there) as bar:
        shared_out(missing, lambda path: make(path, parts[path]), bar, lambda p: len(parts[p]))
    found |= {path: read(path, parts[path]) for path in missing}
    return [tensors for tensors in found.values() if tensors is not None]


def read_kept(path: Path, identity: dict[str, Any], *, other: str) -> Tensors | None:
    """The tensors in a file, or None if there is none. Raises ValueError if it has another
    identity; it is then of another what ``other`` says."""
    if not path.exists():
        return None
    tensors, found = read_tensors(path)
    if found != identity:
        raise ValueError(f"{path} is of another {other}. Choose another folder.")
    return tensors


def first_rows(tensors: Tensors | None, dims: Mapping[str, int], count: int) -> Tensors | None:
    """The first ``count`` rows of a file, which lie along the given dimension of each tensor; None
    if it has fewer, being the last of a shorter series."""
    if tensors is None or any(tensors[name].shape[dim] < count for name, dim in dims.items()):
        return None
    return {name: tensors[name].narrow(dim, 0, count) for name, dim in dims.items()}


def kept_x0(
    folder: str | Path,
    count: int,
    draw: Callable[[Tensor], Tensor],
    *,
    identity: Callable[[Tensor], dict[str, Any]],
    other: str,
    of: str,
) -> Tensor:
    """x0 of the rows 0 to ``count`` - 1, float16 [count, *shape]: drawn, or read if drawn before.

    ``draw`` and ``identity`` are asked for some rows at a time. Raises ValueError as ``read_kept``.
    """

    def read(path: Path, rows: Tensor) -> Tensors | None:
        return first_rows(read_kept(path, identity(rows), other=other), {"x0": 0}, len(rows))

    def make(path: Path, rows: Tensor) -> None:
        write_tensors(path, {"x0": draw(rows).half().cpu()}, identity(rows))

    parts = {
        Path(folder) / f"{int(rows[0]):07d}.safetensors": rows
        for rows in torch.arange(count).split(PER_FILE)
    }
    return torch.cat([tensors["x0"] for tensors in kept_in_files(parts, read, make, of=of)])
