"""The actions's actions by themselves: runs that overtake each other, links, and lost files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from types import SimpleNamespace
from urllib.parse import parse_qsl

import gradio as gr
import numpy as np
import pytest
import torch
from studio_fixtures import LABELS, pixels, save_tiny, wait_until

from diffusion import Denoiser
from studio.drawing.library import ModelLibrary
from studio.drawing.png_metadata import read_recipe
from studio.drawing.recipe import Recipe, to_query, variations
from studio.drawing.worker import Studio
from studio.page import files
from studio.page.examples import FIRST_SEED, Examples
from studio.page.generate_actions import SAMPLER_HINTS, GenerateActions
from studio.page.shown import Shown

pytestmark = pytest.mark.usefixtures("upload_folder")


def request(**query: str) -> gr.Request:
    return SimpleNamespace(query_params=query, session_hash="visit")


@pytest.fixture
def actions(studio) -> GenerateActions:
    return GenerateActions(studio, Examples(studio))


def settings(opened: Shown) -> list:
    """Count, seed, coat, steps, sampler, guidance and model that an opened page shows."""
    names = ("count", "seed", "coat", "steps", "sampler", "guidance", "model")
    values = [opened[name] for name in names]
    return [value["value"] if isinstance(value, dict) else value for value in values]


def test_a_plain_visit(actions, monkeypatch):
    monkeypatch.setattr("studio.page.examples.PATIENCE", 60.0)  # however slow the machine is
    opened = actions.open_page(request())
    assert settings(opened) == [1, FIRST_SEED, "any", 12, "dpmpp_2m", Recipe.guidance, "tiny"]
    assert opened["linked"] == []
    assert [read_recipe(path).seed for path in opened["strip"]] == list(
        range(FIRST_SEED, FIRST_SEED + 8)
    )


def test_stop_ends_every_job_of_the_visit(actions, studio, gate):
    gate.close()
    jobs = [studio.submit([Recipe(steps=steps)]) for steps in (40, 50)]
    watches = [actions.visits.watch(job, request()) for job in jobs]
    watchers = [threading.Thread(target=list, args=[watch]) for watch in watches]
    for watcher in watchers:
        watcher.start()
    wait_until(lambda: list(actions.visits._jobs.values()) == ["visit", "visit"])
    actions.visits.stop(request())
    gate.event.set()
    for watcher in watchers:
        watcher.join(10)
    assert all(job.stopped for job in jobs)
    assert gate.steps <= 2
    assert actions.visits._jobs == {}


def test_of_two_runs_of_a_visit_the_newer_has_the_stage(actions, studio, gate):
    gate.close()
    old, new, other = (
        actions._draw([Recipe(seed=seed, steps=40)], 8, [], request) for seed, request in
        ((1, request()), (2, request()), (3, SimpleNamespace(session_hash="another")))
    )  # fmt: skip
    for run in (old, new, other):
        next(run)
    assert list(old) == []
    gate.event.set()
    for run, seed in ((new, 2), (other, 3)):
        *_, last = run
        assert f"seed {seed} " in last["status"]
    assert actions.visits._on_stage == {}


def test_what_a_newer_run_ends_is_left_half_formed(actions, studio, gate):
    with gate.close(seconds=0.2):
        old = actions._draw([Recipe(seed=1, steps=40)], 8, [], request())
        assert any('aria-busy="true"' in shown.get("stage", "") for shown in old)
        stage = next(actions._draw([Recipe(seed=2, steps=40)], 8, [], request()))["stage"]
    assert "Half-formed cat: seed 1 " in stage
    assert 'aria-busy="false"' in stage


@pytest.mark.parametrize("late", ["cat", "error"])
def test_nothing_comes_late_from_an_older_run(actions, monkeypatch, late):
    newer = []
    watch, finished = actions.visits.watch, actions._finished

    def draw_another(job):
        if job.recipes[0].seed == 1:
            newer.append(actions._draw([Recipe(seed=2, steps=2)], 8, [], request()))
            next(newer[0])

    def failing(job, request):
        yield from watch(job, request)
        draw_another(job)
        if job.recipes[0].seed == 1:
            raise ValueError("broken")

    def slow(job, scale, strip):
        draw_another(job)
        return finished(job, scale, strip)

    monkeypatch.setattr(actions.visits, "watch", failing if late == "error" else watch)
    monkeypatch.setattr(actions, "_finished", slow if late == "cat" else finished)
    told = [shown["status"] for shown in actions._draw([Recipe(seed=1, steps=2)], 8, [], request())]
    assert all("Step" in line or "Waiting" in line for line in told)
    *_, last = newer[0]
    assert "seed 2 " in last["status"]


def test_a_cat_is_shown_though_it_pushes_others_of_its_strip_off_the_disk(actions, monkeypatch):
    monkeypatch.setattr(files, "_kept", OrderedDict())
    strip: list[str] = []
    for seed in (1, 2, 3):
        *_, last = actions._draw([Recipe(seed=seed, steps=2)], 8, strip, request())
        strip = last["paths"]
        assert f"seed {seed} " in last["status"]
        monkeypatch.setattr(files, "MAX_KEPT_BYTES", sum(files._kept.values()) + 100)
    assert read_recipe(strip[0]).seed == 3
    assert last["zip"]["value"]  # the zip


def test_a_refused_run_leaves_the_stage_to_the_one_before(actions, studio, gate):
    gate.close()
    run = actions._draw([Recipe(seed=1, steps=4)], 8, [], request())
    next(run)
    (refused,) = actions._draw([Recipe(model="lion")], 8, [], request())
    assert "here; choose another." in refused["status"]
    gate.event.set()
    *_, last = run
    assert "seed 1 " in last["status"]


def test_a_link_sets_every_control(actions):
    opened = actions.open_page(
        request(seed="42", count="3", coat="tabby", steps="500", sampler="ddpm", guidance="2.5",
                model="tiny")
    )  # fmt: skip
    assert settings(opened) == [3, 42, "tabby", 500, "ddpm", 2.5, "tiny"]
    assert opened["steps"]["maximum"] == 1000
    assert "the original" in opened["hint"]  # the sampler's hint
    assert [linked["seed"] for linked in opened["linked"]] == [42, 43, 44]


@pytest.mark.parametrize(
    "query",
    [
        {"seed": "-1"}, {"seed": "abc"}, {"seed": "9" * 6000}, {"seed": "1", "steps": "0"},
        {"seed": "1", "count": "99"}, {"seed": "1", "count": "x"}, {"seed": "1", "coat": "pink"},
        {"seed": "1", "sampler": "magic"}, {"seed": "1", "guidance": "nan"},
        {"seed": "1", "count": "5", "coat": "<script>"},
    ],
)  # fmt: skip
def test_an_impossible_link_says_so_and_shows_the_plain_page(actions, query):
    opened = actions.open_page(request(**query))
    assert "This link contains settings that do not work here." in opened["status"]
    plain = actions.open_page(request())
    assert settings(opened) == settings(plain)
    told, example = (
        list(actions.first_cat(page["linked"], 8, page["paths"], request()))
        for page in (opened, plain)
    )
    assert told[0]["stage"] == example[0]["stage"]  # the same cat
    assert "status" not in told[0]  # what was wrong stays below it
    assert "an example" in example[0]["status"]


def test_a_link_to_a_model_that_is_gone_takes_the_default(actions):
    for hash in ({}, {"model_hash": "0123456789ab"}):
        opened = actions.open_page(request(seed="1", steps="2", model="../lion", **hash))
        assert settings(opened)[-1] == "tiny"
        *_, last = actions.first_cat(opened["linked"], 8, [], request())
        assert ("tiny draws this cat, because the model that first drew it is not here.") in last[
            "status"
        ]
    opened = actions.open_page(request(seed="1", steps="2"))
    *_, plain = actions.first_cat(opened["linked"], 8, [], request())
    assert "not here" not in plain["status"]


def test_a_link_draws_what_it_was_copied_from(actions):
    """Variations too, which no control of the form describes."""
    cat = Recipe(seed=4, coat="black", steps=2)
    drawn = actions.studio.draw(variations(cat, count=1, strength=0.3, first_seed=9))
    query = dict(parse_qsl(to_query(drawn.recipes)))
    linked = actions.open_page(request(**query))["linked"]
    assert [Recipe.from_dict(values) for values in linked] == list(drawn.recipes)
    *_, last = actions.first_cat(linked, 8, [], request())
    assert Recipe.from_dict(last["recipe"]) == drawn.recipes[0]
    assert torch.equal(pixels(last["shown"]), drawn.pictures[0])


def test_the_models_that_are_there_by_now_are_offered(tmp_path):
    save_tiny(tmp_path / "tiny.safetensors")
    actions = GenerateActions(studio := Studio(ModelLibrary([tmp_path])), Examples(studio))
    assert actions.list_models()["choices"] == ["tiny"]
    save_tiny(tmp_path / "mia.safetensors", labels=(*LABELS, "Mia"))
    assert actions.list_models()["choices"] == ["mia", "tiny"]


def test_a_models_own_coat_is_chosen_with_it(tmp_path):
    save_tiny(tmp_path / "a.safetensors")
    save_tiny(tmp_path / "mia.safetensors", labels=(*LABELS, "Mia"))
    save_tiny(tmp_path / "plain.safetensors", labels=())
    actions = GenerateActions(studio := Studio(ModelLibrary([tmp_path])), Examples(studio))
    shown = actions.choose_model("mia", "tabby")
    coat, coats = shown["coat"], shown["morph_coats"]
    assert coat["value"] == "Mia"
    assert coat["choices"] == coats["choices"] == ["any", "black", "tabby", "Mia"]
    assert actions.choose_model("a", "Mia")["coat"]["value"] == "any"
    assert actions.choose_model("a", "tabby")["coat"]["value"] == "tabby"
    assert actions.choose_model("plain", "tabby")["coat"]["choices"] == ["any"]
    assert (shown["steps"]["value"], shown["sampler"]) == (12, "dpmpp_2m")
    assert shown["hint"] == SAMPLER_HINTS["dpmpp_2m"]


def test_guidance_says_what_it_does_for_the_model(tmp_path):
    save_tiny(tmp_path / "a.safetensors")
    save_tiny(tmp_path / "plain.safetensors", labels=())
    guided = Denoiser.load(tmp_path / "a.safetensors").guided_by(
        Denoiser.load(tmp_path / "plain.safetensors")
    )
    guided.save(tmp_path / "guided.safetensors")
    actions = GenerateActions(studio := Studio(ModelLibrary([tmp_path])), Examples(studio))
    for model, words in (("a", "clearer coat, but slower"), ("plain", "has no effect"),
                         ("guided", "clearer cats and coats")):  # fmt: skip
        assert words in actions.choose_model(model, "any")["guidance"]["label"]
        opened = actions.open_page(request(seed="1", model=model, guidance="2"))
        assert words in opened["guidance"]["label"]
        assert opened["guidance"]["value"] == 2


def test_a_full_disk_is_told_and_the_page_opens_all_the_same(actions, monkeypatch):
    def full(*_):
        raise ValueError("The disk is full.")

    monkeypatch.setattr("studio.page.examples.save_file", full)
    opened = actions.open_page(request())
    assert settings(opened)[-1] == "tiny"
    assert opened["paths"] == opened["strip"] == []
    assert "The disk is full." in opened["status"]
    monkeypatch.setattr("studio.page.generate_actions.save_png", full)
    *_, last = actions._draw([Recipe(steps=2)], 8, [], request())
    assert "The disk is full." in last["status"]


def test_lost_files_of_a_long_visit_hurt_nobody(actions, monkeypatch):
    monkeypatch.setattr("studio.page.examples.PATIENCE", 60.0)
    lost = [path.replace("cat-", "lost-") for path in actions.examples.files()[:2]]
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    assert len(actions._finished(job, 8, lost)["strip"]) == 1
    for nothing in (lost[0], None):
        assert actions.rescale(nothing, 4) == gr.skip()
        assert actions.take_cat(nothing) == gr.skip()
    (failed,) = actions.restore(lost[0], 8, [], request())
    assert "alert" in failed["status"]
    (told,) = actions.restore_from_strip(8, lost, SimpleNamespace(index=1), request())
    assert "no longer stored here" in told["status"]
    assert told.keys() == failed.keys()


def test_half_a_cat_is_not_kept(actions):
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    job.stopped = True
    half = actions._finished(job, 8, [])
    assert half["strip"] == []
    assert "stopped after" in half["status"]
    assert half["recipe"] == job.recipes[0].to_dict()  # to animate or vary it
    shown = half["shown"]
    for path in (shown, half["download"]["value"]):
        with pytest.raises(ValueError, match="no recipe"):
            read_recipe(path)
    # what is painted on and saved is what is on the stage
    assert torch.equal(pixels(shown), job.pictures[0])
    assert np.array(actions.take_cat(shown)["background"])[::32, ::32].tolist() == (
        job.pictures[0].permute(1, 2, 0).tolist()
    )


def test_a_cat_is_in_the_strip_once(actions):
    jobs = [actions.studio.draw([Recipe(seed=s, steps=2)], record="denoised") for s in (1, 2, 1)]
    strip: list[str] = []
    for job in jobs:
        strip = actions._finished(job, 8, strip)["paths"]
    assert [read_recipe(path).seed for path in strip] == [1, 2]


def test_a_download_has_the_size_that_was_chosen(actions):
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    finished = actions._finished(job, 4, [])
    shown, download = finished["shown"], finished["download"]
    for scale, update in (
        (4, download),
        (1, actions.rescale(shown, 1)),
        (8, actions.rescale(shown, 8)),
    ):
        large = pixels(update["value"])
        assert large.shape == (3, 16 * scale, 16 * scale)
        assert torch.equal(large[:, ::scale, ::scale], job.pictures[0])
        assert read_recipe(update["value"]) == job.recipes[0]
