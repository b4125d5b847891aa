"""The guard around the app: what it refuses, by itself and in front of the real page."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import httpx
import pytest
from guarded import ask
from helpers import Clock

from studio.safety import log
from studio.safety.budget import CallBudget
from studio.safety.client import client_of
from studio.safety.guard import MAX_CALL_BYTES, NO_JSON, Guard
from studio.serve import MAX_VISITS


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file/http://example.org/x.png",
        "/gradio_api/file/http:/example.org/x.png",
        "/gradio_api/FILE/http%3A%2F%2Fexample.org/x",
        "/gradio_api/file=https://example.org/x",
        "/gradio_api/file=HTTP://example.org/x",
        "/gradio_api/file=ftp://example.org/x",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file=http:/example.org/x",
        "/gradio_api/file=http%3A%2F%2Fexample.org/x",
        "/file=http://example.org",
        "/gradio_api/proxy=https://x.hf.space/file",
        "/gradio_api/PROXY=https://x.hf.space/file",
        "/gradio_api/proxy%3Dhttps://x.hf.space/file",
    ],
)
def test_nothing_is_fetched_from_other_hosts(path):
    for method in ("GET", "HEAD", "POST"):
        assert ask(path, method=method)[:2] == (403, "This page fetches nothing from other hosts.")


@pytest.mark.parametrize(
    "path", ["deep_link", "deep_link/", "DEEP_LINK", "process_recording", "component_server",
             "vibe-code", "vibe-edit/", "undo-vibe-edit"],
)  # fmt: skip
def test_what_the_page_has_no_use_for_is_closed(path):
    for method in ("GET", "POST"):
        status, sentence, _ = ask(f"/gradio_api/{path}", method=method)
        assert (status, sentence) == (403, "This page has no such service.")
    assert ask("/gradio_api/info", method="GET")[0] == 200


def test_honest_files_pass():
    assert ask("/gradio_api/file=/tmp/gradio/abc/cat-1.png", method="GET")[0] == 200


ADDRESS = "Upload a file. A web address is not fetched."


@pytest.mark.parametrize(
    "path", ["http://x.org/a.png", "https://x.org", "ftp://x.org/a", "file:///etc/passwd"]
)
@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/JSON", "text/plain", "application/vnd.x+json", "", None],
)
def test_an_address_in_place_of_a_file(path, content_type):
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    headers = {} if content_type is None else {"content_type": content_type}
    for data in ([file], [[{"deep": [file]}]], [{"background": file, "layers": []}]):
        status, sentence, seen = ask(body=json.dumps({"data": data}).encode(), **headers)
        assert (status, sentence, seen) == (403, ADDRESS, None)


@pytest.mark.parametrize("path", ["/gradio_api/run/upload", "/gradio_api/call/upload"])
def test_a_call_that_is_named_like_an_upload_is_a_call(path):
    file = {"path": "http://x.org/a.png", "meta": {"_type": "gradio.FileData"}}
    assert ask(path, body=json.dumps({"data": [file], "fn_index": 3}).encode())[1] == ADDRESS
    assert ask(path, body=bytes(MAX_CALL_BYTES + 1))[0] == 403


def test_a_body_reaches_the_app_whole():
    body = json.dumps({"data": [1, "http://not a file", {"path": "/tmp/x.png"}]}).encode()
    parts = [body[:5], body[5:9], b"", body[9:]]
    assert ask(body=parts, content_type="application/json") == (200, "", body)
    assert ask(body=b"not json")[2] == b"not json"
    assert ask(body=b"")[2] == b""


def test_deep_nesting_is_refused():
    for depth, status in ((15, 200), (30, 403), (900, 403), (200_000, 200)):  # the last: no JSON
        body = b"[" * depth + b"]" * depth
        got, sentence, _ = ask(body=body)
        assert got == status, depth
        assert sentence == ("" if status == 200 else "This request is nested too deeply.")


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data"])
def test_a_large_body_is_not_read_to_its_end(content_type):
    def endless():
        while True:
            yield bytes(100_000)

    source = endless()
    messages = 0

    async def receive():
        nonlocal messages
        messages += 1
        return {"type": "http.request", "body": next(source), "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join",
             "headers": [(b"content-type", content_type.encode())]}  # fmt: skip
    asyncio.run(Guard(None)(scope, receive, send))
    assert json.loads(sent[1]["body"])["error"] == "This call is too large."
    assert messages == MAX_CALL_BYTES // 100_000 + 1


def test_uploads_have_a_limit_of_their_own():
    body = bytes(MAX_CALL_BYTES + 1)
    headers = {"content_type": "multipart/form-data", "content_length": str(len(body))}
    assert ask("/gradio_api/upload", body=body, **headers)[2] == body
    assert ask("/admin/upload", body=body, **headers)[2] == body


def upload(guard: Guard, size: str | None, client: str = "1.2.3.4", **headers: str) -> int:
    """The status that an upload of this size gets."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    values = {**({} if size is None else {"content-length": size}), **headers}
    scope = {
        "type": "http", "method": "POST", "path": "/gradio_api/upload", "client": (client, 1),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in values.items()],
    }  # fmt: skip
    guard.app = app
    asyncio.run(guard(scope, None, send))
    return sent[0]["status"]


