"""``/live``: one cat a request, as a small picture, for the map and the dream of the Explore tab.

The browser asks for the next frame when it has the last one, so a slow connection or a slow machine
means fewer frames, never older ones. A visitor who goes away stops the frame that is being drawn.
"""

from __future__ import annotations

import json

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from diffusion.output.pictures import encode_jpeg, to_image

from ...drawing.job import Job
from ...drawing.png_metadata import encode_png
from ...drawing.worker import Busy, Studio
from ...safety.client import CLIENT_KEY, HOUSE, current_client
from ...safety.guard import LIVE
from .forms import read_frame

QUALITY = 85  # of the JPEG of a live frame


class LiveRoute:
    """ASGI middleware that answers ``/live`` and passes on everything else.

    The body is what ``read_frame`` takes. The answer is a soft JPEG, or with
    ``"fine": true`` the cat as Generate would draw it, a PNG with its recipe. The header
    ``x-recipe`` is the recipe of the fine cat in both cases. A mistake is 422 and a busy server
    503, with a sentence.
    """

    def __init__(self, app: ASGIApp, studio: Studio) -> None:
        self.app, self.studio = app, studio
        self._limit: anyio.CapacityLimiter | None = None  # belongs to the loop that serves

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["path"] == LIVE and scope["method"] == "POST"
        if not asked:
            await self.app(scope, receive, send)
            return
        try:
            response = await self._frame(scope, receive)
        except ValueError as error:
            response = _sentence(str(error), 422)
        except Busy as error:
            response = _sentence(str(error), 503)
        await response(scope, receive, send)

    async def _frame(self, scope: Scope, receive: Receive) -> Response:
        current_client.set(scope.get(CLIENT_KEY, HOUSE))
        try:
            values = json.loads(await Request(scope, receive).body())
        except (ValueError, RecursionError):
            raise ValueError("A frame is asked for with a JSON object.") from None
        if self._limit is None:
            self._limit = anyio.CapacityLimiter(self.studio.max_waiting + 16)
        live = not (isinstance(values, dict) and values.get("fine") is True)
        job = await anyio.to_thread.run_sync(self._submit, values, live, limiter=self._limit)
        if await self._left(job, receive):
            return Response(status_code=204)  # nobody is there to read it
        if job.error is not None:
            raise job.error
        if job.stopped or job.pictures is None:
            raise Busy("The server is shutting down.")
        return _picture(job)

    def _submit(self, values: object, live: bool) -> Job:
        """A thread of its own: the model may have to be read from the disk."""
        recipe = read_frame(values, self.studio.library)
        return self.studio.submit([recipe], live=live, preview=live)

    async def _left(self, job: Job, receive: Receive) -> bool:
        """Wait for a job; True if the visitor went away first, which stops it."""
        left = False
        async with anyio.create_task_group() as tasks:

            async def leave() -> None:
                nonlocal left
                while (await receive())["type"] != "http.disconnect":
                    pass
                left = True
                self.studio.stop(job)

            tasks.start_soon(leave)
            await anyio.to_thread.run_sync(job.wait, limiter=self._limit)
            tasks.cancel_scope.cancel()
        return left


def _picture(job: Job) -> Response:
    assert job.pictures is not None  # a job that is done has drawn
    picture, recipe = job.pictures[0], job.recipes[0]
    headers = {"cache-control": "no-store", "x-recipe": json.dumps(recipe.to_dict())}
    if not job.live:
        return Response(encode_png(picture, recipe), media_type="image/png", headers=headers)
    data = encode_jpeg(to_image(picture), quality=QUALITY)
    return Response(data, media_type="image/jpeg", headers=headers)


def _sentence(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status, headers={"cache-control": "no-store"})
