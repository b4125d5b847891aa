"""The owner's routes, behind the guard as they are served: who may what, and what strangers get."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import time
from types import SimpleNamespace

import pytest
from admin_fixtures import PASSWORD, fake_admin
from drawing import cat, cats, encode
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from studio_fixtures import wait_until

from studio.admin.routes import AdminRoutes
from studio.safety.guard import Guard
from studio.safety.owner import COOKIE, OFF, SESSION_SECONDS
from studio.training import arrivals
from studio.training import photos as uploads

SPEC = SimpleNamespace(name="Mia", label="mia", base="tiny", length="quick")


@pytest.fixture
def admin(studio, tmp_path):
    return fake_admin(studio, tmp_path)


def app_of(admin):
    """The routes in front of an app that answers everything with its own name."""

    async def page(request):
        return PlainTextResponse("the page")

    routes = [Route("/{path:path}", page, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=[Middleware(Guard), Middleware(AdminRoutes, admin)])


@pytest.fixture
def stranger(admin) -> TestClient:
    return TestClient(app_of(admin))


@pytest.fixture
def owner(admin) -> TestClient:
    client = TestClient(app_of(admin))
    assert client.post("/admin/sign-in", json={"password": PASSWORD}).status_code == 200
    return client


def new_set(owner) -> str:
    return owner.post("/admin/sets").json()["set"]


def upload(owner, identity: str, name: str, data: bytes):
    return owner.post("/admin/upload", params={"set": identity, "name": name}, content=data)


def looked_at(admin, identity: str):
    """The set, once all that arrived was looked at."""
    pictures = admin.sets.get(identity)
    wait_until(lambda: pictures.scan().waiting == 0)
    return pictures.scan()


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


def test_both_of_two_alike_are_kept_at_the_owners_word(owner, admin):
    identity = new_set(owner)
    upload(owner, identity, "one.png", encode(cat(1, 64)))
    looked_at(admin, identity)
    upload(owner, identity, "two.jpg", encode(cat(1, 64), "JPEG"))
    ((copy, _),) = looked_at(admin, identity).copies
    html = owner.get("/admin/sets/current").text
    assert f'data-admin="keep-both" data-number="{copy.number}"' in html
    assert "Left out: 1<" in html
    answer = owner.post(f"/admin/sets/{identity}/keep-both", json={"picture": copy.number})
    assert answer.json() == {"kept": True}
    assert len(looked_at(admin, identity).chosen) == 2
    assert "keep-both" not in owner.get("/admin/sets/current").text


# -- strangers --------------------------------------------------------------------------------


def paths(admin) -> list[tuple[str, str]]:
    """Every route of the owner's, taken from the app itself, filled with what is really there."""
    middleware = AdminRoutes(None, admin)
    pictures = admin.sets.create()
    pictures.add("cat.png", [encode(cat(1, 64))])
    training = admin.trainings.create(SPEC, [])
    here = {
        "/admin/sets/{id}": f"/admin/sets/{pictures.id}",
        "/admin/trainings/{id}": f"/admin/trainings/{training}",
        "{number:int}": "1",
        "{name}.safe": "mia.safe",
        "samples/{name}": "samples/base.png",
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
    assert len(routes) == 12
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


# -- photos -----------------------------------------------------------------------------------


def test_photos_arrive_are_shown_cropped_and_removed(admin, owner):
    identity = new_set(owner)
    for name, data in cats(9, 96).items():
        answer = upload(owner, identity, f"Mia/summer/{name}", data)
        assert answer.json() == {"set": identity}
    upload(owner, identity, "notes.txt", b"not a picture")
    looked_at(admin, identity)
    html = owner.get("/admin/sets/current").text
    assert f'data-set="{identity}"' in html
    assert "9 photos to learn from · 1 left out" in html
    assert "Mia/summer/cat-003.png" in html
    assert "<b>notes.txt</b>: not an image" in html
    thumb = owner.get(f"/admin/sets/{identity}/thumb/1.jpg")
    assert thumb.headers["content-type"] == "image/jpeg"
    assert "private" in thumb.headers["cache-control"]
    assert thumb.headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(thumb.content)).size == (128, 128)
    whole = owner.get(f"/admin/sets/{identity}/picture/1.jpg")
    assert Image.open(io.BytesIO(whole.content)).size == (96, 96)
    crop = {"picture": 1, "square": [0, 8, 80]}
    answer = owner.post(f"/admin/sets/{identity}/crop", json=crop)
    assert answer.json() == {"box": [0, 8, 80, 88]}
    assert owner.get(f"/admin/sets/{identity}/thumb/1.jpg").content != thumb.content
    owner.post(f"/admin/sets/{identity}/remove", json={"picture": 2})
    assert "8 photos to learn from · 1 removed" in owner.get("/admin/sets/current").text
    owner.post(f"/admin/sets/{identity}/remove", json={"picture": 2, "removed": False})
    assert "9 photos to learn from · 1 left out" in owner.get("/admin/sets/current").text


