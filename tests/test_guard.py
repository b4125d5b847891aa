"""The guard in front of the app: what it lets through and what it refuses."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.guard import MAX_CALL_BYTES, Guard

CALL = "/gradio_api/call/generate"


@pytest.fixture
def client():
    async def echo(request: Request):
        body = await request.body()
        return JSONResponse(json.loads(body)) if body else PlainTextResponse("page")

    routes = [Route("/{path:path}", echo, methods=["GET", "POST"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(Guard)]))


def test_honest_requests_pass_with_their_body_whole(client):
    assert client.get("/").text == "page"
    values = {"data": [1, "a ü", {"path": "/tmp/gradio/x/cat.png", "meta": {}}]}
    assert client.post(CALL, json=values).json() == values
    long = {"data": ["x" * (MAX_CALL_BYTES // 2)]}
    assert client.post(CALL, json=long).json() == long


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://127.0.0.1/x",
        "/gradio_api/file=https://x.org/a.png",
        "/gradio_api/file=https:/x.org/a.png",
        "/gradio_api/file=HTTPS%3A%2F%2Fx.org/a.png",
        "/gradio_api/file=ftp://x.org/a.png",
        "/gradio_api/proxy=http://127.0.0.1/x",
        "/proxy=https://x.hf.space/x",
    ],
)
def test_nothing_is_fetched_for_a_stranger(client, path):
    answer = client.get(path)
    assert answer.status_code == 403
    assert answer.json()["error"] == "This page fetches nothing from other hosts."


@pytest.mark.parametrize("address", ["http://127.0.0.1/a.png", "https://x/a", "file:///etc/passwd"])
def test_an_address_is_no_upload(client, address):
    nested = {"data": [[{"deep": {"path": address, "meta": {"_type": "gradio.FileData"}}}]]}
    answer = client.post(CALL, json=nested)
    assert answer.status_code == 403
    assert "an address in its place is not fetched" in answer.json()["error"]


def test_another_site_may_not_post(client):
    own, foreign = {"origin": "http://testserver"}, {"origin": "http://evil.example"}
    assert client.post(CALL, json={"data": []}, headers=own).status_code == 200
    assert client.post(CALL, json={"data": []}, headers=foreign).status_code == 403
    assert client.post(CALL, json={"data": []}, headers={"origin": "null"}).status_code == 403
    assert client.get("/", headers=foreign).status_code == 200
    proxied = {"origin": "https://cats.example", "x-forwarded-host": "cats.example"}
    assert client.post(CALL, json={"data": []}, headers=proxied).status_code == 200


def test_a_call_that_is_too_large_or_too_deep_is_refused(client):
    assert client.post(CALL, json={"data": ["x" * MAX_CALL_BYTES]}).status_code == 403
    deep: dict = {}
    for _ in range(100):
        deep = {"a": deep}
    assert client.post(CALL, json=deep).status_code == 403


def test_a_body_without_a_content_type_is_looked_at_too(client):
    body = json.dumps({"path": "http://127.0.0.1/x"})
    assert client.post(CALL, content=body).status_code == 403
