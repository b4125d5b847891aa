"""Files that are whole or not there: written beside their place and moved over it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFT_BEHIND = 60  # seconds after which nobody is writing a temporary file any more

# Names that ``atomic_path`` makes up, and those that safetensors writes under.
TEMPORARY = re.compile(r"^\.(.+-[0-9a-f]{16}(\.\w+)?|tmp\w{6})$")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, moved over it when the block ends without an error.

    The suffix is kept, since libraries choose a format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode  # what the umask allows; safetensors would make it private
    try:
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_disk_full(error: OSError) -> bool:
    """Whether an error says that nothing more fits."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def clear_temporary(folder: str | Path) -> None:
    """Remove what was being written below a folder when its process was killed; what is newer may
    be another process's, which is about to give it its name."""
    for path in Path(folder).rglob(".*"):
        with suppress(FileNotFoundError):
            if TEMPORARY.search(path.name) and time.time() - path.stat().st_mtime > LEFT_BEHIND:
                path.unlink()


def out_folder(path: str) -> Path:
    """The folder to write to; raises ValueError, before any work is done, if it is a file."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but --out must be a folder.")
    return folder


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
