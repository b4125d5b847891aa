"""The endpoints, by gradio_client and by raw HTTP: what they give, and what bad input gets.

The private handlers of the page are reached by raw HTTP too, so they are held to the same.
"""

from __future__ import annotations

import io
import json
import random
import resource
import string
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import imageio.v3 as iio
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from studio_fixtures import Page, crafted_png, pixels, png_chunk, recipe_png, wait_until

from diffusion.sampling import MAX_SEED, draw
from studio.drawing.png_metadata import encode_png, read_recipe
from studio.drawing.recipe import Recipe
from studio.page.answers import BROKEN

NAN = float("nan")
META = {"_type": "gradio.FileData"}
PLAIN = {"steps": 3, "coat": "tabby"}


@pytest.fixture(scope="module")
def client(page, tmp_path_factory) -> Client:
    folder = tmp_path_factory.mktemp("downloads")
    return Client(page.url, verbose=False, download_files=folder, analytics_enabled=False)


@pytest.fixture(scope="module")
def http(page) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{page.url}/gradio_api", timeout=30) as http:
        yield http


@pytest.fixture
def picture(tmp_path) -> Path:
    """A picture of 16x16 pixels of many colours."""
    path = tmp_path / "picture.png"
    pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    return path


@pytest.fixture
def mask(tmp_path) -> Path:
    """White where the picture is to be painted anew: the left half."""
    path, image = tmp_path / "mask.png", Image.new("L", (16, 16))
    image.paste(255, (0, 0, 8, 16))
    image.save(path)
    return path


# -- raw HTTP ----------------------------------------------------------------------------------


def post(http: httpx.Client, path: str, body: dict) -> httpx.Response:
    """As ``http.post(json=...)``, but NaN may be in it."""
    headers = {"content-type": "application/json"}
    return http.post(path, content=json.dumps(body), headers=headers)


def call(http: httpx.Client, name: str, data: list) -> dict:
    """The last answer of an endpoint: its value, or {"error": sentence}."""
    answer = post(http, f"/call/{name}", {"data": data})
    if answer.status_code != 200:
        return answer.json()
    events = http.get(f"/call/{name}/{answer.json()['event_id']}").text
    kind, last = events.strip().split("\n\n")[-1].split("\n")
    values = json.loads(last.removeprefix("data: "))
    return values if kind == "event: error" else values[0]


def new_visit() -> str:
    return "".join(random.choices(string.ascii_lowercase, k=10))


