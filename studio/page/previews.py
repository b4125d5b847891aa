"""What other programs show of a link to this page: its title, its words and its cat.

A link draws its own cat, so its preview shows that very cat: ``/cat.jpg`` takes the same query. It
is drawn once and kept, its number and size are bounded, few are drawn at a time, and the guard
counts each as a visit that begins.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from contextlib import suppress

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..drawing.portraits import Portraits
from ..drawing.recipe import Recipe, plain_recipe, to_query
from ..drawing.worker import Busy, Studio
from ..safety.client import CLIENT_KEY, HOUSE, current_client, is_near
from ..safety.guard import PREVIEW
from ..safety.shares import Shares
from .examples import FIRST_SEED
from .forms import read_link

SIDE = 512  # pixels of a preview
AT_ONCE = 2  # that are being drawn; the others wait
MAX_WAITING = 16  # that may wait for that
MAX_OF_ONE = 6  # that one client may have on their way, so that others' previews come too
MAX_STEPS = 100  # of a preview: a link that takes longer shows the page's own cat
MAX_QUERY = 4000  # characters
TITLE = "Cat Diffusion"
TOO_MANY = "Too many previews are being drawn. Please try again in a moment."
WORDS = "Cats that never existed, formed out of noise. Draw one of your own."
OTHERS = re.compile(rb'<meta\s+(property="og:|name="(twitter:|description"))[^>]*>\s*')
HOST = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?", re.ASCII)


class Previews:
    """ASGI middleware: answers ``/cat.jpg``, and writes into the page what it is about."""

    def __init__(self, app: ASGIApp, studio: Studio, root_path: str = "") -> None:
        self.app, self.studio, self.root_path = app, studio, root_path
        self.portraits = Portraits(studio)
        self._limit: anyio.CapacityLimiter | None = None  # belongs to the loop that serves
        self._on_their_way = Shares(MAX_OF_ONE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "") if scope["type"] == "http" else ""
        if path == PREVIEW:
            await (await self._image(Request(scope)))(scope, receive, send)
        elif path == "/" and scope["method"] == "GET":
            tags = await run_in_threadpool(self._tags, Request(scope))  # it may load a model
            await self.app(scope, receive, _Rewriting(send, tags))
        else:
            await self.app(scope, receive, send)

    async def _image(self, request: Request) -> Response:
        """The cat of a link as a JPEG."""
        current_client.set(request.scope.get(CLIENT_KEY, HOUSE))
        if self._limit is None:
            self._limit = anyio.CapacityLimiter(AT_ONCE)
        try:
            with self._on_their_way.one_more(Busy(TOO_MANY)):
                length = len(request.url.query)  # a model may have to be loaded
                recipe = await run_in_threadpool(self._recipe, request.query_params, length)
                if self._limit.statistics().tasks_waiting >= MAX_WAITING:
                    raise Busy(TOO_MANY)
                async with self._limit:
                    data = await run_in_threadpool(self.portraits.jpeg, [recipe], SIDE)
        except ValueError as error:
            return _sentence(str(error), 404)
        except Busy as error:
            return _sentence(str(error), 503)
        headers = {"cache-control": "public, max-age=86400", "x-content-type-options": "nosniff"}
        return Response(data, media_type="image/jpeg", headers=headers)

    def _recipe(self, query: Mapping[str, str], length: int) -> Recipe:
        """The first cat of a link, or the first that the page shows. Raises ValueError."""
        library = self.studio.library
        if "seed" not in query:
            info = library.get().info
            taught = info.taught_label
            return plain_recipe(
                info.sampling, seed=FIRST_SEED, coat=taught, any_coat=not taught
            )  # fmt: skip
        if length > MAX_QUERY:
            raise ValueError("This link is too long for a preview.")
        try:
            recipe = read_link(query, library)[0]
        except (ValueError, OverflowError):  # a number of many digits
            raise ValueError("This link contains settings that do not work here.") from None
        if recipe.steps > MAX_STEPS:
            raise ValueError("This cat takes too many steps for a preview.")
        return recipe

    def _tags(self, request: Request) -> bytes:
        """What a program that shows a link reads in the page's head."""
        title, query = TITLE, ""
        if "seed" in request.query_params:
            with suppress(ValueError):  # the page says what is wrong with its link
                recipe = self._recipe(request.query_params, len(request.url.query))
                coat = f"{recipe.coat} cat" if recipe.coat else "A cat"
                title = f"{coat[0].upper()}{coat[1:]}, seed {recipe.seed} · {TITLE}"
                query = f"?{to_query([recipe])}"
        here = self._address(request)
        tags = {
            "og:title": title, "og:description": WORDS, "og:type": "website",
            "og:site_name": TITLE, "og:url": f"{here}/{query}",
            "og:image": f"{here}{PREVIEW}{query}", "og:image:type": "image/jpeg",
            "og:image:width": str(SIDE), "og:image:height": str(SIDE),
            "og:image:alt": "A cat that never existed",
        }  # fmt: skip
        lines = [f'<meta property="{name}" content="{html.escape(value)}">'
                 for name, value in tags.items()]  # fmt: skip
        lines += [f'<meta name="description" content="{html.escape(WORDS)}">',
                  '<meta name="twitter:card" content="summary">']  # fmt: skip
        return "\n".join(lines).encode()

    def _address(self, request: Request) -> str:
        """Where the page is, as its visitor sees it; a proxy near us says what was asked for."""
        headers, scheme = request.headers, request.url.scheme
        host = headers.get("host", "")
        if is_near(request.scope):
            host = headers.get("x-forwarded-host", host).split(",")[0].strip()
            forwarded = headers.get("x-forwarded-proto", "").split(",")[0].strip()
            scheme = forwarded if forwarded in ("http", "https") else scheme
        root = self.root_path or request.scope.get("root_path", "")
        return f"{scheme}://{host}{root}" if HOST.fullmatch(host) else ""


class _Rewriting:
    """``send`` that puts ``tags`` into the head of a page, in place of what stands there."""

    def __init__(self, send: Send, tags: bytes) -> None:
        self._send, self._tags = send, tags
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name == b"content-type"]
            if message["status"] == 200 and kinds and kinds[0].startswith(b"text/html"):
                self._start = message  # it waits for its new length
                return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        head, end, rest = bytes(self._body).partition(b"</head>")
        head = OTHERS.sub(b"", head).replace(b"<head>", b"<head>\n" + self._tags, 1)
        body = head + end + rest
        kept = [(n, v) for n, v in self._start["headers"] if n != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._start, "headers": [*kept, length]})
        await self._send({"type": "http.response.body", "body": body})


def _sentence(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status, headers={"cache-control": "no-store"})
