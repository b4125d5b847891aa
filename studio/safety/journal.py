"""A log on request: each request and each job as a line of JSON, and nothing personal in it.

No address, no name of a file, no seed, no text that a visitor sent: of a path only the service that
it asks for. A file is begun anew at 10 MB, and three old ones are kept.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

MAX_BYTES, OLD_FILES = 10_000_000, 3
STDOUT = "-"  # instead of a file
SERVICES = re.compile(
    r"/(healthz|readyz|live|admin|config|assets|static|svelte"
    r"|gradio_api/(call|run|queue/join|queue/data|upload|upload_progress|file|heartbeat|cancel"
    r"|info|reset))(?=$|[/=])"
)
OTHER = "other"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_lines = logging.getLogger("cat.journal")
_lines.propagate = False


def open_journal(place: str) -> None:
    """Write to a file from now on, or to stdout for "-", or nowhere for "". Raises ValueError."""
    for old in list(_lines.handlers):
        _lines.removeHandler(old)
        old.close()
    if not place:
        return
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    if place != STDOUT:
        try:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            handler = RotatingFileHandler(
                place, maxBytes=MAX_BYTES, backupCount=OLD_FILES, encoding="utf-8"
            )
        except OSError as error:
            raise ValueError(f"The log {place} cannot be written: {error.strerror}.") from None
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk
    _lines.addHandler(handler)
    _lines.setLevel(logging.INFO)


def write(kind: str, **fields: Any) -> None:
    """One line, if a journal is open."""
    if _lines.handlers:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        _lines.info(json.dumps({"time": now, "kind": kind, **fields}))


def service_of(path: str) -> str:
    """What a path asks for, without what the visitor put into it."""
    found = SERVICES.match(path)
    return found[0] if found else "/" if path == "/" else OTHER


async def noted(app: App, scope: Message, receive: Receive, send: Send) -> None:
    """Let ``app`` answer a request, and write down how it was."""
    if not _lines.handlers:
        return await app(scope, receive, send)
    began, status, sent = time.monotonic(), 0, 0

    async def watched(message: Message) -> None:
        nonlocal status, sent
        status = message.get("status", status)
        sent += len(message.get("body", b""))
        await send(message)

    try:
        await app(scope, receive, watched)
    finally:
        write(
            "request", method=scope["method"][:8], service=service_of(scope["path"]),
            status=status, bytes=sent, seconds=round(time.monotonic() - began, 4),
        )  # fmt: skip
