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
FORGOTTEN_SECONDS = 3600.0  # until a client's wrong passwords count no more
LOOKS, LOOK_SECONDS = 60, 60.0  # passwords of strangers that are looked at in such a time
MAX_CLIENTS = 10_000  # whose wrong passwords are remembered

OFF = (
    "The Admin tab is off. To switch it on, set the environment variable ADMIN_PASSWORD "
    f"to at least {MIN_PASSWORD} characters and start the page again."
)
SIGN_IN = "Sign in first. This part is for the owner of the page."


class NotOwner(ValueError):
    """Somebody who is not signed in asked for what is the owner's."""


class TooEarly(ValueError):
    """A password came while the delay after a wrong one lasts; it was not looked at."""


@dataclass
class _Session:
    began: float
    used: float


@dataclass
class _Guesser:
    wrong: int = 0  # tries since the last right one
    not_before: float = 0.0


class Owner:
    """Knows the password and the sessions. ``clock`` gives seconds that only rise.

    A wrong password delays the next one of the same client. All strangers together have so many
    looks a minute, which bounds what many addresses can guess; that does not hold the door shut for
    an owner who has signed in from the same address before. Whoever shares that address can. The
    ``spare`` password always opens: it is made anew at each start, works once, and is too long to
    be guessed.
    """

    def __init__(self, password: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.enabled = len(password) >= MIN_PASSWORD
        self._password = _digest(password)
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, _Session] = {}  # by the digest of the token, oldest first
        self._guessers: dict[str, _Guesser] = {}  # by client, the latest last
        self._looks: list[float] = []  # when strangers' passwords were looked at
        self._known: dict[str, None] = {}  # clients from whom the owner signed in, oldest first
        self._spare = b""

    @classmethod
    def from_environment(cls) -> Owner:
        """The owner whose password is ``ADMIN_PASSWORD``; off where that is unset or short."""
        return cls(os.environ.get("ADMIN_PASSWORD", ""))

    def spare(self) -> str:
        """A new password that opens once, beside the owner's own; the one before opens no more."""
        password = secrets.token_urlsafe(24)
        with self._lock:
            self._spare = _digest(password)
        return password

    def sign_in(self, password: object, client: str = "") -> str:
        """A new session's token. Raises ValueError with a sentence: off, too early or wrong."""
        if not self.enabled:
            raise NotOwner(OFF)
        text = password if isinstance(password, str) and len(password) <= 1000 else ""
        with self._lock:
            now = self._clock()
            if text and self._spare and hmac.compare_digest(_digest(text), self._spare):
                self._spare = b""
            else:
                self._require_turn(client, now)
                if not hmac.compare_digest(_digest(text), self._password):
                    self._note_wrong(client, now)
                    raise NotOwner("The password is wrong.")
                self._guessers.pop(client, None)
                self._known.pop(client, None)
                self._known[client] = None
                while len(self._known) > MAX_SESSIONS:
                    del self._known[next(iter(self._known))]
            token = secrets.token_urlsafe(32)
            self._sessions[_digest(token)] = _Session(now, now)
            while len(self._sessions) > MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            return token

    def _require_turn(self, client: str, now: float) -> None:
        """Raises TooEarly while this client's delay lasts, or strangers have had their looks."""
        guesser = self._guessers.get(client)
        if guesser is not None and now < guesser.not_before:
            wait = math.ceil(guesser.not_before - now)
            raise TooEarly(f"After a wrong password you have to wait. Try again in {wait} s.")
        if client in self._known:
            return
        self._looks = [at for at in self._looks if now - at < LOOK_SECONDS]
        if len(self._looks) >= LOOKS:
            wait = math.ceil(self._looks[0] + LOOK_SECONDS - now)
            raise TooEarly(
                f"Too many passwords are being tried here. Try again in {wait} s, or use the "
                "password that the log names at each start."
            )
        self._looks.append(now)

    def _note_wrong(self, client: str, now: float) -> None:
        guesser = self._guessers.pop(client, None)
        if guesser is None or now - guesser.not_before > FORGOTTEN_SECONDS:
            guesser = _Guesser()
        guesser.not_before = now + min(FIRST_DELAY * 2**guesser.wrong, LONGEST_DELAY)
        guesser.wrong = min(guesser.wrong + 1, 30)  # 2 ** 30 is long enough
        self._guessers[client] = guesser
        if len(self._guessers) > MAX_CLIENTS:
            del self._guessers[next(iter(self._guessers))]

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