def test_names_are_shown_as_text(admin, owner):
    identity = new_set(owner)
    name = "../<img src=x onerror=alert(1)>\"'&猫\u202e.png"
    upload(owner, identity, name, encode(cat(1, 64)))
    upload(owner, identity, name, b"")
    looked_at(admin, identity)
    html = owner.get("/admin/sets/current").text
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;猫" in html
    assert "\u202e" not in html


@pytest.mark.parametrize(
    "identity", ["", "..", "../..", "nothing", "%2e%2e", "x/../..", "x" * 5000, "\0"]
)
def test_a_set_that_is_not_there(owner, identity):
    new_set(owner)
    answer = upload(owner, identity, "cat.png", encode(cat(1, 64)))
    assert (answer.status_code, answer.json()["error"][-1]) == (404, ".")


@pytest.mark.parametrize("number", [0, 99, 10**30])
def test_a_picture_that_is_not_there(owner, number):
    identity = new_set(owner)
    for kind in ("thumb", "picture"):
        assert owner.get(f"/admin/sets/{identity}/{kind}/{number}.jpg").status_code == 404
    for change in ("crop", "remove"):
        answer = owner.post(f"/admin/sets/{identity}/{change}", json={"picture": number})
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "body", [{}, [], None, {"picture": "1"}, {"picture": 1.5}, {"picture": True}, {"picture": None}]
)
def test_a_strange_change_is_a_sentence(owner, body):
    identity = new_set(owner)
    for change in ("crop", "remove"):
        answer = owner.post(f"/admin/sets/{identity}/{change}", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"].endswith(".")


def test_a_file_that_is_too_large_leaves_nothing(admin, owner, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_FILE_BYTES", 200_000)
    identity = new_set(owner)
    answer = upload(owner, identity, "huge.png", bytes(300_000))
    assert answer.status_code == 400
    assert "huge.png is larger than 0 MB" in answer.json()["error"]
    assert not list(admin.sets.get(identity).folder.rglob("*.*"))
    claimed = {"content-length": str(10**15)}
    assert owner.post(f"/admin/upload?set={identity}", headers=claimed).status_code == 400


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "The data folder cannot be written to")],
)
def test_a_full_or_read_only_disk_is_a_sentence(admin, owner, monkeypatch, number, sentence):
    identity = new_set(owner)

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(uploads.Incoming, "write", refuse)
    monkeypatch.setattr(uploads, "atomic_path", refuse)
    monkeypatch.setattr(uploads.Path, "mkdir", refuse)
    admin.sets.get(identity)._contents.pictures[1] = uploads.Picture(1, "a", 64, 64, "", "", "")
    for answer in (
        upload(owner, identity, "cat.png", encode(cat(1, 64))),
        owner.post(f"/admin/sets/{identity}/remove", json={"picture": 1}),
        owner.post("/admin/sets"),
    ):
        assert answer.status_code == 400
        assert sentence in answer.json()["error"]


# -- trainings and models ---------------------------------------------------------------------


def test_samples_and_models_are_those_that_are_listed(admin, owner):
    training = admin.trainings.create(SPEC, [])
    (admin.trainings.folder / training / "secret.png").write_bytes(b"secret")
    answer = owner.get(f"/admin/trainings/{training}/samples/base.png")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    for path in (
        f"trainings/{training}/samples/secret.png", f"trainings/{training}/samples/..%2fsecret.png",
        f"trainings/{training}/samples/%2e%2e%2fsecret.png",
        f"trainings/{training}/samples/nothing.png",
        "trainings/nothing/samples/base.png", "models/nothing.safetensors",
        "models/..%2fmodels%2fmia.safetensors", "models/%2e%2e.safetensors",
    ):  # fmt: skip
        answer = owner.get(f"/admin/{path}")
        assert answer.status_code in (400, 404), path
        assert b"secret" not in answer.content
    model = owner.get("/admin/models/mia.safetensors")
    assert model.content == b"weights"
    assert 'filename="mia.safetensors"' in model.headers["content-disposition"]
    assert model.headers["cache-control"] == "no-store"
