"""What other programs show of a link: our words, and the very cat of the link."""

from __future__ import annotations

import io
import re

import anyio
import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.drawing.recipe import Recipe, to_query
from studio.page import previews
from studio.page.previews import MAX_OF_ONE, SIDE, Previews
from studio.safety.budget import Bucket
from studio.safety.guard import Guard

PAGE = """<!doctype html><html><head><meta charset="utf-8" />
<meta property="og:title" content="Gradio" />
<meta
  property="og:url" content="{url}" />
<meta name="twitter:creator" content="@Gradio" />
<meta name="description" content="an app" /><title>Cat Diffusion</title></head>
<body>&lt;meta property="og:title"&gt; a body é</body></html>"""


def client_of(studio, root_path: str = "", **options) -> TestClient:
    async def page(request):
        return HTMLResponse(PAGE)

    routes = [Route("/", page, methods=["GET"]), Route("/config", page)]
    inner = [Middleware(Guard), Middleware(Previews, studio, root_path)]
    return TestClient(Starlette(routes=routes, middleware=inner), **options)


def tags(html: str) -> dict[str, str]:
    return dict(re.findall(r'<meta (?:property|name)="([\w:]+)" content="([^"]*)">', html))


def test_the_page_tells_of_itself_and_not_of_gradio(studio):
    answer = client_of(studio).get("/")
    found = tags(answer.text)
    assert found["og:title"] == "Cat Diffusion"
    assert found["og:url"] == "http://testserver/"
    assert found["og:image"] == "http://testserver/cat.jpg"
    assert "Gradio" not in answer.text
    assert "{url}" not in answer.text
    assert "an app" not in answer.text
    assert answer.text.endswith("a body é</body></html>")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert client_of(studio).get("/config").text == PAGE


def test_a_link_previews_its_very_cat_drawn_once(studio, gate):
    recipe = Recipe(seed=7, steps=2, coat="tabby", model="tiny")
    client = client_of(studio)
    found = tags(client.get(f"/?{to_query([recipe])}").text)
    assert found["og:title"] == "Tabby cat, seed 7 · Cat Diffusion"
    image = found["og:image"].replace("&amp;", "&")
    first = client.get(image)
    assert first.headers["content-type"] == "image/jpeg"
    assert "max-age" in first.headers["cache-control"]
    shown = Image.open(io.BytesIO(first.content))
    assert shown.size == (SIDE, SIDE)
    drawn = studio.draw([recipe]).pictures[0].float().mean(dim=(1, 2)).tolist()
    assert [sum(b.getdata()) / SIDE**2 for b in shown.split()] == pytest.approx(drawn, abs=6)
    before = len(gate.batches)
    assert client.get(image).content == first.content
    assert len(gate.batches) == before


@pytest.mark.parametrize(
    "query",
    ["seed=x", "seed=-1", "seed=1&steps=0", "seed=1&sampler=magic", "seed=1&coat=lion",
     "seed=1&steps=1000&sampler=ddpm", "seed=1&guidance=nan", "seed=1&count=99",
     f"seed=1&coat={'x' * 5000}", f"seed={'9' * 3000}"],
)  # fmt: skip
def test_what_no_visitor_could_draw_is_a_sentence_and_the_page_still_opens(studio, gate, query):
    client = client_of(studio)
    answer = client.get(f"/cat.jpg?{query}")
    assert answer.status_code == 404
    assert answer.json()["error"].endswith(".")
    assert not gate.batches
    assert client.get(f"/?{query}").status_code == 200


def test_the_address_is_the_one_that_the_visitor_sees(studio):
    proxied = {"x-forwarded-proto": "https", "x-forwarded-host": "cats.example"}
    near = client_of(studio, "/cats", client=("127.0.0.1", 5))
    assert tags(near.get("/", headers=proxied).text)["og:image"] == (
        "https://cats.example/cats/cat.jpg"
    )
    far = client_of(studio, client=("8.8.8.8", 5))
    assert tags(far.get("/", headers=proxied).text)["og:image"] == "http://testserver/cat.jpg"
    evil = far.get("/", headers={"host": '"><script>alert(1)</script>'})
    assert "<script>" not in evil.text


def test_previews_are_counted_as_visits_and_few_wait(studio, monkeypatch):
    client = client_of(studio)
    monkeypatch.setattr(previews, "MAX_WAITING", 0)
    monkeypatch.setattr(Bucket, "fill", lambda *_: None)  # no time passes
    assert client.get("/cat.jpg?seed=1&steps=2").status_code == 503
    statuses = {client.get(f"/cat.jpg?seed=x{i}").status_code for i in range(310)}
    assert statuses == {404, 429}
    assert client.post("/cat.jpg").status_code == 403


def test_one_client_leaves_room_for_the_previews_of_others(studio, gate):
    app = client_of(studio).app
    codes: dict[str, list[int]] = {"198.51.100.7": [], "203.0.113.5": []}

    async def ask(host, seed):
        transport = httpx.ASGITransport(app, client=(host, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://cats") as client:
            answer = await client.get(f"/cat.jpg?seed={seed}&steps=2", timeout=30)
            codes[host].append(answer.status_code)

    async def all_at_once():
        mine, other = codes
        async with anyio.create_task_group() as group:
            for seed in range(MAX_OF_ONE + 2):
                group.start_soon(ask, mine, seed)
            with anyio.move_on_after(5):
                while len(codes[mine]) < 2:  # these are refused while the gate is closed
                    await anyio.sleep(0.01)
            group.start_soon(ask, other, 99)
            await anyio.sleep(0.1)
            refused = {host: list(some) for host, some in codes.items()}
            gate.event.set()
        assert refused == {mine: [503, 503], other: []}  # the other waits for its turn
        await ask(mine, 100)  # its share is free again

    gate.close()
    anyio.run(all_at_once)
    assert codes == {"198.51.100.7": [503, 503] + [200] * (MAX_OF_ONE + 1), "203.0.113.5": [200]}
