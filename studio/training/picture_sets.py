"""The sets of an owner's photos: which there are, and the thread that looks at what arrives."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

from ..disk import require_room
from .photos import MIN_FREE_BYTES, NoSuchSet, PictureSet

SET_SECONDS = 7 * 86400  # a set that nobody touched so long is cleared when the next one begins


class PictureSets:
    """The sets of ``data/uploads``, the newest of which is the current one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._open: dict[str, PictureSet] = {}
        self._arrived: SimpleQueue[PictureSet] = SimpleQueue()
        # One thread, so one picture in memory at a time; a daemon, as a large zip is no reason to
        # keep a server from ending: what waits is looked at after the next start.
        threading.Thread(target=self._work, name="uploads", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                self._arrived.get().look()
            except Exception:  # a set that was deleted meanwhile, say
                traceback.print_exc()

    def current(self) -> PictureSet | None:
        """The newest set, which any browser of the owner shows; None if there is none."""
        ids = self._ids()
        return self.get(ids[-1]) if ids else None

    def create(self) -> PictureSet:
        """A new, empty set, which becomes the current one; sets nobody touched are cleared."""
        require_room(self.folder, MIN_FREE_BYTES)
        self._clear_old()
        identity = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        (self.folder / identity / "pictures").mkdir(parents=True)
        return self.get(identity)

    def get(self, identity: str) -> PictureSet:
        """The set of that id. Raises NoSuchSet; a name that is no id of ours is no path either."""
        with self._lock:
            if identity not in self._ids():
                raise NoSuchSet("These photos are no longer here.")
            if identity not in self._open:
                self._open[identity] = PictureSet(self.folder / identity)
                self._arrived.put(self._open[identity])  # what a restart left waiting
            return self._open[identity]

    def arrived(self, pictures: PictureSet) -> None:
        """Something was put into a set: have it looked at."""
        self._arrived.put(pictures)

    def delete(self, identity: str) -> None:
        """Forget a set with all its pictures."""
        pictures = self.get(identity)
        with self._lock:
            self._open.pop(identity, None)
        shutil.rmtree(pictures.folder, ignore_errors=True)

    def _ids(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir())

    def _clear_old(self) -> None:
        for identity in self._ids():
            newest = max(p.stat().st_mtime for p in self._parts(identity))
            if time.time() - newest > SET_SECONDS:
                self.delete(identity)

    def _parts(self, identity: str) -> Iterator[Path]:
        folder = self.folder / identity
        yield folder
        yield from (p for p in (folder / "set.json", folder / "incoming") if p.exists())
