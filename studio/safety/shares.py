"""What one client may have on its way at once, so that the others' comes too."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .client import HOUSE, current_client


class Shares:
    """At most so many things of each client at once, those that wait among them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken: Counter[str] = Counter()  # by client
        self._counting = threading.Lock()

    @contextmanager
    def one_more(self, refusal: Exception) -> Iterator[None]:
        """One more of the current client's. Raises ``refusal`` where it has enough; the house never
        has."""
        client = current_client.get()
        with self._counting:
            if client != HOUSE and self.taken[client] >= self.most:
                raise refusal
            self.taken[client] += 1
        try:
            yield
        finally:
            with self._counting:
                self.taken[client] -= 1
                if not self.taken[client]:
                    del self.taken[client]
