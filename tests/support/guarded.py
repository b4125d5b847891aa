"""Requests to a guard by itself."""

from __future__ import annotations

import asyncio
import json

from studio.safety.guard import Guard


def ask(
    path: str = "/gradio_api/queue/join", *, method: str = "POST", body: bytes | list[bytes] = b"",
    app=None, peer: str | None = None, **headers: str,
) -> tuple[int, str, bytes | None]:  # fmt: skip
    """Status, sentence and the body that reached the app (None: nothing reached it)."""
    seen: list[bytes] = []

    async def plain(scope, receive, send):
        data, more = b"", True
        while more:
            message = await receive()
            data += message.get("body", b"")
            more = message.get("more_body", False)
        seen.append(data)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    chunks = [body] if isinstance(body, bytes) else list(body)
    messages = [
        {"type": "http.request", "body": chunk, "more_body": i < len(chunks)}
        for i, chunk in enumerate(chunks, start=1)
    ]
    sent: list[dict] = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "client": peer and (peer, 1234),
        "headers": [(b"host", b"cats.example:7860")]
        + [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip
    asyncio.run(Guard(app or plain)(scope, receive, send))
    answer = json.loads(sent[1]["body"])
    return sent[0]["status"], answer.get("error", ""), seen[0] if seen else None
