"""Bad values and files, sent to the endpoints and to the page's private handlers."""

from __future__ import annotations

import io
import json
import resource
import time
from typing import Any

import httpx
import pytest
from calling import ENDPOINTS, HONEST, META, assert_sentence, call, handle, handlers, post, upload
from gradio_client.exceptions import AppError
from PIL import Image
from studio_fixtures import crafted_png, png_chunk, recipe_png

from diffusion.sampling import MAX_SEED
from studio.page.answers import BROKEN
from studio.safety.budget import CallBudget

pytestmark = pytest.mark.usefixtures("goes_on", "unlimited")

NAN = float("nan")


@pytest.fixture
def unlimited(monkeypatch):
    """Calls are not counted: a sentence about their number would hide the one looked for."""
    monkeypatch.setattr(CallBudget, "charge", lambda *_: None)


# -- bad values --------------------------------------------------------------------------------

SEEDS = [-1, 2**64, "abc", NAN, None, 1.5, [], {}, True, float("inf"), 10**400]
SETTINGS = [
    *(("seed", value) for value in SEEDS),
    *(("steps", value) for value in (0, -1, 10**9, 101, NAN, "many", 2.5)),
    *(("coat", value) for value in ("pink", 7, ["tabby"], "x" * 1000, "<script>")),
    *(("sampler", value) for value in ("magic", "", 5, "__class__", "x" * 1000)),
    *(("guidance", value) for value in (-1, 11, NAN, "much", 10**400)),
    *(("model", value) for value in ("../../etc/passwd", "/etc/passwd", "lion", 3, "x" * 1000)),
]
OWN = {
    "generate": [("count", v) for v in (0, 17, -1, 1.5, "x", None)] + [("seed", MAX_SEED + 1)],
    "animate": [
        *(("seconds", v) for v in (0, 11, NAN, None, "x")),
        *(("speed", v) for v in (0, 31, NAN, None, "x", 1e-300)),
        *(("hold", v) for v in (-1, 11, NAN, None, "x")),
    ],
    "morph": [
        *(("seeds", v) for v in ([], [1], [1] * 9, ["abc", 1], None, 3, {}, [NAN, 1], [-1, 2])),
        *(("coats", v) for v in (["pink"], "tabby", 5, [None, 3])),
        *(("frames", v) for v in (0, 1, 33, 10**9, NAN, None, "x")),
    ],
    "variations": [
        *(("strength", v) for v in (-0.1, 1.1, NAN, None, "x")),
        *(("first_seed", v) for v in (-1, 2**64, None, 1.5, "x", MAX_SEED)),
        *(("count", v) for v in (0, 17, None)),
    ],
    "from_picture": [("strength", v) for v in (0, -1, 1.1, NAN, None, "x")],
    "repaint": [],
    "explore": [
        *(
            ("corners", value)
            for value in ([], [1, 2, 3], [1] * 5, "1", None, [1, 2, 3, "x"], [-1] * 4)
        ),
        *((axis, value) for axis in "xy" for value in (-0.1, 1.1, NAN, "left", None, [])),
        *(("coats", value) for value in ("tabby", ["pink"], [5])),
    ],
    "dream": [
        *(("speed", value) for value in (0, -1, 11, NAN, "fast", None)),
        *(("frames", value) for value in (0, -1, 1.5, "all")),
    ],
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_bad_values_get_a_sentence(http, name, picture, mask):
    honest = dict(HONEST, count=2)
    honest["picture"] = upload(http, picture.read_bytes())
    honest["mask"] = upload(http, mask.read_bytes())
    fields = ENDPOINTS[name].split()
    bad = [(field, value) for field, value in SETTINGS if field in fields]
    for field, value in bad + OWN[name]:
        values = {**honest, field: value}
        assert_sentence(call(http, name, [values[field] for field in fields]))
    assert call(http, name, [honest[field] for field in fields])["done"]


def test_bad_values_by_gradio_client(client):
    for bad in ({"seed": -1}, {"seed": "abc"}, {"steps": 0}, {"steps": 10**9}, {"coat": "pink"},
                {"sampler": "magic"}, {"model": "../../etc/passwd"}, {"seed": None}):  # fmt: skip
        with pytest.raises(AppError) as caught:
            client.predict(api_name="/generate", **bad)
        assert_sentence({"error": str(caught.value)})


def test_too_much_and_too_little(http):
    assert_sentence(call(http, "restore", []))
    assert_sentence(call(http, "from_picture", []))
    assert_sentence(call(http, "morph", []))
    assert "detail" in post(http, "/call/generate", {"data": "text"}).json()
    assert "detail" in post(http, "/call/generate", {}).json()


# -- bad files ---------------------------------------------------------------------------------

FILE_ENDPOINTS = ["from_picture", "restore", "repaint"]


def file_call(http: httpx.Client, name: str, file: Any) -> dict:
    """Call an endpoint with a file that is not good (for a repaint both as picture and mask)."""
    return call(http, name, [file, file] if name == "repaint" else [file])


@pytest.mark.parametrize("name", FILE_ENDPOINTS)
@pytest.mark.parametrize("with_meta", [True, False])
def test_only_uploads_are_read(http, name, with_meta, tmp_path):
    private = tmp_path / "private.png"
    private.write_bytes(recipe_png('{"seed": 1}'))
    for path in (
        str(private), "/etc/passwd", "../../../etc/passwd", "/proc/self/mem", "/dev/zero",
        "http://127.0.0.1:1/cat.png", "https://example.org/cat.png", "ftp://example.org/cat.png",
        "file:///etc/passwd", "/gradio_api/file=http://127.0.0.1:1/x", "http:/127.0.0.1:1/x",
        "\0", "a" * 5000, "", ".", None, 5, [],
    ):  # fmt: skip
        file = {"path": path, "meta": META} if with_meta else {"path": path}
        assert_sentence(file_call(http, name, file))
        hidden = {"path": "x.png", "url": path, "meta": META}
        assert_sentence(file_call(http, name, hidden))
    for no_file in (None, 3, "http://127.0.0.1:1/cat.png", "/etc/passwd", [], {}, {"meta": META},
                    {"path": "x", "meta": "y"}, {"path": "x", "meta": None},
                    {"path": "x", "meta": META, "is_stream": True}):  # fmt: skip
        assert_sentence(file_call(http, name, no_file))


BAD_FILES = {
    "empty": b"",
    "text": b"hello",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "cut": crafted_png(400, 400)[:-60],
    "400 megapixels": crafted_png(20_000, 20_000, rows=1),
    "108 megapixels": crafted_png(12_000, 9_000, rows=1),
}


@pytest.mark.parametrize("name", FILE_ENDPOINTS)
def test_bad_pictures_get_a_sentence(http, name):
    for data in BAD_FILES.values():
        assert_sentence(file_call(http, name, upload(http, data)))


@pytest.mark.parametrize("kind", ["whole", "text"])
def test_a_huge_picture_costs_little(http, kind):
    """400 megapixels in 400 kB: refused by its header, before a pixel is decoded."""
    chunk = png_chunk(b"tEXt", b"cat-diffusion\0" + b"x" * 10_000_000) if kind == "text" else b""
    huge = upload(http, crafted_png(20_000, 20_000, chunk, rows=2000))
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.monotonic()
    for name in FILE_ENDPOINTS:
        assert_sentence(file_call(http, name, huge))
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert time.monotonic() - start < 3
    assert after.ru_maxrss - before.ru_maxrss < 150_000  # kB


BAD_RECIPES = {
    "10 MB": "x" * 10_000_000,
    "10 MB of JSON": json.dumps({"coat": "x" * 10_000_000}),
    "broken": '{"seed": 1',
    "deep": "[" * 45_000 + "]" * 45_000,
    "digits": '{"seed": ' + "9" * 5000 + "}",
    "list": "[1, 2]",
    "unknown": '{"seed": 1, "__class__": "x"}',
    "types": '{"seed": "1", "steps": []}',
    "seed": '{"seed": -1}',
    "NaN": '{"guidance": NaN}',
    "steps": '{"steps": 1000000000}',
    "coat": '{"coat": "pink"}',
    "long coat": json.dumps({"coat": "x" * 50_000}),
    "model": '{"model": "../../etc/passwd"}',
    "picture": '{"picture": "AAAA"}',
    "mask": '{"mask": "AAAA"}',
    "strength": '{"strength": 1e400}',
}


def test_bad_recipes_get_a_sentence(http, page):
    (restore,) = handlers(page, "restore")
    for name, text in BAD_RECIPES.items():
        file = upload(http, recipe_png(text))
        assert_sentence(call(http, "restore", [file]))
        shown = handle(http, restore, [file, 8, None])
        assert 'role="alert"' in json.dumps(shown).replace('\\"', '"'), name


def test_a_mask_of_another_size(http, picture, mask):
    small = io.BytesIO()
    Image.open(mask).resize((8, 16)).save(small, "PNG")
    files = [upload(http, picture.read_bytes()), upload(http, small.getvalue())]
    sentence = assert_sentence(call(http, "repaint", files))
    assert "8x16" in sentence
    assert "16x16" in sentence
    black = io.BytesIO()
    Image.new("L", (16, 16)).save(black, "PNG")
    files[1] = upload(http, black.getvalue())
    assert "Nothing is marked" in assert_sentence(call(http, "repaint", files))


# -- the page's own handlers -------------------------------------------------------------------

STRANGE = [
    None, "abc", -1, 2**64, 10**400, NAN, [], {}, [None], "x" * 9000, {"id": "x"},
    {"path": "/etc/passwd", "meta": META}, {"path": "/etc/passwd"}, {"background": "x"},
    {"background": {"path": "/etc/passwd", "meta": META}, "layers": [], "composite": None},
]  # fmt: skip


@pytest.mark.slow
def test_no_handler_of_the_page_breaks(http, page):
    """Each private event with strange values, by turns in all of its inputs and in one of them."""
    good = {"Slider": 1, "Number": 1, "Choice": "euler", "Chips": 1, "Textbox": "1, 2"}
    events = {
        fn.name: (index, fn)
        for index, fn in page.blocks.fns.items()
        if fn.api_visibility == "private" and fn.fn is not None and fn.inputs
    }
    for name, (index, fn) in events.items():
        honest = [good.get(type(block).__name__) for block in fn.inputs]
        for i, value in enumerate(STRANGE):
            data = [value] * len(honest)
            if i % 2:
                data = honest[:]
                data[i // 2 % len(data)] = value
            answer = handle(http, index, data, event_data={"index": value, "value": value})
            assert isinstance(answer, dict), (name, data)
            if "error" in answer:
                assert isinstance(answer["error"], str), (name, data)
                assert answer["error"] != BROKEN, (name, data)
                assert "Traceback" not in answer["error"]


def test_bad_files_on_the_page_get_a_sentence(http, page, picture):
    settings = [1, "any", 2, "euler", 1, "tiny"]
    good = upload(http, picture.read_bytes())
    (start,), (repaint,) = handlers(page, "start_from_picture"), handlers(page, "repaint")
    for data in BAD_FILES.values():
        file = upload(http, data)
        editor = {"background": file, "layers": [file], "composite": file}
        painted = {"background": good, "layers": [file], "composite": None}
        for answer in (
            handle(http, start, [editor, 0.5, False, *settings, None]),
            handle(http, repaint, [editor, False, *settings, None]),
            handle(http, repaint, [painted, False, *settings, None]),
        ):
            if answer.get("error"):
                assert_sentence(answer)
            else:
                assert "alert" in json.dumps(answer)
