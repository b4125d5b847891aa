"""Who may what: signing in, and what strangers get of the owner's routes, behind the guard."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from admin_fixtures import PASSWORD, app_of, fake_admin
from drawing import cat, encode
from starlette.testclient import TestClient
from studio_fixtures import save_tiny

from studio.admin.routes import AdminRoutes
from studio.safety.guard import Guard
from studio.safety.owner import COOKIE, OFF, SESSION_SECONDS

SPEC = SimpleNamespace(name="Mia", label="mia", base="tiny", length="quick")


# -- signing in -------------------------------------------------------------------------------


def test_the_cookie_is_for_this_site_and_no_script(stranger):
    answer = stranger.post("/admin/sign-in", json={"password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    for flag in ("httponly", "samesite=strict", "path=/", f"max-age={SESSION_SECONDS}"):
        assert flag in cookie
    assert "secure" not in cookie
    assert "domain" not in cookie
    assert PASSWORD not in answer.text


@pytest.mark.parametrize("proto", ["https", "https, http"])
def test_over_https_the_cookie_is_secure(stranger, proto):
    answer = stranger.post(
        "/admin/sign-in", json={"password": PASSWORD}, headers={"x-forwarded-proto": proto}
    )
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_a_wrong_password_opens_nothing_and_costs_time(stranger):
    first = stranger.post("/admin/sign-in", json={"password": "wrong"})
    assert (first.status_code, first.json()) == (401, {"error": "The password is wrong."})
    assert "set-cookie" not in first.headers
    second = stranger.post("/admin/sign-in", json={"password": PASSWORD})
    assert second.status_code == 429
    assert "Try again in 1 s" in second.json()["error"]
    time.sleep(0.55)
    assert stranger.post("/admin/sign-in", json={"password": PASSWORD}).status_code == 200


def test_a_hundred_wrong_passwords_are_mostly_unread(stranger):
    statuses = [
        stranger.post("/admin/sign-in", json={"password": f"wrong {i}"}).status_code
        for i in range(100)
    ]
    assert statuses.count(401) <= 4
    assert statuses.count(401) + statuses.count(429) == 100


def test_a_guesser_delays_nobody_else(admin):
    def try_from(address: str, password: str) -> int:
        client = TestClient(app_of(admin), client=(address, 1))
        return client.post("/admin/sign-in", json={"password": password}).status_code

    assert try_from("1.2.3.4", "wrong") == 401
    assert try_from("1.2.3.4", PASSWORD) == 429
    assert try_from("5.6.7.8", PASSWORD) == 200


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b'"x"', b"[" * 100_000, b'{"password": [1]}'])
def test_a_strange_sign_in_is_a_sentence(stranger, body):
    answer = stranger.post("/admin/sign-in", content=body)
    assert answer.status_code in (400, 401)
    assert answer.json()["error"].endswith(".")


def test_signing_out_ends_the_session(owner):
    token = owner.cookies[COOKIE]
    answer = owner.post("/admin/sign-out")
    assert answer.headers["clear-site-data"] == '"cache"'
    assert COOKIE not in owner.cookies
    answer = owner.get("/admin/sets/current", headers={"cookie": f"{COOKIE}={token}"})
    assert answer.status_code == 401


# -- strangers --------------------------------------------------------------------------------


def paths(admin) -> list[tuple[str, str]]:
    """Every route of the owner's, taken from the app itself, filled with what is really there."""
    middleware = AdminRoutes(None, admin)
    pictures = admin.sets.create()
    pictures.add("cat.png", [encode(cat(1, 64))])
    training = admin.trainings.create(SPEC, [])
    library = admin.studio.library
    library.places = (*library.places, save_tiny(admin.models.path("mia")))
    here = {
        "/admin/sets/{id}": f"/admin/sets/{pictures.id}",
        "/admin/trainings/{id}": f"/admin/trainings/{training}",
        "{number:int}": "1",
        "{name}.safe": "mia.safe",
        "samples/{name}": "samples/base.png",
        "models/{name}": "models/mia",
    }
    found = []
    for route in middleware.routes.routes:
        path = route.path
        for name, value in here.items():
            path = path.replace(name, value)
        found += [(method, path) for method in route.methods if method != "HEAD"]
    return found


