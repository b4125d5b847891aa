"""The endpoints, as scripts meet them: through gradio_client and by raw HTTP."""

from __future__ import annotations

import json
import time

import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image
from studio_fixtures import crafted_png, pixels, recipe_png, wait_until

from studio.recipe import Recipe

CALL = "/gradio_api/call/"
NAMES = ["generate", "animate", "morph", "variations", "from_picture", "repaint", "restore"]


@pytest.fixture(scope="module")
def client(page, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("downloads"))
    return Client(page.url, verbose=False, download_files=folder)


@pytest.fixture
def ask(client):
    return lambda name, **values: client.predict(**values, api_name=f"/{name}")


def drawn(result, nth=0):
    return pixels(result["pictures"][nth])


def picture(tmp_path, size=16, name="picture.png"):
    path = tmp_path / name
    values = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return str(path)


def mask(tmp_path, size=16):
    path = tmp_path / "mask.png"
    image = Image.new("L", (size, size))
    image.paste(255, (0, 0, size // 2, size))
    image.save(path)
    return str(path)


# -- what they do -----------------------------------------------------------------------------


def test_every_action_is_an_endpoint_with_types(client):
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert set(described) == {f"/{name}" for name in NAMES}
    parameters = described["/generate"]["parameters"]
    assert [p["parameter_name"] for p in parameters] == [
        "seed", "count", "coat", "steps", "sampler", "guidance", "model",
    ]  # fmt: skip
    assert parameters[0]["python_type"]["type"] == "int"


def test_generate_gives_each_seed_its_picture(ask, studio):
    result = ask("generate", seed=5, count=3, coat="tabby")
    assert result["done"]
    for i, recipe in enumerate(result["recipes"]):
        assert (recipe["seed"], recipe["coat"]) == (5 + i, "tabby")
        alone = studio.draw([Recipe.from_dict(recipe)]).pictures[0]
        assert (drawn(result, i).int() - alone.int()).abs().max() <= 1  # see generation.py
    again = ask("generate", seed=5, count=3, coat="tabby")
    assert torch.equal(drawn(result, 2), drawn(again, 2))


def test_restore_brings_every_kind_of_picture_back(ask, tmp_path):
    upload = handle_file(picture(tmp_path))
    results = [
        ask("generate", seed=1, coat="black", steps=5, sampler="heun", guidance=2.0),
        ask("generate", seed=1, steps=20, sampler="ddpm"),
        ask("variations", seed=2, count=1, strength=0.4, first_seed=9),
        ask("from_picture", picture=upload, strength=0.5, seed=3),
        ask("repaint", picture=upload, mask=handle_file(mask(tmp_path)), seed=4),
    ]
    for result in results:
        back = ask("restore", picture=handle_file(result["pictures"][0]))
        assert back["recipes"] == result["recipes"][:1]
        assert torch.equal(drawn(back), drawn(result))


def test_repaint_keeps_what_is_not_masked(ask, tmp_path):
    path = picture(tmp_path)
    result = ask("repaint", picture=handle_file(path), mask=handle_file(mask(tmp_path)))
    new, old = drawn(result), pixels(path)
    assert torch.equal(new[:, :, 8:], old[:, :, 8:])
    assert not torch.equal(new[:, :, :8], old[:, :, :8])


def test_strength_decides_what_is_left_of_a_picture(ask, tmp_path):
    path = picture(tmp_path)
    distance = []
    for strength in (0.1, 1.0):
        result = ask("from_picture", picture=handle_file(path), strength=strength)
        distance.append((drawn(result).float() - pixels(path).float()).abs().mean())
    assert distance[0] < distance[1]


def test_variations_are_near_and_strength_zero_is_the_cat_itself(ask):
    cat = drawn(ask("generate", seed=6))
    same = drawn(ask("variations", seed=6, count=1, strength=0))
    assert torch.equal(cat, same)
    several = ask("variations", seed=6, count=4, strength=0.3)
    assert len(several["pictures"]) == 4
    assert not torch.equal(drawn(several, 0), drawn(several, 1))


def test_animate_and_morph_give_films(ask):
    for result in (ask("animate", seed=1, seconds=1), ask("morph", seeds=[1, 2], frames=3)):
        with Image.open(result["gif"]) as film:
            assert film.n_frames >= 3
        with open(result["mp4"], "rb") as file:
            assert file.read(8)[4:] == b"ftyp"


# -- bad input --------------------------------------------------------------------------------


def sentence(ask, name, **values) -> str:
    """The message of an endpoint that refuses."""
    with pytest.raises(Exception, match=r".") as caught:
        ask(name, **values)
    message = str(caught.value)
    assert "Traceback" not in message
    assert message.endswith(".")
    assert len(message) < 400
    return message


COMMON = [
    ({"seed": -1}, "whole number"), ({"seed": 2**64}, "whole number"),
    ({"seed": "abc"}, "whole number"), ({"seed": None}, "missing"),
    ({"seed": 1.5}, "whole number"), ({"seed": True}, "whole number"), ({"steps": 0}, "Steps"),
    ({"steps": 10**9}, "Steps"), ({"coat": "pink"}, "'pink'"), ({"sampler": "magic"}, "magic"),
    ({"guidance": 99}, "Guidance"), ({"guidance": "much"}, "Guidance"),
    ({"model": "../../etc/passwd"}, "no model"), ({"coat": ["tabby"]}, "coat"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "word"), COMMON, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("name", ["generate", "variations", "animate", "from_picture", "repaint"])
def test_settings_that_cannot_be(ask, tmp_path, name, wrong, word):
    values = {}
    if name in ("from_picture", "repaint"):
        values["picture"] = handle_file(picture(tmp_path))
    if name == "repaint":
        values["mask"] = handle_file(mask(tmp_path))
    assert word in sentence(ask, name, **values, **wrong)


@pytest.mark.parametrize(
    ("name", "wrong", "word"),
    [
        ("generate", {"count": 0}, "Between 1 and 16"),
        ("generate", {"count": 17}, "Between 1 and 16"),
        ("variations", {"count": "x"}, "whole number"),
        ("variations", {"strength": 2}, "between 0 and 1"),
        ("variations", {"first_seed": -3}, "whole number"),
        ("animate", {"seconds": 0}, "animation"),
        ("animate", {"speed": 1000}, "animation"),
        ("morph", {"seeds": []}, "2 to 8"),
        ("morph", {"seeds": [1]}, "2 to 8"),
        ("morph", {"seeds": list(range(9))}, "2 to 8"),
        ("morph", {"seeds": "a, b"}, "whole numbers"),
        ("morph", {"seeds": [1, None]}, "missing"),
        ("morph", {"seeds": [1, 2], "frames": 1000}, "frames"),
        ("morph", {"seeds": [1, 2], "coats": "tabby"}, "list"),
        ("morph", {"seeds": [1, 2], "coats": ["pink"]}, "'pink'"),
        ("morph", {"seeds": [1, 2], "steps": 0}, "Steps"),
    ],
)
def test_other_values_that_cannot_be(ask, name, wrong, word):
    assert word in sentence(ask, name, **wrong)


def test_pictures_that_cannot_be_used(ask, tmp_path):
    bad = tmp_path / "bad.png"
    for data, word in (
        (b"", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (crafted_png(20_000, 20_000, rows=10), "megapixels"),
        (crafted_png(64, 64)[:-40], "corrupt"),
    ):
        bad.write_bytes(data)
        started = time.monotonic()
        assert word in sentence(ask, "from_picture", picture=handle_file(str(bad)))
        assert "." in sentence(ask, "restore", picture=handle_file(str(bad)))
        assert time.monotonic() - started < 5
    larger = handle_file(mask(tmp_path, size=20))
    told = sentence(ask, "repaint", picture=handle_file(picture(tmp_path)), mask=larger)
    assert "The mask is 20x20, but the picture is 16x16" in told
    black = tmp_path / "black.png"
    Image.new("L", (16, 16)).save(black)
    upload = handle_file(picture(tmp_path))
    told = sentence(ask, "repaint", picture=upload, mask=handle_file(str(black)))
    assert "Nothing is marked" in told


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"seed": "x"}', '{"hack": 1}', "[" * 90_000, "x" * 10_000_000,
     '{"steps": 1000000000}', '{"model": "../x"}', '{"picture": "!", "mask": "!"}'],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_recipes_that_anybody_may_have_written(ask, tmp_path, text):
    path = tmp_path / "cat.png"
    path.write_bytes(recipe_png(text))
    sentence(ask, "restore", picture=handle_file(str(path)))


# -- raw HTTP ---------------------------------------------------------------------------------


def call(page, name, data, **options) -> tuple[int, str]:
    """Status and body of a call, followed to the end of its event stream."""
    url = page.url + CALL + name
    answer = httpx.post(url, json={"data": data}, timeout=30, **options)
    if answer.status_code != 200:
        return answer.status_code, answer.text
    event = answer.json()["event_id"]
    return 200, httpx.get(f"{url}/{event}", timeout=30).text


def test_a_call_by_hand(page):
    status, stream = call(page, "generate", [1, 1, "", 3, "dpmpp_2m", 1.0, ""])
    assert status == 200
    assert "event: complete" in stream
    assert ".png" in stream


@pytest.mark.parametrize(
    "data",
    [[], [{}], ["abc"], [-1], [None] * 7, [[]] * 7, [{"path": 1}] * 9, "text", {"a": 1}, [1] * 50],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_nonsense_by_hand_leaves_the_page_working(page, name, data):
    _, text = call(page, name, data)
    assert "Traceback" not in text
    assert "site-packages" not in text


def test_files_of_this_machine_and_of_others_are_not_to_be_had(page, tmp_path):
    private = tmp_path / "private.png"
    private.write_bytes(crafted_png(16, 16))
    meta = {"_type": "gradio.FileData"}
    for path in (str(private), "/etc/passwd", "http://127.0.0.1:1/x.png", "file:///etc/passwd"):
        for value in ({"path": path, "meta": meta}, {"path": path}):
            _, text = call(page, "from_picture", [value])
            assert ".png" not in text.replace("x.png", "")
            assert "event: complete" not in text
    for path in ("/etc/passwd", str(private), "http://127.0.0.1:1/x"):
        assert httpx.get(f"{page.url}/gradio_api/file={path}").status_code in (403, 404)


def test_another_site_cannot_call(page):
    status, text = call(page, "generate", [1], headers={"origin": "https://evil.example"})
    assert status == 403
    assert "another site" in text


def test_the_handlers_behind_the_buttons_refuse_nonsense_too(page):
    config = httpx.get(page.url + "/config").json()
    private = [d["id"] for d in config["dependencies"] if d["api_visibility"] == "private"]
    assert len(private) > 10
    for fn_index in private:
        for data in ([], ["abc"] * 12, [None] * 12):
            body = {"data": data, "fn_index": fn_index, "session_hash": f"s{fn_index}"}
            answer = httpx.post(page.url + "/gradio_api/queue/join", json=body, timeout=30)
            assert "Traceback" not in answer.text
    status, stream = call(page, "generate", [2, 1, "", 2, "euler", 1.0, ""])
    assert status == 200
    assert "event: complete" in stream


def test_who_leaves_frees_the_machine(page):
    url = page.url + CALL + "generate"
    body = {"data": [1, 16, "", 1000, "ddpm", 1.0, ""]}
    before = set(page.studio._jobs)
    seen = []
    submit = page.studio.submit
    page.studio.submit = lambda *a, **k: seen.append(submit(*a, **k)) or seen[-1]
    try:
        event = httpx.post(url, json=body).json()["event_id"]
        with httpx.stream("GET", f"{url}/{event}", timeout=30) as stream:
            next(line for line in stream.iter_lines() if "step" in line)
        wait_until(lambda: seen[0].done, 15)
    finally:
        page.studio.submit = submit
    assert seen[0].stopped
    assert max(seen[0].steps_taken) < 1000
    assert set(page.studio._jobs) == before
    assert json.loads(httpx.get(page.url + "/config").text)
