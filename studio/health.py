"""``/healthz`` and ``/readyz``, for whatever watches over the server.

Both answer from memory, without a lock that drawing holds, and outside Gradio's queue.
"""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .drawing.worker import Studio


class HealthRoutes:
    """ASGI middleware that answers the two routes and passes on everything else.

    ``/healthz``: 200 while the process answers. ``/readyz``: 200 while a model is in memory and
    jobs are taken, else 503; with how many wait, and for how many there is room.
    """

    def __init__(self, app: ASGIApp, studio: Studio) -> None:
        self.app, self.studio = app, studio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "") if scope["type"] == "http" else ""
        if path == "/healthz":
            response = JSONResponse({"alive": True})
        elif path == "/readyz":
            state = self.studio.state()
            response = JSONResponse(state, status_code=200 if state["ready"] else 503)
        else:
            await self.app(scope, receive, send)
            return
        response.headers["cache-control"] = "no-store"
        await response(scope, receive, send)
