"""The owner of this page: one password, and who is signed in.

Everything lives in memory: a restart signs everybody out. A session's token is kept as its SHA-256
only, so that a copy of this memory opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

COOKIE = "cat-owner"
MIN_PASSWORD = 12  # characters
SESSION_SECONDS = 12 * 3600  # the longest that a session lives
IDLE_SECONDS = 2 * 3600  # ... and without any request
MAX_SESSIONS = 20  # the oldest is signed out
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds after a wrong password; doubles each time

OFF = (
    "The Admin tab is off. To switch it on, set the environment variable ADMIN_PASSWORD "
    f"to at least {MIN_PASSWORD} characters and start the page again."
)
SIGN_IN = "Sign in first: this is for the owner of the page."


class NotOwner(ValueError):
    """Somebody who is not signed in asked for what is the owner's."""


class TooEarly(ValueError):
    """A password came while the delay after a wrong one lasts; it was not looked at."""


@dataclass
class _Session:
    began: float
    used: float


class Owner:
    """Knows the password and the sessions. ``clock`` gives seconds that only rise."""

    def __init__(self, password: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.enabled = len(password) >= MIN_PASSWORD
        self._password = _digest(password)
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, _Session] = {}  # by the digest of the token, oldest first
        self._wrong = 0  # tries since the last right one, whoever made them
        self._not_before = 0.0

    @classmethod
    def from_environment(cls) -> Owner:
        """The owner whose password is ``ADMIN_PASSWORD``; off where that is unset or short."""
        return cls(os.environ.get("ADMIN_PASSWORD", ""))

    def sign_in(self, password: object) -> str:
        """A new session's token. Raises ValueError with a sentence: off, too early or wrong.

        The delay counts the tries of everybody together: addresses are cheap to change.
        """
        if not self.enabled:
            raise NotOwner(OFF)
        with self._lock:
            now = self._clock()
            if now < self._not_before:
                wait = math.ceil(self._not_before - now)
                raise TooEarly(f"After a wrong password all have to wait. Try again in {wait} s.")
            right = isinstance(password, str) and len(password) <= 1000
            if not (right and hmac.compare_digest(_digest(password), self._password)):
                self._not_before = now + min(FIRST_DELAY * 2**self._wrong, LONGEST_DELAY)
                self._wrong = min(self._wrong + 1, 30)  # 2 ** 30 is long enough
                raise NotOwner("That is not the password.")
            self._wrong = 0
            token = secrets.token_urlsafe(32)
            self._sessions[_digest(token)] = _Session(now, now)
            while len(self._sessions) > MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            return token

    def check(self, token: str | None) -> bool:
        """Whether this token belongs to a session that lives; being asked counts as use."""
        if not self.enabled or not token:
            return False
        key = _digest(token)
        with self._lock:
            now = self._clock()
            session = self._sessions.get(key)
            if session is None:
                return False
            if now - session.began >= SESSION_SECONDS or now - session.used >= IDLE_SECONDS:
                del self._sessions[key]
                return False
            session.used = now
            return True

    def demand(self, cookies: Mapping[str, str]) -> None:
        """Raises NotOwner unless the cookies of a request hold a living session."""
        if not self.enabled:
            raise NotOwner(OFF)
        if not self.check(cookies.get(COOKIE)):
            raise NotOwner(SIGN_IN)

    def sign_out(self, token: str | None) -> None:
        """End a session; a token that opens nothing is no mistake."""
        with self._lock:
            self._sessions.pop(_digest(token or ""), None)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
