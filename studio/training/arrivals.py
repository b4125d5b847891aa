"""Files on their way into a set of pictures: received, and opened if they are archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusion.data.sources import MAX_FILE_BYTES, Zip

MAX_ARCHIVE_BYTES = 1_000_000_000  # of one zip
MAX_UNPACKED_BYTES = 4_000_000_000  # read out of one zip, all entries together
MAX_ENTRIES = 10_000  # of one zip
MAX_DIRECTORY_BYTES = 400 * MAX_ENTRIES  # of one zip: 46 bytes and a name for each entry
MAX_NAME = 200  # characters that are shown of a name

TOO_MANY_ENTRIES = f"an archive of more than {MAX_ENTRIES:,} files"
NO_ARCHIVE = "an incomplete or damaged zip archive"
ZIP64 = "a zip64 archive, made for very many or very large files; zip the photos in smaller parts"
ZIP_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")


class Incoming:
    """A file on its way in: a context that leaves nothing behind unless ``keep`` was called."""

    def __init__(self, stem: Path, name: str) -> None:
        self._part = stem.with_suffix(".part")
        self._name = name
        self._head, self._size = b"", 0

    def __enter__(self) -> Incoming:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("xb")
        return self

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises ValueError beyond the limit for this kind of file."""
        self._head = (self._head + chunk[:4])[:4]
        self._size += len(chunk)
        limit = MAX_ARCHIVE_BYTES if self._head in ZIP_BEGINS else MAX_FILE_BYTES
        if self._size > limit:
            raise ValueError(f"{self._name} is larger than {limit // 1_000_000} MB.")
        self._file.write(chunk)

    def keep(self) -> None:
        """All has arrived: let it be looked at."""
        self._file.close()
        self._part.with_suffix(".name").write_text(self._name, "utf-8")
        self._part.rename(self._part.with_suffix(".bin"))

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


def files_in(path: Path, name: str) -> Iterator[tuple[str, bytes | str]]:
    """The file itself, or all that is in an archive: the name to show, and the bytes or the reason
    to leave it out. Raises ValueError for a useless archive."""
    if not is_zip(path):
        yield name, path.read_bytes()
        return
    archive = _open_zip(path)
    entries, skipped = archive.names()
    if len(entries) + len(skipped) > MAX_ENTRIES:
        raise ValueError(TOO_MANY_ENTRIES)
    for item in skipped:
        yield f"{name}/{shown(item.name)}", item.reason
    unpacked = 0
    for entry in entries:
        label = f"{name}/{shown(entry)}"
        if unpacked > MAX_UNPACKED_BYTES:
            yield label, "the archive holds too many bytes"
            continue
        try:
            data = archive.read(entry)
        except ValueError as error:
            yield label, str(error)
            continue
        unpacked += len(data)
        yield label, data


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does; its name says nothing."""
    with path.open("rb") as file:
        return file.read(4) in ZIP_BEGINS


def _open_zip(path: Path) -> Zip:
    """The archive, if its directory is not too large to be read. Raises ValueError."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))
        tail = file.read()
    end = len(tail) - 22  # where it is without a comment, as zipfile sees it too
    if tail[end : end + 4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise ValueError(NO_ARCHIVE)
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    if b"PK\x06\x07" in tail[max(0, end - 20) : end]:  # its directory is told elsewhere
        raise ValueError(ZIP64)
    if directory > MAX_DIRECTORY_BYTES:
        raise ValueError(TOO_MANY_ENTRIES)
    archive = Zip(path)
    try:
        archive.archive()
    except ValueError:  # it names the file as it is called here
        raise ValueError(NO_ARCHIVE) from None
    return archive


def shown(name: str) -> str:
    """A stranger's name for a file, fit to be shown on one line."""
    name = name.encode("utf-8", "replace").decode()  # lone surrogates cannot be shown
    name = "".join(c if c.isprintable() else "�" for c in name)
    return (name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…") or "unnamed"


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it has just been looked at
        return 0
