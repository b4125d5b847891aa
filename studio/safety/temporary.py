"""The one folder for all that is temporary: uploads, results, and what is being received.

It is swept by age and by size while the page runs, and goes when the page ends. What a page left
that ended otherwise (a crash, no power) goes when the next one starts. Gradio clears away only
what it has finished receiving, and a broken-off upload it never does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .. import disk

NAME = "temporary"
MAX_BYTES = 4_000_000_000
MAX_AGE = 6 * 3600.0  # seconds; Gradio's own cache is cleared at that age too
SWEEP_SECONDS = 60.0
FRESH_SECONDS = 60.0  # what was written within these is not swept by size: it is in use

_here: TemporaryFolder | None = None  # of this program


class TemporaryFolder:
    """A folder of this program alone within ``parent``, for as long as it is open.

    While open, Python's and Gradio's temporary files go there. Raises OSError if it cannot be made.
    """

    def __init__(self, parent: Path, *, max_bytes: int = MAX_BYTES) -> None:
        root = parent.resolve() / NAME
        root.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(root)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=root))
        self._lock = disk.try_hold(new / "lock")
        self.folder = new.rename(root / new.name.replace("new", "page"))  # never seen without lock
        self.max_bytes, self.num_bytes = max_bytes, 0  # as of the last sweep
        self._closed = threading.Event()
        self._before = tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR")

    def open(self) -> None:
        """Lead everything temporary here: before the page is built, which remembers the place."""
        global _here
        _here = self
        tempfile.tempdir = str(self.folder)
        (self.folder / "gradio").mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder / "gradio")

    def keep_swept(self, *chores: Callable[[], None]) -> None:
        """Sweep from time to time in a thread of its own; ``chores`` are run then too."""

        def work() -> None:
            while not self._closed.wait(SWEEP_SECONDS):
                for chore in (self.sweep, *chores):
                    try:
                        chore()
                    except Exception:  # the next time it may go better
                        traceback.print_exc()

        threading.Thread(target=work, name="sweep", daemon=True).start()

    def sweep(self) -> None:
        """Delete what is too old, then the oldest of what is too much, and count the rest."""
        now = time.time()
        files = sorted(_files(self.folder))
        total = sum(size for _, size, _ in files)
        for changed, size, path in files:
            too_much = total > self.max_bytes and now - changed > FRESH_SECONDS
            if not (too_much or now - changed > MAX_AGE):
                continue
            with suppress(OSError):  # gone meanwhile, or being read where that forbids it
                path.unlink()
                total -= size
                if path.parent.parent != self.folder:
                    path.parent.rmdir()  # if that was the last in it
        self.num_bytes = total

    def close(self) -> None:
        """Delete the folder; temporary files go where they went before."""
        global _here
        _here = None
        self._closed.set()
        tempfile.tempdir, gradio = self._before
        if gradio is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = gradio
        if self._lock is not None:
            os.close(self._lock)
        shutil.rmtree(self.folder, ignore_errors=True)


def has_room_for(num_bytes: int) -> bool:
    """Whether the folder takes so much more; it is counted on, until the next sweep counts anew."""
    if _here is None:
        return True
    if _here.num_bytes + num_bytes > _here.max_bytes:
        _here.sweep()
        if _here.num_bytes + num_bytes > _here.max_bytes:
            return False
    _here.num_bytes += num_bytes
    return True


def _clear_leftovers(root: Path) -> None:
    """Delete the folders of programs that run no more: nobody holds their lock."""
    for folder in root.glob("page-*"):
        old = disk.CAN_LOCK or time.time() - folder.stat().st_mtime > 24 * 3600
        if old and not disk.is_held(folder / "lock"):
            shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """When each file was changed, its size and its path; the lock apart."""
    found = []
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            with suppress(OSError):
                status = path.stat()
                if path.parent != folder or name != "lock":
                    found.append((status.st_mtime, status.st_size, path))
    return found