def call(guard: Guard, client: str, body: dict, path: str) -> int:
    """The status that a call gets."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message):
        sent.append(message)

    guard.app = app
    scope = {"type": "http", "method": "POST", "path": path, "client": (client, 1), "headers": []}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"]


def test_each_client_has_a_budget_of_uploads():
    guard = Guard(None)
    assert [upload(guard, "90000000") for _ in range(3)] == [200, 200, 429]
    assert upload(guard, "90000000", "5.6.7.8") == 200
    forged = {"x_forwarded_for": "9.9.9.9"}
    assert upload(guard, "90000000", **forged) == 429
    for size in (None, "-1", "1e3", "", "ten"):
        assert upload(guard, size, "9.9.9.9") == 429
    assert upload(guard, "1", "9.9.9.9", transfer_encoding="chunked") == 429  # as large as it likes
    assert upload(guard, "1", "9.9.9.9") == 200


def test_behind_a_proxy_the_client_is_who_it_says():
    guard = Guard(None)
    near = "10.0.0.7"
    for client in ("9.9.9.9", "8.8.8.8, 7.7.7.7"):
        statuses = [upload(guard, "90000000", near, x_forwarded_for=client) for _ in range(3)]
        assert statuses == [200, 200, 429]
    # what stands before the proxy's own entry is the sender's word
    assert upload(guard, "90000000", near, x_forwarded_for="1.1.1.1, 7.7.7.7") == 429


def test_where_the_app_breaks_a_sentence_is_said(capsys):
    async def broken(scope, receive, send):
        raise KeyError("secret")

    status, sentence, _ = ask(app=broken)
    assert status == 400
    assert sentence == "Nothing here can answer this request."
    said = capsys.readouterr().err
    assert "secret" in said
    assert said.count("\n") == 1  # a line, no traceback


@pytest.mark.parametrize(("kind", "status"), [("text/plain", 400), ("application/json", 422)])
def test_of_a_call_that_fails_no_other_error_is_left(kind, status):
    """Starlette's own page, sent before it raises; and Gradio's answer to whatever went wrong."""

    async def fails(scope, receive, send):
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": "x"}'})
        raise KeyError("x")

    assert ask(app=fails)[0] == status


@pytest.mark.parametrize(("kind", "ends"), [("text/event-stream", True), ("image/png", False)])
def test_a_stream_that_breaks_is_ended_and_a_file_is_not(kind, ends):
    """Half a file that ends in order would pass for a whole one."""
    sent = []

    async def breaks(scope, receive, send):
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise KeyError("x")

    async def collect(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/gradio_api/queue/data", "headers": []}
    asyncio.run(Guard(breaks)({**scope, "client": None}, None, collect))
    assert [message.get("more_body") for message in sent] == [None, True, False][: 2 + ends]


@pytest.mark.parametrize(
    "value", [b"NaN", b"-Infinity", b"1e999", b'"\\ud800"', b'{"\\udfff": 1}', b'[["a\\udc00"]]']
)
def test_what_no_answer_could_repeat_is_refused(value):
    assert ask(body=b'{"data": [' + value + b"]}") == (400, NO_JSON, None)
    assert ask(body=b'{"data": ["\\ud83d\\ude3a", 1e9]}')[0] == 200  # a whole cat


def test_a_visit_without_a_name_is_refused():
    """Gradio would keep its messages under one name, and look for them under another."""
    assert ask(body=b'{"data": [], "session_hash": ""}') == (400, NO_JSON, None)
    assert ask(body=b'{"data": [], "session_hash": null}')[0] == 200


def test_a_flood_of_bad_requests_is_a_few_lines(capsys, monkeypatch):
    monkeypatch.setattr(log, "_began", 0.0)

    async def broken(scope, receive, send):
        raise KeyError("x" * 1000)

    for _ in range(100):
        assert ask(app=broken)[0] == 400
    said = capsys.readouterr().err
    assert said.count("\n") == log.LINES
    assert len(said) < log.LINES * 301
    monkeypatch.setattr(log, "SECONDS", 0.0)
    ask(app=broken)
    assert "and 70 more lines" in capsys.readouterr().err


def test_a_flood_of_our_own_errors_is_bounded_too(capsys, monkeypatch):
    monkeypatch.setattr(log, "_began", 0.0)
    for _ in range(100):
        try:
            raise KeyError("\x9b" * 20_000)
        except KeyError as error:
            log.note_error(error)
    said = capsys.readouterr().err
    assert said.isascii()
    assert len(said) == log.LINES * (log.LONGEST_ERROR + 1)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/dev/reload", "/gradio_api/dev/reload/", "/monitoring", "/monitoring/summary",
        "/gradio_api/runs", "/login", "/docs", "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/gradio_api/custom_component/a/b/c/d.js", "/gradio_api/profiling/clear", "/nothing",
        "/gradio_api/api/generate", "//", "/gradio_api", "/gradio_api/file", "/adminx",
    ],
)  # fmt: skip
def test_what_no_one_needs_is_closed_by_not_being_listed(path):
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        assert ask(path, method=method)[:2] == (403, "This page has no such service.")


def test_a_client_may_make_so_many_calls_and_begin_so_many_visits():
    guard = Guard(None)
    guard._calls = CallBudget(Clock())  # which stands: a slow machine fills no bucket

    def join(client: str, session: str | None, path: str = "/gradio_api/queue/join") -> int:
        return call(guard, client, {"data": [], "session_hash": session}, path)

    one = [join("1.2.3.4", "mine") for _ in range(480)]
    assert one[:400] == [200] * 400
    assert one.count(429) >= 60
    fresh = [join("5.6.7.8", f"s{i}") for i in range(340)]
    assert fresh == [200] * 150 + [429] * 190
    assert join("5.6.7.8", "s0") == 200  # a visit that began goes on
    assert join("5.6.7.8", None, "/gradio_api/call/generate") == 429  # each call is a visit
    assert join("9.9.9.9", "other") == 200
    network = [join(f"2001:db8::{i:x}", f"v6 {i}") for i in range(80)]
    assert network == [200] * 80
    many = [join(f"10.0.{i}.1", f"v4 {i}") for i in range(100)]
    assert many.count(429) > 80  # all together have begun too many


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),  # of a proxy that listens on IPv6 for both
        ("2001:db8::1", "2001:db8::/64"),
    ],
)
def test_a_client_is_its_address_or_its_network(said, client):
    headers = {"x-forwarded-for": f"198.51.100.9, {said}".encode()}
    assert client_of({"client": ("127.0.0.1", 5)}, headers) == client


def test_all_that_begins_at_once_is_fewer_than_those_whose_pages_gradio_keeps():
    calls = CallBudget(Clock())
    begun = sum(calls.charge(f"10.0.{n % 200}.1", f"s{n}") is None for n in range(6000))
    assert 200 < begun < MAX_VISITS


def test_other_protocols_pass():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(Guard(app)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


# -- in front of the real page -----------------------------------------------------------------


def test_the_real_page_is_guarded(page):
    with httpx.Client(base_url=page.url, timeout=60) as client:
        for path in (
            "/gradio_api/file=http://127.0.0.1:1/x", "/gradio_api/file/http://127.0.0.1:1/x",
            "/gradio_api/proxy=https://x.hf.space/x",
        ):  # fmt: skip
            answer = client.get(path)
            assert answer.status_code == 403
            assert "fetches nothing" in answer.json()["error"]
        join = {"data": [], "fn_index": 0, "session_hash": "x"}
        for headers in ({"origin": "https://evil.example"}, {"origin": "null"}):
            answer = client.post("/gradio_api/queue/join", json=join, headers=headers)
            assert answer.status_code == 403
        large = client.post("/gradio_api/call/generate", content=bytes(MAX_CALL_BYTES + 1))
        assert large.status_code == 403
        assert "too large" in large.json()["error"]
        for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/file=../../etc/passwd"):
            assert client.get(path).status_code in (403, 404)
        for unknown in ("/gradio_api/call/nothing", "/gradio_api/run/predict"):
            answer = client.post(unknown, json={"data": []})
            assert answer.json()["error"].endswith("request.")
        answer = client.post("/gradio_api/run/generate", json={"data": []})
        assert answer.status_code == 404  # nothing goes round the queue
        ours = f"http://{urlsplit(page.url).netloc}"
        assert client.post(
            "/gradio_api/queue/join", json={**join, "data": [1, 1, "", 1]}, headers={"origin": ours}
        ).is_success
        assert client.get("/").is_success


def test_the_stream_of_an_unknown_event_or_visit_is_told_and_ends(page, capfd):
    """And not broken off, at a line of the server's log for each, of which there is no end."""
    with httpx.Client(base_url=f"{page.url}/gradio_api", timeout=30) as client:
        for path in ("call/generate/none", "call/nothing/none", "queue/data?session_hash=none"):
            answer = client.get(path)  # raises where it is broken off
            assert answer.is_success
            assert "404" in answer.text
        for strange in ({"fn_index": 9999}, {"fn_index": "x"}, {"fn_index": None}, {"data": 5}):
            body = {"data": [], "fn_index": 0, "session_hash": "none", **strange}
            assert 400 <= client.post("queue/join", json=body).status_code < 500
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "ASGI" not in said


def test_a_file_larger_than_the_limit_is_not_kept(page, upload_folder):
    before = set(upload_folder.rglob("*"))
    with httpx.Client(base_url=page.url) as client:
        answer = client.post("/gradio_api/upload", files={"files": ("a.png", bytes(21_000_000))})
        assert answer.status_code == 413
        assert "size" in answer.text
    new = set(upload_folder.rglob("*")) - before
    assert not [p for p in new if p.is_file() and p.stat().st_size > 20e6]


def test_the_real_page_answers_no_preflight_of_another_site(page):
    """Gradio's own middleware would say yes, with credentials, before any that is given to it."""
    asks = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    with httpx.Client(base_url=page.url, timeout=30) as client:
        for path in ("/gradio_api/queue/join", "/gradio_api/upload", "/admin/sign-in"):
            answer = client.options(path, headers=asks)
            assert answer.status_code == 403
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert client.get("/gradio_api/dev/reload").status_code == 403
