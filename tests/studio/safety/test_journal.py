"""The log on request: a line for each request and job, and nothing personal in it."""

from __future__ import annotations

import json

import pytest
from guarded import ask

from studio.safety import journal
from studio.safety.journal import open_journal, service_of


@pytest.fixture
def lines(tmp_path):
    """Opens a journal; gives what it holds so far."""
    path = tmp_path / "logs" / "cats.jsonl"
    open_journal(str(path))
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    open_journal("")


PRIVATE = "Mia-and-Tom"


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/", "/"), ("/healthz", "/healthz"), ("/readyz", "/readyz"), ("/config", "/config"),
        (f"/gradio_api/file=/tmp/{PRIVATE}.png", "/gradio_api/file"),
        (f"/gradio_api/call/{PRIVATE}/0123", "/gradio_api/call"),
        (f"/gradio_api/heartbeat/{PRIVATE}", "/gradio_api/heartbeat"),
        ("/gradio_api/queue/join", "/gradio_api/queue/join"),
        (f"/admin/models/{PRIVATE}.safetensors", "/admin"),
        (f"/gradio_api/{PRIVATE}", "other"), (f"/{PRIVATE}", "other"), ("/administrator", "other"),
        (f"/healthz{PRIVATE}", "other"),
    ],
)  # fmt: skip
def test_of_a_path_only_the_service_is_kept(path, service):
    assert service_of(path) == service


def test_a_request_is_a_line_without_anything_personal(lines):
    headers = {"user_agent": PRIVATE, "cookie": PRIVATE, "x_forwarded_for": "203.0.113.9"}
    body = json.dumps({"data": [PRIVATE], "session_hash": PRIVATE}).encode()
    ask(f"/gradio_api/call/{PRIVATE}", body=body, peer="10.1.2.3", **headers)
    ask(f"/gradio_api/secret/{PRIVATE}", method="GET", **headers)
    first, second = lines()
    assert {**first, "time": 0, "seconds": 0} == {
        "time": 0, "kind": "request", "method": "POST", "service": "/gradio_api/call",
        "status": 200, "bytes": 2, "seconds": 0,
    }  # fmt: skip
    assert (second["service"], second["status"]) == ("other", 403)  # what is refused, too
    assert first["time"].endswith("+00:00")
    for private in (PRIVATE, "203.0.113.9", "10.1.2.3"):
        assert private not in json.dumps([first, second])


def test_what_breaks_off_is_a_line_too(lines):
    async def broken(scope, receive, send):
        raise RuntimeError

    ask(app=broken)
    assert [line["status"] for line in lines()] == [400]


def test_a_log_of_requests_that_nobody_asked_for_is_not_kept(tmp_path, capfd):
    ask()
    assert capfd.readouterr() == ("", "")


def test_a_journal_is_bounded(lines, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MAX_BYTES", 1000)
    open_journal(str(tmp_path / "logs" / "cats.jsonl"))
    for _ in range(100):
        ask()
    files = sorted((tmp_path / "logs").iterdir())
    assert len(files) == 1 + journal.OLD_FILES
    assert max(file.stat().st_size for file in files) <= 1000


def test_stdout_is_for_those_who_collect_it(capsys):
    open_journal("-")
    try:
        ask(method="GET", path="/")
    finally:
        open_journal("")
    assert json.loads(capsys.readouterr().out)["service"] == "/"


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"^The log .* cannot be written: "):
        open_journal(str(tmp_path))
