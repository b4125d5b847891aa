"""How much strangers may upload: each of them, and all together.

Uploads lie on the disk until Gradio clears its cache away, so these limits bound how much of it
they can take; a disk that is nearly full for another reason takes none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gradio.utils import get_upload_folder

from ..disk import is_low

MIN_CHARGE = (
    100_000  # bytes that the smallest upload counts as, so that their number is bounded too
)
MAX_CLIENTS = 10_000  # whose budgets are remembered; the budget of all holds whatever is forgotten


@dataclass
class Bucket:
    """Bytes that may still be sent; it fills again evenly within ``seconds``."""

    size: float
    seconds: float
    left: float = 0.0
    at: float = 0.0  # when ``left`` was true

    def fill(self, now: float) -> None:
        self.left = min(self.size, self.left + (now - self.at) * self.size / self.seconds)
        self.at = now


class UploadBudget:
    """The buckets of all clients. Used by one event loop, so nothing needs a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        now = clock()
        self._all = Bucket(1e9, 3600, left=1e9, at=now)
        self._each: dict[str, Bucket] = {}

    def charge(self, client: str, size: int) -> str | None:
        """Take an upload of ``size`` bytes off the budget, or say why it is refused."""
        if is_low(Path(get_upload_folder())):
            return "The disk of this machine is nearly full; it takes no uploads just now."
        now = self._clock()
        if len(self._each) >= MAX_CLIENTS and client not in self._each:
            full = [name for name, b in self._each.items() if now - b.at >= b.seconds]
            for name in full or list(self._each):
                del self._each[name]
        mine = self._each.setdefault(client, Bucket(200e6, 1200, left=200e6, at=now))
        size = max(size, MIN_CHARGE)
        for bucket in (mine, self._all):
            bucket.fill(now)
            if bucket.left < size:
                return "That is too much uploaded in a short time. Please try again later."
        for bucket in (mine, self._all):
            bucket.left -= size
        return None