def test_every_route_but_sign_in_demands_a_session(admin, stranger, owner):
    routes = paths(admin)
    assert len(routes) == 14
    assert not [path for _, path in routes if "{" in path]
    for method, path in [
        *routes,
        ("GET", "/admin/nothing"),
        ("GET", "/admin"),
        ("PUT", "/admin/x"),
    ]:
        if path == "/admin/sign-in":
            continue
        answer = stranger.request(method, path)
        assert answer.status_code == 401, path
        assert answer.json() == {"error": "Sign in first. This part is for the owner of the page."}
    for method, path in routes:
        if method == "GET":
            assert owner.get(path).status_code == 200, path
    assert owner.get("/admin/nothing").status_code == 404


@pytest.mark.parametrize("token", ["x", "x" * 43, "", "é", '"quoted"', "a; b"])
def test_forged_cookies_are_refused(stranger, token):
    cookie = f"{COOKIE}={token}".encode()
    assert stranger.get("/admin/sets/current", headers={"cookie": cookie}).status_code == 401


def test_an_expired_session_is_refused(admin, owner, monkeypatch):
    assert owner.get("/admin/sets/current").status_code == 200
    now = time.monotonic()
    monkeypatch.setattr(admin.owner, "_clock", lambda: now + SESSION_SECONDS + 1)
    assert owner.get("/admin/sets/current").status_code == 401


def test_where_there_is_no_password_everything_refuses(studio, tmp_path):
    admin = fake_admin(studio, tmp_path, password="short")
    client = TestClient(app_of(admin))
    for method, path in paths(admin):
        json = {"password": "short"} if path.endswith("sign-in") else None
        answer = client.request(method, path, json=json)
        assert (answer.status_code, answer.json()) == (401, {"error": OFF})


def test_of_a_strangers_upload_nothing_is_read(admin):
    """Straight to the middleware: the body would raise if anybody asked for it."""

    async def receive():
        raise AssertionError("read")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/admin/upload", "query_string": b"",
        "headers": [(b"host", b"cats.example")], "server": ("cats.example", 80), "scheme": "http",
        "http_version": "1.1",
    }  # fmt: skip
    asyncio.run(Guard(AdminRoutes(None, admin))(scope, receive, send))
    assert sent[0]["status"] == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"}, {"origin": "null"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
        {"origin": "http://testserver.evil.example"},
    ],
)  # fmt: skip
def test_pages_of_other_sites_get_nothing_even_with_the_cookie(owner, headers):
    for method, path in (
        ("GET", "/admin/sets/current"), ("POST", "/admin/sets"), ("POST", "/admin/upload"),
        ("POST", "/admin/sign-in"), ("GET", "/admin/models/mia.safetensors"),
    ):  # fmt: skip
        answer = owner.request(method, path, headers=headers)
        assert answer.status_code == 403, path
        assert "another site" in answer.json()["error"]
    ours = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
    assert owner.post("/admin/sets", headers=ours).status_code == 200


def test_behind_a_proxy_the_owner_is_known_as_the_page_is(admin, owner):
    """The proxy's own name stands in Host; a current browser says where its page is from."""
    public = {"origin": "https://cats.example"}
    assert owner.post("/admin/sets", headers=public).status_code == 403
    for more in ({"sec-fetch-site": "same-origin"},):
        assert owner.post("/admin/sets", headers={**public, **more}).status_code == 200
    named = {**public, "x-forwarded-host": "cats.example"}
    assert owner.post("/admin/sets", headers=named).status_code == 403  # anybody's own words
    near = TestClient(app_of(admin), client=("127.0.0.1", 5), cookies=owner.cookies)
    assert near.post("/admin/sets", headers=named).status_code == 200


def test_everything_else_is_passed_on(admin):
    app = app_of(admin)
    app.user_middleware = [each for each in app.user_middleware if each.cls is not Guard]
    stranger = TestClient(app)
    for path in ("/", "/administer", "/gradio_api/info", "/Admin/sets", "/x/admin/upload"):
        assert stranger.get(path).text == "the page"
