"""What Gradio has to say to each visit, until its stream collects it.

Gradio puts every preview into a mailbox without a bound, and draws on for a visit that never opens
its stream. So a job makes its next preview only when the last few were collected, and one whose
mailbox nobody empties for some seconds ends. What is left of it is thrown away.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

KEPT = 3  # messages that may wait to be collected while a job goes on
PATIENCE = 8.0  # seconds until a job ends whose messages nobody collects
LOOK_SECONDS = 0.03
UNREAD_SECONDS = 60.0  # until what a finished job left uncollected is thrown away


class Mailboxes:
    """The mailboxes of the queue of a ``gr.Blocks``, by session hash."""

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks
        self._seen: dict[str, tuple[Any, float]] = {}  # the oldest message of each, and since when

    @property
    def _queue(self) -> Any:  # gradio.queueing.Queue; ``Blocks.queue`` puts a new one in its place
        return self._blocks._queue

    async def is_read(self, session: str) -> bool:
        """Wait until there is room for one more message; False if nobody makes any."""
        oldest, since = None, time.monotonic()
        while True:
            box = self._queue.pending_messages_per_session.get(session)
            if box is None:  # the stream was closed, or the session forgotten
                return False
            if box.qsize() <= KEPT:
                return True
            if _oldest(box) is not oldest:
                oldest, since = _oldest(box), time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                return False
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self, session: str) -> None:
        """End all that a session has asked for, and forget it."""
        await self._queue.clean_events(session_hash=session)
        self._forget(session)

    def _forget(self, session: str) -> None:
        self._queue.pending_messages_per_session.pop(session, None)
        self._queue.pending_event_ids_session.pop(session, None)

    def sweep(self) -> None:
        """Forget the sessions in which nothing has happened for a while.

        Called now and then, from any thread.
        """
        now = time.monotonic()
        at_work = {event.session_hash for event in list(self._queue.event_ids_to_events.values())}
        pending = self._queue.pending_messages_per_session  # the event loop takes some away
        found = ((session, pending.get(session)) for session in list(pending))
        boxes = {session: box for session, box in found if box is not None}
        self._seen = {session: seen for session, seen in self._seen.items() if session in boxes}
        for session, box in boxes.items():
            message, since = self._seen.get(session, (self, now))
            if session in at_work or message is not _oldest(box):
                self._seen[session] = _oldest(box), now
            elif now - since > UNREAD_SECONDS:
                self._forget(session)


def _oldest(box: Any) -> Any:
    waiting = box._queue  # of asyncio.Queue, which has no public look at its head
    return waiting[0] if waiting else None