def handle(
    http: httpx.Client, index: int, data: list, *, visit: str = "", event_data: Any = None
) -> dict:
    """The last answer of any handler of the page, private ones too."""
    visit = visit or new_visit()
    body = {"data": data, "fn_index": index, "session_hash": visit, "event_data": event_data}
    answer = post(http, "/queue/join", body)
    if answer.status_code != 200:
        return answer.json()
    last: dict = {}
    with http.stream("GET", "/queue/data", params={"session_hash": visit}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {}
            if message.get("msg") in ("process_generating", "process_completed"):
                last = message["output"]
            if message.get("msg") in ("close_stream", "unexpected_error"):
                break
    return last


def upload(http: httpx.Client, data: bytes, name: str = "cat.png") -> dict:
    """Store a file as the page does; returns how a call names it."""
    path = http.post("/upload", files={"files": (name, data)}).json()[0]
    return {"path": path, "orig_name": name, "meta": META}


def assert_sentence(answer: dict) -> str:
    """An error that a person can read, with nothing of the machine in it."""
    sentence = answer.get("error")
    assert isinstance(sentence, str), answer
    assert sentence.strip()[-1] in ".!]", sentence
    assert len(sentence) < 400, sentence
    for machine in ("Traceback", "None", "Error", "/work/", "site-packages", " 0x"):
        assert machine not in sentence
    assert sentence != BROKEN
    return sentence


def handlers(page: Page, name: str) -> list[int]:
    """Indices of the page's private events that a function handles."""
    fns = page.blocks.fns.items()
    return [i for i, f in fns if f.api_visibility == "private" and f.name == name]


@pytest.fixture(autouse=True)
def _goes_on(page):
    """After whatever a test did, the next honest request is served."""
    yield
    job = page.studio.draw([Recipe(steps=1)])
    assert job.error is None


# -- what the endpoints give -------------------------------------------------------------------


def test_every_endpoint_has_a_name_and_types(client):
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert list(described) == [
        "/generate", "/animate", "/morph", "/variations", "/from_picture", "/repaint", "/restore",
    ]  # fmt: skip
    for endpoint in described.values():
        for parameter in endpoint["parameters"]:
            assert parameter["type"], parameter
    named = [p["parameter_name"] for p in described["/generate"]["parameters"]]
    assert named == ["seed", "count", "coat", "steps", "sampler", "guidance", "model"]


def test_one_seed_gives_the_same_pixels(client, page):
    first = client.predict(api_name="/generate", seed=42, **PLAIN)
    again = client.predict(api_name="/generate", seed=42, **PLAIN)
    other = client.predict(api_name="/generate", seed=43, **PLAIN)
    assert first["done"]
    assert first["seconds"] > 0
    picture = pixels(first["pictures"][0])
    assert picture.shape == (3, 16, 16)
    assert torch.equal(picture, pixels(again["pictures"][0]))
    assert not torch.equal(picture, pixels(other["pictures"][0]))
    recipe = read_recipe(first["pictures"][0])
    assert recipe.to_dict() == first["recipes"][0]
    assert (recipe.seed, recipe.coat, recipe.steps, recipe.model) == (42, "tabby", 3, "tiny")
    assert torch.equal(picture, page.studio.draw([recipe]).pictures[0])


def test_several_cats_have_seeds_that_follow(client):
    many = client.predict(api_name="/generate", seed=7, count=4, **PLAIN)
    assert [r["seed"] for r in many["recipes"]] == [7, 8, 9, 10]
    alone = client.predict(api_name="/generate", seed=9, **PLAIN)
    assert torch.equal(pixels(many["pictures"][2]), pixels(alone["pictures"][0]))


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim", "ddpm", "dpmpp_2m"])
def test_every_sampler_restores(client, sampler):
    made = client.predict(api_name="/generate", seed=5, sampler=sampler, guidance=2.5, **PLAIN)
    assert_restored(client, made)


def assert_restored(client: Client, made: dict, which: int = 0) -> None:
    file = made["pictures"][which]
    back = client.predict(api_name="/restore", picture=handle_file(file))
    assert torch.equal(pixels(back["pictures"][0]), pixels(file))
    assert back["recipes"][0] == made["recipes"][which]
    assert back["note"] == ""


def test_variations_restore(client):
    made = client.predict(
        api_name="/variations", seed=1, count=3, strength=0.4, first_seed=8, **PLAIN
    )
    assert len(made["pictures"]) == 3
    assert len({pixels(p).numpy().tobytes() for p in made["pictures"]}) == 3
    assert_restored(client, made, 2)


def test_a_picture_to_start_from_restores(client, picture):
    made, weak = (
        client.predict(
            api_name="/from_picture", picture=handle_file(picture), strength=s, seed=1, steps=10
        )
        for s in (0.8, 0.1)
    )
    assert_restored(client, made)
    near = (pixels(weak["pictures"][0]).float() - pixels(picture).float()).abs().mean()
    far = (pixels(made["pictures"][0]).float() - pixels(picture).float()).abs().mean()
    assert near < far


def test_repaint_keeps_the_rest_and_restores(client, picture, mask):
    files = {"picture": handle_file(picture), "mask": handle_file(mask)}
    made = client.predict(api_name="/repaint", seed=3, **files, **PLAIN)
    after, before = pixels(made["pictures"][0]), pixels(picture)
    assert torch.equal(after[:, :, 8:], before[:, :, 8:])
    assert not torch.equal(after[:, :, :8], before[:, :, :8])
    assert_restored(client, made)


@pytest.mark.parametrize("scale", [4, 8])
def test_larger_downloads_restore_too(client, page, tmp_path, scale):
    job = page.studio.draw([Recipe(seed=11, steps=3)])
    path = tmp_path / "large.png"
    path.write_bytes(encode_png(job.pictures[0], job.recipes[0], scale=scale))
    back = client.predict(api_name="/restore", picture=handle_file(path))
    assert torch.equal(pixels(back["pictures"][0]), job.pictures[0])


def test_films(client):
    formed = client.predict(
        api_name="/animate", seed=1, steps=4, seconds=1.0, speed=8.0, hold=0.0, noisy=True
    )
    assert len(iio.imread(formed["mp4"])) == 8
    assert Path(formed["gif"]).read_bytes()[:4] == b"GIF8"
    loop = client.predict(
        api_name="/morph", seeds=[1, 2], coats=["black", "any"], frames=2, steps=2
    )
    assert len(iio.imread(loop["mp4"])) == 4


def test_a_job_streams_its_progress(client):
    job = client.submit(api_name="/generate", seed=1, sampler="ddpm", steps=200)
    job.result(timeout=30)
    steps = [update["step"] for update in job.outputs() if not update["done"]]
    assert steps == sorted(steps)
    assert all(update["of"] == 200 for update in job.outputs()[:-1])


def test_what_a_raw_call_leaves_out_has_its_default(http):
    made = call(http, "generate", [42])
    assert made["recipes"][0]["seed"] == 42
    assert made["recipes"][0]["steps"] == Recipe.steps
    assert http.get(made["pictures"][0]["url"]).content[:4] == b"\x89PNG"


# -- bad values --------------------------------------------------------------------------------

SEEDS = [-1, 2**64, "abc", NAN, None, 1.5, [], {}, True, float("inf"), 10**400]
SETTINGS = [
    *(("seed", value) for value in SEEDS),
    *(("steps", value) for value in (0, -1, 10**9, 101, NAN, None, "many", 2.5)),
    *(("coat", value) for value in ("pink", 7, ["tabby"], "x" * 1000, "<script>")),
    *(("sampler", value) for value in ("magic", None, "", 5, "__class__", "x" * 1000)),
    *(("guidance", value) for value in (-1, 11, NAN, None, "much", 10**400)),
    *(("model", value) for value in ("../../etc/passwd", "/etc/passwd", "lion", 3, "x" * 1000)),
]
ENDPOINTS = {
    "generate": "seed count coat steps sampler guidance model",
    "animate": "seed coat steps sampler guidance model noisy seconds speed hold",
    "morph": "seeds coats frames steps sampler guidance model",
    "variations": "seed count strength first_seed coat steps sampler guidance model",
    "from_picture": "picture strength seed coat steps sampler guidance model",
    "repaint": "picture mask seed coat steps sampler guidance model",
}
HONEST = {
    "seed": 1, "count": 1, "coat": "", "steps": 2, "sampler": "euler", "guidance": 1.0,
    "model": "", "noisy": False, "seconds": 1.0, "speed": 4.0, "hold": 0.0, "seeds": [1, 2],
    "coats": None, "frames": 2, "strength": 0.5, "first_seed": 0,
}  # fmt: skip
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


def test_no_handler_of_the_page_breaks(http, page):
    """Each private event with strange values, by turns in all of its inputs and in one of them."""
    good = {"Slider": 1, "Number": 1, "Dropdown": "euler", "Radio": 8, "Textbox": "1, 2"}
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
            handle(http, start, [editor, 0.5, *settings, 8, None]),
            handle(http, repaint, [editor, *settings, 8, None]),
            handle(http, repaint, [painted, *settings, 8, None]),
        ):
            if answer.get("error"):
                assert_sentence(answer)
            else:
                assert "alert" in json.dumps(answer)


