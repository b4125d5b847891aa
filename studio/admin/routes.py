"""What the owner's browser asks for beside Gradio: signing in, uploads, photos, samples, models.

None of it goes through Gradio, whose upload folder and cache strangers can use. Every route but
sign-in demands a living session before anything else happens; of an upload, even before its body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from diffusion.output.pictures import encode_jpeg

from ..disk import errors_as_sentences
from ..drawing.recipe import Recipe
from ..drawing.worker import Busy
from ..safety.client import CLIENT_KEY
from ..safety.guard import OWNERS_UPLOAD
from ..safety.origin import ELSEWHERE, is_from_elsewhere
from ..safety.owner import COOKIE, SESSION_SECONDS, NotOwner, TooEarly
from ..training.photos import NoSuchSet, PictureSet
from ..training.tuned import ModelCard
from .cats import SIDE, cats_before, cats_of
from .html import photos_html
from .parts import Admin

PREFIX = "/admin"
THUMBNAIL = 128  # pixels, as the largest shipped network sees
HEADERS = {
    "cache-control": "private, max-age=3600",  # dropped at sign-out, where it is https
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "referrer-policy": "no-referrer",
}


class AdminRoutes:
    """ASGI middleware that answers ``/admin/…`` itself and passes on everything else."""

    def __init__(self, app: ASGIApp, admin: Admin) -> None:
        self.app, self.admin = app, admin
        routes = _Handlers(admin)
        self.routes = Starlette(
            routes=[
                Route("/admin/sign-in", routes.sign_in, methods=["POST"]),
                Route("/admin/sign-out", routes.sign_out, methods=["POST"]),
                Route(OWNERS_UPLOAD, routes.upload, methods=["POST"]),
                Route("/admin/sets", routes.new_set, methods=["POST"]),
                Route("/admin/sets/current", routes.current_set),
                Route("/admin/sets/{id}/crop", routes.crop, methods=["POST"]),
                Route("/admin/sets/{id}/remove", routes.remove, methods=["POST"]),
                Route("/admin/sets/{id}/keep-both", routes.keep_both, methods=["POST"]),
                Route("/admin/sets/{id}/thumb/{number:int}.jpg", routes.thumbnail),
                Route("/admin/sets/{id}/picture/{number:int}.jpg", routes.picture),
                Route("/admin/trainings/{id}/samples/{name}", routes.sample),
                Route("/admin/models/{name}/cats.jpg", routes.cats),
                Route("/admin/models/{name}/before.jpg", routes.cats_before),
                Route("/admin/models/{name}.safetensors", routes.model),
            ],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PREFIX or path.startswith(f"{PREFIX}/")):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        response = self._refusal(request)
        await (response or self.routes)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        """Decided by the headers alone: no byte of a stranger's upload is read."""
        headers = {key.decode("latin1").lower(): value for key, value in request.headers.raw}
        if is_from_elsewhere(request.scope, headers):  # the guard looks at changes alone
            return _error(ELSEWHERE, 403)
        if request.scope["path"] == f"{PREFIX}/sign-in":
            return None
        try:
            self.admin.owner.demand(request.cookies)
        except NotOwner as error:
            return _error(str(error), 401)
        return None


Handler = Callable[["_Handlers", Request], Awaitable[Response]]


def _answering(handler: Handler) -> Handler:
    """What is raised becomes a sentence."""

    async def answer(self: _Handlers, request: Request) -> Response:
        try:
            with errors_as_sentences():
                return await handler(self, request)
        except ValueError as error:
            kinds = {NoSuchSet: 404, NotOwner: 401, TooEarly: 429}
            return _error(str(error), kinds.get(type(error), 400))
        except Busy as error:
            return _error(str(error), 503)

    return answer


