"""The endpoints, by gradio_client and by raw HTTP: what they give."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import pytest
import torch
from calling import call
from drawing import cat
from gradio_client import Client, handle_file
from studio_fixtures import pixels, save_tiny, wait_until

from studio.drawing.library import ModelLibrary
from studio.drawing.png_metadata import encode_png, read_recipe
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Busy, Studio
from studio.page.api import Endpoints
from studio.page.examples import Examples
from studio.page.generate.actions import GenerateActions

pytestmark = pytest.mark.usefixtures("goes_on")

PLAIN = {"steps": 3, "coat": "tabby"}


def test_every_endpoint_has_a_name_and_types(client):
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert list(described) == [
        "/generate", "/animate", "/morph", "/variations", "/from_picture", "/repaint", "/restore",
        "/explore", "/dream",
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


def test_a_sampling_that_is_left_open_is_the_models(client, page):
    usual = page.studio.library.get().info.sampling
    for asked in ({}, {"steps": None, "sampler": None, "guidance": None}):
        (recipe,) = client.predict(api_name="/generate", seed=3, **asked)["recipes"]
        assert recipe["steps"] == usual.num_steps
        assert recipe["sampler"] == usual.sampler
        assert recipe["guidance"] == usual.guidance


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


def test_variations_of_any_coat_have_the_coat_of_the_cat(tmp_path):
    save_tiny(tmp_path / "tiny.safetensors", counts=(0, 5))
    studio = Studio(ModelLibrary([tmp_path]))
    (made,) = [one for one in Endpoints(studio).variations(seed=1, count=1) if one["done"]]
    assert [(r["coat"], r["towards_coat"]) for r in made["recipes"]] == [("tabby", "tabby")]


def test_a_half_formed_cat_is_no_answer_when_the_server_ends(studio, gate):
    gate.close()
    told = []

    def ask():
        with pytest.raises(Busy, match="shutting down"):
            list(Endpoints(studio).generate(seed=1))
        told.append(True)

    asking, closing = threading.Thread(target=ask), threading.Thread(target=studio.close)
    asking.start()
    wait_until(lambda: gate.steps == 1)
    closing.start()
    wait_until(lambda: all(job.stopped for job in studio._drawing))
    gate.event.set()
    asking.join(10)
    assert told


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


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.55, 1.0])
def test_a_strength_is_the_same_on_the_page_and_in_a_script(studio, upload_folder, strength):
    path = str(upload_folder / "start.png")
    cat(3, 40).save(path)
    *_, script = Endpoints(studio).from_picture({"path": path}, strength, seed=5, steps=10)
    actions = GenerateActions(studio, Examples(studio))
    usual = studio.library.get().info.sampling
    form = (False, 5, "any", 10, usual.sampler, usual.guidance, "")
    visit = SimpleNamespace(query_params={}, session_hash="visit")
    *_, page = actions.start_from_picture({"composite": path}, strength, *form, [], visit)
    assert page["recipe"] == script["recipes"][0]
    assert Recipe.from_dict(page["recipe"]).strength == strength
    assert torch.equal(pixels(page["shown"]), pixels(script["pictures"][0]["path"]))


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
