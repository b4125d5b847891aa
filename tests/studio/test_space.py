"""A Hugging Face Space, faked: environment, threads, ZeroGPU's decorator, and the front matter."""

from __future__ import annotations

import dataclasses
import pickle
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from studio import serve, space
from studio.drawing.library import ModelLibrary
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Studio
from studio.page.api import Endpoints
from studio.page.film_actions import FilmActions
from studio.page.visits import Visits
from studio.safety.guard import Guard
from studio.settings import Settings, parse_settings

README = Path(__file__).resolve().parents[2] / "README.md"
PLAIN = Recipe(steps=3)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    for name in ("SYSTEM", "SPACE_ID", "SPACES_ZERO_GPU", "CPU_CORES", "CAT_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def zero_gpu(monkeypatch) -> list:
    """A ``spaces`` package whose GPU sends everything through pickle; what went through it."""
    calls = []

    def gpu(duration):
        def decorate(function):
            def wrapped(*args):
                calls.append((duration, args))
                return pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(args)))))

            return wrapped

        return decorate

    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=gpu))
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    return calls


def test_nothing_happens_elsewhere(monkeypatch):
    monkeypatch.setitem(sys.modules, "spaces", None)  # importing it would be an error
    assert not space.on_space()
    assert not space.on_zero_gpu()
    assert space.num_threads() is None
    assert space.gpu(len) is len


def test_a_space_listens_to_all(monkeypatch):
    monkeypatch.setenv("SYSTEM", "spaces")
    assert space.on_space()
    assert parse_settings([]).host == "0.0.0.0"
    assert parse_settings(["--host", "127.0.0.1"]).host == "127.0.0.1"
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert space.gpu(len) is len  # a Space with a CPU


@pytest.mark.parametrize(
    ("cores", "threads"), [("2", 2), ("", None), ("two", None), ("0", None), ("-1", None)]
)
def test_threads_come_from_the_cores(monkeypatch, cores, threads):
    monkeypatch.setenv("CPU_CORES", cores)
    assert space.num_threads() == threads


def test_a_space_starts_with_its_cores_and_no_tunnel(monkeypatch, tiny_folder, tmp_path):
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "someone/cats")
    monkeypatch.setenv("CPU_CORES", "3")
    threads, launched = [], {}
    app = SimpleNamespace(middleware_stack=Guard(None))
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(
        "gradio.Blocks.launch",
        lambda self, **options: launched.update(options) or (app, "http://here/", None),
    )
    monkeypatch.setattr(serve, "_wait_for_a_signal", lambda: None)
    monkeypatch.setattr(serve.Examples, "begin", lambda self: None)
    checkpoint = str(tiny_folder / "tiny.safetensors")
    settings = Settings(
        host="0.0.0.0", port=0, share=True, checkpoint=checkpoint, data_dir=tmp_path
    )
    serve.serve(settings)
    assert threads == [3]
    assert launched["share"] is False
    assert launched["server_name"] == "0.0.0.0"
    assert launched["allowed_paths"] == []


def test_generation_goes_through_zero_gpu(zero_gpu, tiny_folder, studio):
    on_gpu = Studio(ModelLibrary([tiny_folder]))
    updates = list(on_gpu.watch(on_gpu.submit([PLAIN, dataclasses.replace(PLAIN, seed=1)])))
    (duration, arguments), *rest = zero_gpu
    assert not rest
    assert duration == space.GPU_SECONDS
    assert arguments[-1] is None  # a callback cannot cross the border of a process
    here = studio.draw([PLAIN, dataclasses.replace(PLAIN, seed=1)])
    assert torch.equal(updates[-1].pictures, here.pictures)
    assert updates[-1].pictures.device.type == "cpu"


def test_stopping_on_zero_gpu_ends_well(zero_gpu, tiny_folder):
    studio = Studio(ModelLibrary([tiny_folder]))
    job = studio.submit([PLAIN])
    studio.stop(job)
    job.wait(10)
    assert job.done
    assert studio.draw([PLAIN]).error is None


def test_on_zero_gpu_nothing_is_drawn_for_a_film_that_cannot_be(zero_gpu, tiny_folder):
    studio = Studio(ModelLibrary([tiny_folder]))
    with pytest.raises(ValueError, match="cannot be animated"):
        list(Endpoints(studio).animate(steps=3))
    actions = FilmActions(studio, Visits(studio))
    visit = types.SimpleNamespace(session_hash="visit")
    (shown,) = actions.animate(dataclasses.asdict(PLAIN), "the estimate", 2, 15, 1, visit)
    assert "cannot be animated" in shown["note"]
    assert not zero_gpu


def test_the_front_matter_is_that_of_a_space():
    text = README.read_text()
    assert text.startswith("---\n")
    yaml = pytest.importorskip("yaml")
    import gradio

    values = yaml.safe_load(text.split("---\n")[1])
    assert values["sdk"] == "gradio"
    assert values["sdk_version"] == gradio.__version__
    assert values["python_version"] in ("3.12.12", "3.10.13")  # what ZeroGPU has
    assert (README.parent / values["app_file"]).is_file()
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {values["colorFrom"], values["colorTo"]} <= colours
    assert len(values["short_description"]) <= 60
    assert values["title"]
    assert values["license"]