# -- leaving -----------------------------------------------------------------------------------


@pytest.fixture
def jobs(page, monkeypatch) -> list:
    """The jobs that are submitted while a test runs."""
    submitted, submit = [], page.studio.submit
    monkeypatch.setattr(
        page.studio, "submit", lambda *a, **k: submitted.append(submit(*a, **k)) or submitted[-1]
    )
    return submitted


@pytest.mark.parametrize("name", ["generate", "animate", "morph", "the page"])
def test_a_client_that_leaves_frees_the_machine(http, page, jobs, name, monkeypatch, page_gate):
    if name == "the page":
        visit = new_visit()
        handle(http, handlers(page, "open_page")[0], [], visit=visit)
        data = [16, 1, "any", 100, "euler", 1, "tiny", 8, None]
        join, stream = "/queue/join", f"/queue/data?session_hash={visit}"
        body = {"data": data, "fn_index": handlers(page, "generate")[0], "session_hash": visit}
    else:
        values = {**HONEST, "sampler": "ddpm", "steps": 1000, "count": 16}
        body = {"data": [values[field] for field in ENDPOINTS[name].split()]}
        join, stream = f"/call/{name}", f"/call/{name}/"
    jobs.clear()
    with page_gate.count() as gate:

        def slow(denoiser, start, config, *, callback):
            def dawdle(step):
                time.sleep(0.03)
                return callback(step)

            return draw(denoiser, start, config, callback=dawdle)

        monkeypatch.setattr(gate, "draw", slow)
        event = post(http, join, body).json()["event_id"]
        stream += event if stream.endswith("/") else ""
        with http.stream("GET", stream) as lines:
            next(lines.iter_lines())
            wait_until(lambda: gate.steps > 0)
        left = time.monotonic()
        (job,) = jobs
        wait_until(lambda: job.done)
        steps = gate.steps
        time.sleep(0.1)
    assert job.stopped
    assert job.finished - left < 2  # Gradio notices at its next message, then it is one step
    assert gate.steps == steps < 80  # and nothing goes on


