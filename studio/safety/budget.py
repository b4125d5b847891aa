"""How much strangers may do: each of them, and all together.

Uploads lie on the disk until they are swept away, so their limits bound how much of it they can
take; a disk that is nearly full for another reason takes none. Calls and sessions are counted too:
Gradio remembers only so many, and forgets the oldest visitor for the newest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gradio.utils import get_upload_folder

from ..disk import is_low
from . import temporary

MIN_CHARGE = (
    100_000  # bytes that the smallest upload counts as, so that their number is bounded too
)
MAX_CLIENTS = 10_000  # whose budgets are remembered; the budget of all holds whatever is forgotten
NEARLY_FULL = "The disk of this machine is nearly full, so uploads are off for now."


@dataclass
class Bucket:
    """What may still be used; it fills again evenly within ``seconds``."""

    size: float
    seconds: float
    left: float = 0.0
    at: float = 0.0  # when ``left`` was true

    def fill(self, now: float) -> None:
        self.left = min(self.size, self.left + (now - self.at) * self.size / self.seconds)
        self.at = now


class Allowance:
    """The buckets of all clients: ``each`` and ``together`` are (size, seconds) of a bucket.

    Used by one event loop, so nothing needs a lock.
    """

    def __init__(
        self,
        each: tuple[float, float],
        together: tuple[float, float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._size = clock, each
        self._all = Bucket(*together, left=together[0], at=clock())
        self._each: dict[str, Bucket] = {}

    def take(self, client: str, amount: float = 1.0) -> bool:
        """Take ``amount`` off, or leave all as it is and return False."""
        now = self._clock()
        if len(self._each) >= MAX_CLIENTS and client not in self._each:
            full = [name for name, b in self._each.items() if now - b.at >= b.seconds]
            for name in full or list(self._each):
                del self._each[name]
        mine = self._each.setdefault(client, Bucket(*self._size, left=self._size[0], at=now))
        for bucket in (mine, self._all):
            bucket.fill(now)
            if bucket.left < amount:
                return False
        for bucket in (mine, self._all):
            bucket.left -= amount
        return True


class UploadBudget(Allowance):
    """Bytes that may be uploaded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__((200e6, 1200), (1e9, 3600), clock=clock)

    def charge(self, client: str, size: int) -> str | None:
        """Take an upload of ``size`` bytes off the budget, or say why it is refused."""
        if is_low(Path(get_upload_folder())):
            return NEARLY_FULL
        if not self.take(client, max(size, MIN_CHARGE)):
            return "Too much was uploaded in a short time. Please try again later."
        return None if temporary.has_room_for(size) else NEARLY_FULL


class CallBudget:
    """Calls that a client may make, live frames too, and sessions that it may begin."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = Allowance((400, 20), (2000, 20), clock=clock)
        # All that begin at once are fewer than those whose pages Gradio keeps (``MAX_VISITS``).
        self._sessions = Allowance((150, 100), (240, 100), clock=clock)
        self._frames = Allowance((1000, 20), (4000, 20), clock=clock)
        self._known: dict[str, None] = {}  # sessions that began, the oldest first

    def charge(self, client: str, session: str | None) -> str | None:
        """Count a call, and its session if it is a new one; or say why it is refused."""
        if not self._calls.take(client):
            return "That is too many requests in a short time. Please wait a little."
        if session is None or session not in self._known:
            if not self._sessions.take(client):
                return "That is too many visits begun in a short time. Please wait a little."
            if session is not None:
                self._known[session] = None
                if len(self._known) > MAX_CLIENTS:
                    del self._known[next(iter(self._known))]
        return None

    def charge_frame(self, client: str) -> str | None:
        """Count a live frame, or say why it is refused."""
        if not self._frames.take(client):
            return "That is too many frames in a short time. Please wait a little."
        return None
