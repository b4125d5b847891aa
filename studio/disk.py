"""The data folder as other programs and a full disk see it: locks, room, and plain sentences."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # no stub allows for a module that is missing

CAN_LOCK = fcntl is not None
MIN_FREE_BYTES = 500_000_000  # below which nothing of a stranger's is kept


@contextmanager
def hold(path: Path) -> Iterator[int]:
    """Wait for the lock on a file and hold it within the block; yields its file descriptor.

    The kernel frees the lock when the last process that has the descriptor ends, however it ends: a
    child that inherits it goes on holding it. (So it is closed here, never unlocked.) Threads
    exclude each other too. Where the system has no such locks, nothing is locked. Raises OSError.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def try_hold(path: Path) -> int | None:
    """The descriptor of a lock that is now ours until it is closed, or None. Raises OSError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock on a file."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        if fcntl:  # shared, so that two who look do not take each other for the holder
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(lock)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Within the block, what a disk refuses becomes a ValueError with a sentence for the owner."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sentence = "The disk is full; make room and try again."
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            sentence = "The data folder cannot be written to. Check its owner and how it is mounted"
            sentence += ", or choose another with --data-dir."
        else:
            reason = error.strerror or type(error).__name__
            sentence = f"The data folder cannot be used: {reason}."
        raise ValueError(sentence) from None


def is_low(folder: Path) -> bool:
    """Whether less than ``MIN_FREE_BYTES`` are free where ``folder`` is, or will be."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free < MIN_FREE_BYTES


def require_room(folder: Path, num_bytes: int) -> None:
    """Raises ValueError if less than ``num_bytes`` are free where ``folder`` is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with errors_as_sentences():
        free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise ValueError(
            f"Only {free / 1e9:.1f} GB are free on the disk, and {num_bytes / 1e9:.1f} GB have to "
            "stay free. Make room and try again."
        )
