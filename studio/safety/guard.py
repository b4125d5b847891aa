"""Refuses what Gradio would otherwise fetch, accept or stumble over on a stranger's behalf.

* Every route that the page does not use.
* ``/file=http…``, its old form ``/file/http…``, and ``/proxy=``: the server would fetch an
  address that a stranger names, and show what it got as a page of ours.
* A file input that is an address instead of an upload: the same.
* Requests that change something and come from another site's page, and its asking beforehand
  whether it might (a preflight), to which Gradio would say yes.
* More uploads, calls and visits than there is room for.
* Bodies larger than any honest call, before they are read to the end, and values that no answer
  could repeat (NaN, halves of characters).
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote

from starlette.responses import JSONResponse

from .budget import CallBudget, UploadBudget
from .client import CLIENT_KEY, client_of
from .journal import noted
from .log import note
from .origin import ELSEWHERE, is_from_elsewhere

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Of a JSON call: sixteen recipes with a picture fit. Uploads have a limit of their own.
MAX_CALL_BYTES = 3_000_000
MAX_DEPTH = 20
UPLOAD = "/gradio_api/upload"
PREVIEW = "/cat.jpg"  # the cat of a link, drawn for whoever shows that link
LIVE = "/live"  # a frame that follows a finger: many a second
OWNERS_UPLOAD = "/admin/upload"  # which has a door and limits of its own
READ = re.compile(  # what the page and scripts (gradio_client, curl) read
    r"/(cat\.jpg|healthz|readyz|config/?|favicon\.ico|robots\.txt|manifest\.json|theme\.css"
    r"|pwa_icon)?"
    r"|/(static|assets|svelte)/.+|/admin(/.*)?"
    r"|/gradio_api/(info/?|openapi\.json|app_id/?|startup-events|theme\.css|upload_progress"
    r"|queue/(data|status)|heartbeat/[^/]+|call/(v2/)?[^/]+/[^/]+|file[=/].+)",
    re.DOTALL,
)
CHANGE = re.compile(
    r"/live|/admin(/.*)?|/gradio_api/(upload|queue/join|cancel|reset/?|(run|call|call/v2)/[^/]+/?)",
    re.DOTALL,
)
BEGINS = re.compile(r"/gradio_api/(queue/join|(run|call|call/v2)/[^/]+/?)")  # work, or a visit
CLOSED = "This page has no such service."
UNANSWERED = "Nothing here can answer this request."
NO_JSON = "This call is no JSON that a page of this kind could have sent."


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app
        self._uploads, self._calls = UploadBudget(), CallBudget()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # nothing here speaks it
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await noted(self._guarded, scope, receive, send)

    async def _guarded(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {key.decode("latin1").lower(): value for key, value in scope["headers"]}
        client = scope[CLIENT_KEY] = client_of(scope, headers)
        reason, status = self._refusal(scope, headers), 403
        if reason is None and scope["method"] == "POST" and scope["path"] == UPLOAD:
            reason, status = self._charge(client, headers), 429
        elif reason is None and scope["path"] == PREVIEW:  # it costs what a visit may cost
            reason, status = self._calls.charge(client, None), 429
        elif reason is None and _is_call(scope):
            body, values, reason, status = await _read_call(receive)
            receive = _replay(body, receive)
            if reason is None and BEGINS.fullmatch(scope["path"]):
                session = values.get("session_hash") if isinstance(values, dict) else None
                session = session if isinstance(session, str) else None
                reason, status = self._calls.charge(client, session), 429
            elif reason is None and scope["path"] == LIVE:
                reason, status = self._calls.charge_frame(client), 429
        if reason is not None:
            answer = {"error": reason, "detail": reason}  # the latter is what Gradio's page shows
            await JSONResponse(answer, status_code=status)(scope, receive, send)
            return
        await self._answer(scope, receive, send)

    def _refusal(self, scope: Message, headers: dict[str, bytes]) -> str | None:
        path = unquote(scope["path"]).lower()
        if "/proxy=" in path or re.search(r"/file[=/].*:/", path, re.DOTALL):
            return "This page fetches nothing from other hosts."
        reads = scope["method"] in ("GET", "HEAD")
        if not (CHANGE.fullmatch(scope["path"]) or (reads and READ.fullmatch(scope["path"]))):
            return CLOSED
        return ELSEWHERE if not reads and is_from_elsewhere(scope, headers) else None

    def _charge(self, client: str, headers: dict[str, bytes]) -> str | None:
        """Take an upload off the budget, by the size that the server holds it to."""
        size = headers.get("content-length", b"")
        if not size.isdigit() or "transfer-encoding" in headers:  # which would overrule the size
            return "An upload needs a Content-Length header."
        return self._uploads.charge(client, int(size))

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """What the app answers; where Gradio breaks on a request (an unknown name), a sentence.

        A call that fails is answered with 500 by Gradio, whoever's mistake it was; here it is 422,
        and 5xx is left to mean that the page itself is in trouble. A stream that breaks (of an
        event that nobody knows) has said so in a message of its own; it is brought to an end.
        """
        started = False
        broken = False  # Gradio's own page for that is left out
        streams = False  # goes on, and has no length that it would fall short of

        async def pass_on(message: Message) -> None:
            nonlocal started, broken, streams
            if message["type"] == "http.response.start":
                streams = _has_type(message["headers"], b"text/event-stream")
                if message["status"] == 500:
                    broken = not _has_type(message["headers"], b"application/json")
                    message = {**message, "status": 422}
            elif not message.get("more_body"):
                streams = False
            if not broken:
                started = True
                await send(message)

        try:
            await self.app(scope, receive, pass_on)
        except Exception as error:
            line = f"{scope['method']} {scope['path'][:80]!r} broke with {type(error).__name__}"
            note(f"{line}: {str(error)[:100]!r}")
            if scope["path"].startswith("/admin/"):  # no stranger comes so far
                traceback.print_exc()
            broken = not started
            if streams and started:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        if broken:
            await JSONResponse({"error": UNANSWERED}, status_code=400)(scope, receive, send)


def _has_type(headers: Iterable[tuple[bytes, bytes]], kind: bytes) -> bool:
    return any(n.lower() == b"content-type" and value.startswith(kind) for n, value in headers)


def _is_call(scope: Message) -> bool:
    """Whether a body is to be read here: every one but an upload's, whatever it says it holds.

    By the whole path: a call of Gradio's may be named like an upload (``/gradio_api/run/upload``).
    """
    uploads = (UPLOAD, OWNERS_UPLOAD)
    return scope["method"] not in ("GET", "HEAD") and scope["path"] not in uploads


async def _read_call(receive: Receive) -> tuple[bytes, Any, str | None, int]:
    """A call's body, what it holds, and why it is refused with which status."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_CALL_BYTES:
            return b"", None, "This call is too large.", 403
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    try:
        values = json.loads(bytes(body) or b"null")
    except (ValueError, RecursionError):
        return bytes(body), None, None, 200  # not ours to explain
    if reason := _why_not(values):
        return b"", None, reason, 403
    try:
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # NaN, infinity, or half of a character
        return b"", None, NO_JSON, 400
    if isinstance(values, dict) and values.get("session_hash") == "":  # two names for one visit
        return b"", None, NO_JSON, 400
    return bytes(body), values, None, 200


def _why_not(value: Any, depth: int = 0) -> str | None:
    """A sentence if a file input somewhere inside is an address, or the nesting has no end."""
    if depth > MAX_DEPTH:
        return "This request is nested too deeply."
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and "://" in path:
            return "Upload a file. A web address is not fetched."
        value = list(value.values())
    if not isinstance(value, list):
        return None
    reasons = (_why_not(item, depth + 1) for item in value)
    return next(filter(None, reasons), None)


def _replay(body: bytes, receive: Receive) -> Receive:
    """``receive`` that hands out a body already read, then goes on as before."""
    handed = False

    async def again() -> Message:
        nonlocal handed
        if handed:
            return await receive()
        handed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
