"""Refuses what Gradio would otherwise fetch or accept on a stranger's behalf.

* ``/file=http…``, its old form ``/file/http…``, and ``/proxy=``: the server would fetch an
  address that a stranger names, and show what it got as a page of ours.
* A file input that is an address instead of an upload: the same.
* Requests that change something and come from another site's page, and its asking beforehand
  whether it might (a preflight), to which Gradio would say yes.
* More uploads than there is room for, and services of Gradio's that this page has no use for: one
  would write what is on the page to the disk as often as asked, and never clear it away.
* Bodies larger than any honest call, before they are read to the end.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.responses import JSONResponse

from .budget import UploadBudget

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_CALL_BYTES = 500_000  # of a JSON call; uploads have a limit of their own
MAX_DEPTH = 20
UPLOAD = "/gradio_api/upload"
OWNERS_UPLOAD = "/admin/upload"  # which has a door and limits of its own
UNUSED = re.compile(r"/gradio_api/(deep_link|process_recording|component_server|(undo-)?vibe-.+)/*")
ELSEWHERE = "This request comes from the page of another site."
UNANSWERED = "There is nothing here that could answer this request."


class Guard:
    """ASGI middleware around the whole app.

    ``behind_proxy``: all requests come through a proxy that says for which host and client they
    are. Anywhere else these headers are the sender's own words.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], *, behind_proxy: bool = False) -> None:
        self.app, self.behind_proxy = app, behind_proxy
        self._uploads = UploadBudget()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin1").lower(): value for key, value in scope["headers"]}
        reason, status = self._refusal(scope, headers), 403
        if reason is None and scope["method"] == "POST" and scope["path"] == UPLOAD:
            reason, status = self._charge(scope, headers), 429
        elif reason is None and _is_call(scope):
            body, reason = await _read_call(receive)
            receive = _replay(body, receive)
        if reason is not None:
            answer = {"error": reason, "detail": reason}  # the latter is what Gradio's page shows
            await JSONResponse(answer, status_code=status)(scope, receive, send)
            return
        await self._answer(scope, receive, send)

    def _refusal(self, scope: Message, headers: dict[str, bytes]) -> str | None:
        path = unquote(scope["path"]).lower()
        if "/proxy=" in path:
            return "This page fetches nothing from other hosts."
        if re.search(r"/file[=/].*:/", path, re.DOTALL):
            return "This page fetches nothing from other hosts."
        if UNUSED.fullmatch(path):
            return "This page has no such service."
        origin = headers.get("origin", b"").decode("latin1")
        if scope["method"] not in ("GET", "HEAD") and origin:
            names = ("host", "x-forwarded-host") if self.behind_proxy else ("host",)
            hosts = {headers[name].lower() for name in names if name in headers}
            if urlsplit(origin).netloc.lower().encode("latin1") not in hosts:  # "null" has none
                return ELSEWHERE
            if headers.get("sec-fetch-site") == b"cross-site":  # which no page can forge
                return ELSEWHERE
        return None

    def _charge(self, scope: Message, headers: dict[str, bytes]) -> str | None:
        """Take an upload off the budget, by the size that the server holds it to."""
        size = headers.get("content-length", b"")
        if not size.isdigit() or "transfer-encoding" in headers:  # which would overrule the size
            return "An upload has to say how large it is."
        client = (scope.get("client") or ("",))[0]
        if self.behind_proxy and "x-forwarded-for" in headers:
            client = headers["x-forwarded-for"].decode("latin1").rsplit(",", 1)[-1].strip()
        return self._uploads.charge(client, int(size))

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """What the app answers; where Gradio breaks on a request (an unknown name), a sentence."""
        started = False

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, note)
        except Exception:
            if started:
                raise
            traceback.print_exc()
            await JSONResponse({"error": UNANSWERED}, status_code=500)(scope, receive, send)


def _is_call(scope: Message) -> bool:
    """Whether a body is to be read here: every one but an upload's, whatever it says it holds.

    By the whole path: a call of Gradio's may be named like an upload (``/gradio_api/run/upload``).
    """
    uploads = (UPLOAD, OWNERS_UPLOAD)
    return scope["method"] not in ("GET", "HEAD") and scope["path"] not in uploads


async def _read_call(receive: Receive) -> tuple[bytes, str | None]:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_CALL_BYTES:
            return b"", "This call is too large."
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    try:
        values = json.loads(bytes(body) or b"null")
    except (ValueError, RecursionError):
        return bytes(body), None  # not ours to explain
    return bytes(body), _why_not(values)


def _why_not(value: Any, depth: int = 0) -> str | None:
    """A sentence if a file input somewhere inside is an address, or the nesting has no end."""
    if depth > MAX_DEPTH:
        return "This call is nested too deeply."
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and "://" in path:
            return "Upload a file; an address in its place is not fetched."
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