class _Handlers:
    def __init__(self, admin: Admin) -> None:
        self.admin = admin

    @_answering
    async def sign_in(self, request: Request) -> Response:
        """A session for the right password, as a cookie that no script can read."""
        body = await _json(request)
        token = self.admin.owner.sign_in(body.get("password"), request.scope.get(CLIENT_KEY, ""))
        response = JSONResponse({"signed_in": True}, headers={"cache-control": "no-store"})
        response.set_cookie(
            COOKIE, token, max_age=SESSION_SECONDS, path="/", secure=_is_https(request),
            httponly=True, samesite="strict",
        )  # fmt: skip
        return response

    async def sign_out(self, request: Request) -> Response:
        """End this session here and in the browser, with the photos that it has cached."""
        self.admin.owner.sign_out(request.cookies.get(COOKIE))
        response = JSONResponse({"signed_in": False}, headers={"clear-site-data": '"cache"'})
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    # -- photos -------------------------------------------------------------------------------

    @_answering
    async def upload(self, request: Request) -> Response:
        """One file as the raw body; ``set`` says where it goes, ``name`` what it was called."""
        sets, query = self.admin.sets, request.query_params
        pictures = await run_in_threadpool(sets.get, query.get("set", ""))
        name, num_bytes = query.get("name", ""), _content_length(request)
        incoming = await run_in_threadpool(pictures.receive, name, num_bytes=num_bytes)
        try:
            with incoming:
                async for chunk in request.stream():
                    await run_in_threadpool(incoming.write, chunk)
                incoming.keep()
        except ClientDisconnect:
            return _error("The upload was interrupted.", 400)
        sets.arrived(pictures)
        return JSONResponse({"set": pictures.id})

    @_answering
    async def new_set(self, request: Request) -> Response:
        """An empty set, which takes the place of the current one."""
        pictures = await run_in_threadpool(self.admin.sets.create)
        return JSONResponse({"set": pictures.id})

    @_answering
    async def current_set(self, request: Request) -> Response:
        """The current set as HTML: thumbnails, counts, and what was left out."""

        def look() -> str:
            pictures = self.admin.sets.current()
            return photos_html(pictures.scan() if pictures else None)

        return HTMLResponse(await run_in_threadpool(look), headers={"cache-control": "no-store"})

    @_answering
    async def crop(self, request: Request) -> Response:
        """The square that the network will see of a picture; null is the centre."""
        body = await _json(request)
        pictures = await self._set(request)
        picture = await run_in_threadpool(pictures.crop, _number(body), body.get("square"))
        return JSONResponse({"box": picture.box})

    @_answering
    async def remove(self, request: Request) -> Response:
        """Leave a picture out, or with ``removed`` false take it in again."""
        body = await _json(request)
        pictures = await self._set(request)
        change = pictures.remove if body.get("removed", True) is True else pictures.put_back
        picture = await run_in_threadpool(change, _number(body))
        return JSONResponse({"removed": picture.removed})

    @_answering
    async def keep_both(self, request: Request) -> Response:
        """Take in a picture that was left out as a copy of another."""
        body = await _json(request)
        pictures = await self._set(request)
        picture = await run_in_threadpool(pictures.keep_both, _number(body))
        return JSONResponse({"kept": picture.kept})

    @_answering
    async def thumbnail(self, request: Request) -> Response:
        """A picture as the network sees it."""
        pictures, number = await self._set(request), request.path_params["number"]
        return await run_in_threadpool(lambda: _jpeg(pictures.thumbnail(number, THUMBNAIL)))

    @_answering
    async def picture(self, request: Request) -> Response:
        """A whole picture, to choose a square on."""
        pictures, number = await self._set(request), request.path_params["number"]
        return await run_in_threadpool(lambda: _jpeg(pictures.open(number)))

    async def _set(self, request: Request) -> PictureSet:
        return await run_in_threadpool(self.admin.sets.get, request.path_params["id"])

    # -- trainings and models -----------------------------------------------------------------

    @_answering
    async def sample(self, request: Request) -> Response:
        """A grid of samples of a training: one of those it lists, never a path."""
        view = await run_in_threadpool(self.admin.trainings.view, request.path_params["id"])
        return _listed(view.samples, request.path_params["name"], "image/png")

    @_answering
    async def cats(self, request: Request) -> Response:
        """The cats of a tuned model in a row."""
        return await self._row(cats_of(await self._card(request)))

    @_answering
    async def cats_before(self, request: Request) -> Response:
        """What the model that it was made of draws from the same seeds."""
        card, library = await self._card(request), self.admin.studio.library
        return await self._row(await run_in_threadpool(cats_before, card, library))  # it may load

    async def _card(self, request: Request) -> ModelCard:
        for card in await run_in_threadpool(self.admin.models.cards):
            if card.name == request.path_params["name"]:
                return card
        raise NoSuchSet("There is no such model.")

    async def _row(self, recipes: list[Recipe]) -> Response:
        data = await run_in_threadpool(self.admin.portraits.jpeg, recipes, SIDE)
        return Response(data, media_type="image/jpeg", headers=HEADERS)

    @_answering
    async def model(self, request: Request) -> Response:
        """The safetensors of a tuned model, to keep."""
        name = request.path_params["name"]
        models = self.admin.models
        if name not in await run_in_threadpool(models.names):
            raise NoSuchSet("There is no such model.")
        return FileResponse(
            models.path(name), media_type="application/octet-stream",
            filename=f"{name}.safetensors", headers={**HEADERS, "cache-control": "no-store"},
        )  # fmt: skip


def _listed(paths: Sequence[Path], name: str, media_type: str) -> Response:
    for path in paths:
        if path.name == name and path.is_file():
            return FileResponse(path, media_type=media_type, headers=HEADERS)
    raise NoSuchSet("There is no such file.")


def _jpeg(image: Image.Image) -> Response:
    data = encode_jpeg(image, quality=95)
    return Response(data, media_type="image/jpeg", headers=HEADERS)


def _error(sentence: str, status: int) -> JSONResponse:
    headers = {"cache-control": "no-store"}
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


async def _json(request: Request) -> dict:
    """The body as a JSON object. (How large it may be is the guard's affair.)"""
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ValueError("This request is not a JSON object.")
    return body


def _number(body: dict) -> int:
    number = body.get("picture")
    if type(number) is not int:
        raise ValueError("The number of the picture must be a whole number.")
    return number


def _content_length(request: Request) -> int:
    value = request.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else 0


def _is_https(request: Request) -> bool:
    """Whether the browser's own connection is encrypted, perhaps up to a proxy only."""
    forwarded = request.headers.get("x-forwarded-proto", "").split(",")[0].strip()
    return "https" in (request.url.scheme, forwarded)
