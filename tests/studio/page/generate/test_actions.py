"""The actions's actions by themselves: runs that overtake each other, links, and lost files."""

from __future__ import annotations

import html
import json
import re
import threading
from collections import OrderedDict
from types import SimpleNamespace
from urllib.parse import parse_qsl

import pytest
import torch
from page_actions import request, settings
from studio_fixtures import pixels, wait_until

from studio.drawing.png_metadata import read_recipe
from studio.drawing.recipe import Recipe, to_query, variations
from studio.page import files
from studio.page.examples import FIRST_SEED
from studio.page.generate.save_actions import SaveActions

pytestmark = pytest.mark.usefixtures("upload_folder")


def test_a_plain_visit(actions, monkeypatch):
    monkeypatch.setattr("studio.page.examples.PATIENCE", 60.0)  # however slow the machine is
    opened = actions.open_page(request())
    assert settings(opened) == [1, FIRST_SEED, "any", 12, "dpmpp_2m", Recipe.guidance, "tiny"]
    assert opened["linked"] == []
    shown = re.findall(r'data-recipe="([^"]*)"', opened["examples"])
    assert [json.loads(html.unescape(recipe))["seed"] for recipe in shown] == list(
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
        actions.show([Recipe(seed=seed, steps=40)], [], request) for seed, request in
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
        old = actions.show([Recipe(seed=1, steps=40)], [], request())
        assert any('aria-busy="true"' in shown.get("stage", "") for shown in old)
        stage = next(actions.show([Recipe(seed=2, steps=40)], [], request()))["stage"]
    assert "Half-formed cat: seed 1 " in stage
    assert 'aria-busy="false"' in stage


@pytest.mark.parametrize("late", ["cat", "error"])
def test_nothing_comes_late_from_an_older_run(actions, monkeypatch, late):
    newer = []
    watch, finished = actions.visits.watch, actions._finished

    def draw_another(job):
        if job.recipes[0].seed == 1:
            newer.append(actions.show([Recipe(seed=2, steps=2)], [], request()))
            next(newer[0])

    def failing(job, request):
        yield from watch(job, request)
        draw_another(job)
        if job.recipes[0].seed == 1:
            raise ValueError("broken")

    def slow(job, paths, *, mine):
        draw_another(job)
        return finished(job, paths, mine=mine)

    monkeypatch.setattr(actions.visits, "watch", failing if late == "error" else watch)
    monkeypatch.setattr(actions, "_finished", slow if late == "cat" else finished)
    told = [shown["status"] for shown in actions.show([Recipe(seed=1, steps=2)], [], request())]
    assert all("Step" in line or "Waiting" in line for line in told)
    *_, last = newer[0]
    assert "seed 2 " in last["status"]


def test_a_cat_is_shown_though_it_pushes_others_of_its_strip_off_the_disk(actions, monkeypatch):
    monkeypatch.setattr(files, "_kept", OrderedDict())
    strip: list[str] = []
    for seed in (1, 2, 3):
        *_, last = actions.show([Recipe(seed=seed, steps=2)], strip, request())
        strip = last["paths"]
        assert f"seed {seed} " in last["status"]
        monkeypatch.setattr(files, "MAX_KEPT_BYTES", sum(files._kept.values()) + 100)
    assert read_recipe(strip[0]).seed == 3
    asked = json.dumps([read_recipe(path).to_dict() for path in strip])
    (only,) = SaveActions(actions.visits).save_all(asked, strip, request())
    assert only["saved"]  # the zip


def test_a_refused_run_leaves_the_stage_to_the_one_before(actions, studio, gate):
    gate.close()
    run = actions.show([Recipe(seed=1, steps=4)], [], request())
    next(run)
    (refused,) = actions.show([Recipe(model="lion")], [], request())
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
        list(actions.first_cat(page["linked"], page["shown"], [], request()))
        for page in (opened, plain)
    )
    assert told[0]["stage"] == example[0]["stage"]  # the same cat
    assert "status" not in told[0]  # what was wrong stays below it
    assert "an example" in example[0]["status"]


def test_a_link_to_a_model_that_is_gone_takes_the_default(actions):
    for hash in ({}, {"model_hash": "0123456789ab"}):
        opened = actions.open_page(request(seed="1", steps="2", model="../lion", **hash))
        assert settings(opened)[-1] == "tiny"
        *_, last = actions.first_cat(opened["linked"], "", [], request())
        assert ("tiny draws this cat, because the model that first drew it is not here.") in last[
            "status"
        ]
    opened = actions.open_page(request(seed="1", steps="2"))
    *_, plain = actions.first_cat(opened["linked"], "", [], request())
    assert "not here" not in plain["status"]


def test_a_link_draws_what_it_was_copied_from(actions):
    """Variations too, which no control of the form describes."""
    cat = Recipe(seed=4, coat="black", steps=2)
    drawn = actions.studio.draw(variations(cat, count=1, strength=0.3, first_seed=9))
    query = dict(parse_qsl(to_query(drawn.recipes)))
    linked = actions.open_page(request(**query))["linked"]
    assert [Recipe.from_dict(values) for values in linked] == list(drawn.recipes)
    *_, last = actions.first_cat(linked, "", [], request())
    assert Recipe.from_dict(last["recipe"]) == drawn.recipes[0]
    assert torch.equal(pixels(last["shown"]), drawn.pictures[0])


