"""Where pictures come from: folders and zip archives, read without trusting a name in them."""

from __future__ import annotations

import csv
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from ..names import composed

MAX_FILE_BYTES = 64_000_000  # of one encoded picture

MAX_RATIO = 200  # uncompressed to compressed bytes of a zip entry

MAX_ENTRIES = 200_000


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why, in words that fit after its name."""

    name: str
    reason: str


class Source(Protocol):
    """Files with names, and what was left out."""

    def names(self) -> tuple[list[str], list[Skipped]]: ...

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises ValueError or OSError."""
        ...


class Folder:
    """Files below a folder, any nesting. Links are not followed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> tuple[list[str], list[Skipped]]:
        names, skipped = [], []

        def closed(error: OSError) -> None:
            name = Path(error.filename).relative_to(self.path).as_posix()
            skipped.append(Skipped(name, "a folder that cannot be opened"))

        for root, folders, files in os.walk(self.path, onerror=closed):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            links = [folder for folder in folders if Path(root, folder).is_symlink()]
            for file in sorted(files + links):
                full = Path(root, file)
                name = full.relative_to(self.path).as_posix()
                if file.startswith(".") or file in ("Thumbs.db", "desktop.ini"):
                    continue
                if full.is_symlink():
                    skipped.append(Skipped(name, "a link"))
                elif full.is_file():
                    names.append(name)
        return names, skipped

    def read(self, name: str) -> bytes:
        path = self.path / name
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"more than {MAX_FILE_BYTES // 1_000_000} MB")
        return path.read_bytes()


class Zip:
    """Entries of a zip archive, read one at a time and never extracted to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_open": None}  # an open file cannot go to a worker

    def archive(self) -> zipfile.ZipFile:
        """The open archive; opened anew in each worker process."""
        if self._open is None or self._open[0] != os.getpid():
            try:
                self._open = (os.getpid(), zipfile.ZipFile(self.path))
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
                raise ValueError(
                    f"{self.path.name} is an incomplete or damaged zip archive."
                ) from None
        return self._open[1]

    def names(self) -> tuple[list[str], list[Skipped]]:
        entries = [e for e in self.archive().infolist() if not e.filename.endswith("/")]
        if len(entries) > MAX_ENTRIES:
            raise ValueError(f"{self.path.name} has more than {MAX_ENTRIES:,} files.")
        names, skipped = [], []
        for entry in entries:
            name = entry.filename
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if any(part.startswith(".") or part == "__MACOSX" for part in parts) and (
                ".." not in parts
            ):
                continue  # what operating systems leave behind
            reason = self._refusal(entry, parts)
            if reason is None and self.archive().getinfo(name) is not entry:
                reason = "a second file of the same name"  # read() would open that one, the last
            if reason:
                skipped.append(Skipped(name, reason))
            else:
                names.append(name)
        return names, skipped

    @staticmethod
    def _refusal(entry: zipfile.ZipInfo, parts: Sequence[str]) -> str | None:
        if not parts or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
            return "a name that points outside the archive"
        if stat.S_ISLNK(entry.external_attr >> 16):
            return "a link"
        if entry.flag_bits & 0x1:
            return "encrypted"
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return (
                "an unsupported kind of "
                "compression"
            )  # Python unpacks bzip2 and LZMA without any limit
        if entry.file_size > MAX_FILE_BYTES:
            return f"more than {MAX_FILE_BYTES // 1_000_000} MB"
        if entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            return "a suspicious compression ratio"
        return None

    def read(self, name: str) -> bytes:
        try:
            with self.archive().open(name) as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except Exception:  # zlib, lzma and zipfile each raise their own kinds
            raise ValueError("a damaged zip entry") from None
        if len(data) > MAX_FILE_BYTES:  # the header lied
            raise ValueError(f"more than {MAX_FILE_BYTES // 1_000_000} MB")
        return data


class Joined:
    """Several sources as one. Each name begins with that of its source: ``heads/1.webp``."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)

    def names(self) -> tuple[list[str], list[Skipped]]:
        names: list[str] = []
        skipped: list[Skipped] = []
        for prefix, source in self.sources.items():
            found, left_out = source.names()
            names += [f"{prefix}/{name}" for name in found]
            skipped += [Skipped(f"{prefix}/{item.name}", item.reason) for item in left_out]
        return names, skipped

    def read(self, name: str) -> bytes:
        prefix, rest = name.split("/", 1)
        return self.sources[prefix].read(rest)


def open_sources(paths: Sequence[str | Path]) -> Source:
    """The folders and zip archives at ``paths`` as one. Raises ValueError."""
    if len(paths) == 1:
        return open_source(paths[0])
    sources = {Path(path).stem: open_source(path) for path in paths}
    if len(sources) < len(paths):
        raise ValueError("Several sets of pictures must have different names.")
    return Joined(sources)


def open_source(path: str | Path) -> Folder | Zip:
    """The folder or zip archive at ``path``. Raises ValueError for anything else."""
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return Zip(path)
    if path.exists():
        raise ValueError(f"{path.name} is neither a folder nor a zip archive.")
    raise ValueError(f"There is no folder or zip archive at {path}.")


def join_labels(paths: Sequence[str | Path]) -> dict[str, str]:
    """The labels of several CSV files. Raises ValueError where two of them differ."""
    joined: dict[str, str] = {}
    for path in paths:
        for file, label in read_labels(path).items():
            if joined.setdefault(file, label) != label:
                raise ValueError(
                    f"{file} is labelled '{joined[file]}' and, in {Path(path).name}, '{label}'. "
                    "Where two sets have files of one name, write SET/FILE in the CSV files."
                )
    return joined


def read_labels(path: str | Path) -> dict[str, str]:
    """File name to label from a CSV with columns ``file`` and ``label``; empty labels stay out.

    Both are given with one code point a letter. Raises ValueError.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file of labels at {path}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{path.name} is not a CSV file in UTF-8 encoding.") from None
    if not {"file", "label"} <= set(columns):
        raise ValueError(f"{path.name} needs the columns 'file' and 'label'.")
    labels = {composed(row["file"]): composed(row["label"].strip()) for row in rows}
    return {file: label for file, label in labels.items() if label}


def rows_of(names: Sequence[str], rows: Mapping[str, str]) -> list[str | None]:
    """For each picture the name under which it stands in a table of labels: its path, or the end
    of it from some folder on."""
    return [next((row for row in _ends(composed(name)) if row in rows), None) for name in names]


def _ends(path: str) -> Iterator[str]:
    """``a/b/c``, ``b/c``, ``c``."""
    parts = PurePosixPath(path).parts
    return ("/".join(parts[first:]) for first in range(len(parts)))