@pytest.mark.parametrize("name", ["generate", "morph", "animate"])
def test_stop_ends_what_this_visit_draws(http, page, jobs, name, page_gate):
    settings = ["any", 100, "euler", 1, "tiny"]
    visit = new_visit()
    handle(http, handlers(page, "open_page")[0], [], visit=visit)
    if name == "animate":  # there must be a cat on the stage
        drawn = [1, 1, "any", 100, "euler", 1, "tiny", 8, None]
        handle(http, handlers(page, "generate")[0], drawn, visit=visit)
    data = {
        "generate": [16, 1, *settings, 8, None],
        "morph": ["1, 2", [], 32, *settings],
        "animate": [None, "the estimate", 2, 15, 1],
    }[name]
    jobs.clear()
    with page_gate.close() as gate:
        body = {"data": data, "fn_index": handlers(page, name)[0], "session_hash": visit}
        post(http, "/queue/join", body)
        wait_until(lambda: gate.steps == 1)
        stop = {"data": [], "fn_index": handlers(page, "stop")[0]}
        post(http, "/queue/join", {**stop, "session_hash": new_visit()})  # somebody else's
        assert not jobs[0].stopped
        post(http, "/queue/join", {**stop, "session_hash": visit})
        wait_until(lambda: jobs[0].stopped)
        gate.event.set()
        wait_until(lambda: jobs[0].done)
        assert gate.steps == 1


def test_many_clients_at_once_get_their_own_cats(http, page, page_gate):
    """Twelve raw clients with different seeds, drawn in each other's company."""
    expected = {
        seed: page.studio.draw([Recipe(seed=seed, steps=3)]).pictures[0] for seed in range(12)
    }
    got: dict[int, torch.Tensor] = {}

    def visit(seed: int) -> None:
        with httpx.Client(base_url=http.base_url, timeout=30) as mine:
            made = call(mine, "generate", [seed, 1, "", 3])
            got[seed] = pixels(mine.get(made["pictures"][0]["url"]).content)

    with page_gate.close() as gate:
        blocker = page.studio.submit([Recipe(steps=1)])
        wait_until(lambda: gate.steps == 1)
        visitors = [threading.Thread(target=visit, args=(seed,)) for seed in expected]
        for visitor in visitors:
            visitor.start()
        wait_until(lambda: len(page.studio._jobs) == 12, 20)
        gate.event.set()
        for visitor in visitors:
            visitor.join(30)
        assert blocker.done
        assert gate.batches == [1, 12]
    for seed, picture in expected.items():
        assert (got[seed].int() - picture.int()).abs().max() <= 1


def test_a_full_queue_says_busy(http, page, monkeypatch):
    monkeypatch.setattr(page.studio, "max_waiting", 0)
    assert "try again" in assert_sentence(call(http, "generate", [1]))
    assert "try again" in assert_sentence(call(http, "morph", [[1, 2]]))