def test_a_full_disk_is_told_and_the_page_opens_all_the_same(actions, monkeypatch):
    def full(*_):
        raise ValueError("The disk is full.")

    monkeypatch.setattr("studio.page.examples.save_file", full)
    opened = actions.open_page(request())
    assert settings(opened)[-1] == "tiny"
    assert opened["examples"] == opened["shown"] == ""
    assert "The disk is full." in opened["status"]
    monkeypatch.setattr("studio.page.generate.actions.save_file", full)
    *_, last = actions.show([Recipe(steps=2)], [], request())
    assert "The disk is full." in last["status"]


def test_lost_files_of_a_long_visit_hurt_nobody(actions, monkeypatch):
    monkeypatch.setattr("studio.page.examples.PATIENCE", 60.0)
    lost = [path.replace("cat-", "lost-") for path in actions.examples.files()[:2]]
    job = actions.studio.draw([Recipe(steps=2)], record="denoised")
    assert len(actions._finished(job, lost)["paths"]) == 1
    saving = SaveActions(actions.visits)
    for nothing in (lost[0], None):
        with pytest.raises(ValueError, match=r"no longer stored here|no cat yet"):
            saving.save_cat(nothing, 4, False)
        with pytest.raises(ValueError, match=r"no longer stored here|no cat yet"):
            saving.take_cat(nothing)
    (failed,) = actions.restore(lost[0], [], request())
    assert "alert" in failed["problem"]
    told = actions.open_cat("1", lost)
    assert "no longer stored here" in told["status"]
    assert told.keys() == {"status"}


def test_a_cat_is_in_the_strip_once(actions):
    jobs = [actions.studio.draw([Recipe(seed=s, steps=2)], record="denoised") for s in (1, 2, 1)]
    strip: list[str] = []
    for job in jobs:
        strip = actions._finished(job, strip)["paths"]
    assert [read_recipe(path).seed for path in strip] == [1, 2]


def test_a_cat_of_the_strip_is_drawn_from_what_the_browser_kept(actions):
    recipe = Recipe(seed=7, coat="tabby", steps=2).to_dict()
    for index, kept in ((0, 1), (1, 0)):  # an example does not become one of the visitor's own
        *_, last = actions.restore_from_strip(
            [], SimpleNamespace(index=index, value=[recipe]), request()
        )
        assert "seed 7 · tabby" in last["status"]
        assert len(last["paths"]) == 1  # to be saved and opened
        assert ("data-mine" in last["stage"]) == bool(kept)


def test_a_cat_whose_model_has_gone_is_told_so(actions):
    gone = [Recipe(seed=7, model="mia").to_dict()]
    (told,) = actions.restore_from_strip([], SimpleNamespace(index=0, value=gone), request())
    assert "There is no model &#x27;mia&#x27; here" in told["status"]


@pytest.mark.parametrize("value", [None, 3, [], {}, [3], [{"seed": -1}], [{"evil": 1}]])
def test_a_broken_memory_is_told(actions, value):
    (told,) = actions.restore_from_strip([], SimpleNamespace(index=0, value=value), request())
    assert "alert" in told["status"]


def test_a_cat_of_a_grid_is_opened_and_all_of_them_again(actions):
    job = actions.studio.draw(
        [Recipe(seed=seed, steps=2) for seed in (5, 6, 7, 8)], record="denoised"
    )
    paths = actions._finished(job, [])["paths"]
    opened = actions.open_cat("2", paths)
    assert opened["recipe"] == job.recipes[2].to_dict()
    assert (opened["shown"], opened["seed"]) == (paths[2], 7)
    assert "stage" not in opened
    again = actions.open_cat("-4", paths)
    assert again["seed"] == 5
    assert "4 cats from seed 5" in again["status"]


@pytest.mark.parametrize("name", ["vary", "start_from_picture", "repaint", "restore"])
def test_a_tool_that_cannot_start_changes_nothing_but_says_why(actions, name):
    form = (True, 5, "any", 2, "dpmpp_2m", 1, "")
    given = {
        "vary": (None, 0.25), "start_from_picture": (None, 0.5, *form), "repaint": (None, *form),
        "restore": (None,),
    }[name]  # fmt: skip
    (told,) = getattr(actions, name)(*given, [], request())
    assert told.keys() == {"problem"}
    assert 'role="alert"' in told["problem"]


def test_a_new_seed_is_told_with_the_first_answer(actions):
    form = (5, "any", 2, "dpmpp_2m", 1, "")
    first, *_ = actions.generate(1, True, *form, [], request())
    assert first["seed"] != 5
    first, *_, last = actions.generate(1, False, *form, [], request())
    assert first["seed"] == 5
    assert "seed 5 " in last["status"]
