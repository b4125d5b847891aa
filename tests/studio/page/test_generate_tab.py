"""The tab's handlers by themselves: links, lost files, and what reaches them from the editor."""

from __future__ import annotations

import threading
from collections import OrderedDict
from types import SimpleNamespace
from urllib.parse import parse_qsl

import gradio as gr
import numpy as np
import pytest
import torch
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData
from PIL import Image
from studio_fixtures import LABELS, Gate, pixels, save_tiny, wait_until

from diffusion import Denoiser
from studio.drawing.library import ModelLibrary
from studio.drawing.png_metadata import read_recipe
from studio.drawing.recipe import Recipe, to_query, variations
from studio.drawing.worker import Studio
from studio.page import files
from studio.page.choice import Choice
from studio.page.editor import PictureEditor
from studio.page.examples import FIRST_SEED, Examples
from studio.page.generate_tab import GenerateTab

pytestmark = pytest.mark.usefixtures("upload_folder")


def request(**query: str) -> gr.Request:
    return SimpleNamespace(query_params=query, session_hash="visit")


@pytest.fixture
def tab(studio) -> GenerateTab:
    return GenerateTab(studio, Examples(studio))


def settings(opened: tuple) -> list:
    """Count, seed, coat, steps, sampler, guidance and model that an opened page shows."""
    return [value["value"] if isinstance(value, dict) else value for value in opened[:7]]


def test_a_plain_visit(tab):
    opened = tab.open_page(request())
    assert settings(opened) == [1, FIRST_SEED, "any", 12, "dpmpp_2m", Recipe.guidance, "tiny"]
    assert opened[-1] == []
    assert [read_recipe(path).seed for path in opened[9]] == list(range(FIRST_SEED, FIRST_SEED + 8))


def test_stop_ends_every_job_of_the_visit(tab, studio):
    gate = Gate(studio, open=False)
    jobs = [studio.submit([Recipe(steps=steps)]) for steps in (40, 50)]
    watches = [tab._watch(job, request()) for job in jobs]
    watchers = [threading.Thread(target=list, args=[watch]) for watch in watches]
    for watcher in watchers:
        watcher.start()
    wait_until(lambda: list(tab._jobs.values()) == ["visit", "visit"])
    tab.stop(request())
    gate.event.set()
    for watcher in watchers:
        watcher.join(10)
    assert all(job.stopped for job in jobs)
    assert gate.steps <= 2
    assert tab._jobs == {}


def test_of_two_runs_of_a_visit_the_newer_has_the_stage(tab, studio):
    gate = Gate(studio, open=False)
    old, new, other = (
        tab._draw([Recipe(seed=seed, steps=40)], 8, [], request) for seed, request in
        ((1, request()), (2, request()), (3, SimpleNamespace(session_hash="another")))
    )  # fmt: skip
    for run in (old, new, other):
        next(run)
    assert list(old) == []
    gate.event.set()
    for run, seed in ((new, 2), (other, 3)):
        *_, last = run
        assert f"seed {seed} " in last[1]
    assert tab._on_stage == {}


def test_what_a_newer_run_ends_is_left_half_formed(tab, studio):
    with Gate(studio, open=False, seconds=0.2):
        old = tab._draw([Recipe(seed=1, steps=40)], 8, [], request())
        assert any('aria-busy="true"' in stage for stage, *_ in old if isinstance(stage, str))
        stage, *_ = next(tab._draw([Recipe(seed=2, steps=40)], 8, [], request()))
    assert "Half-formed cat: seed 1 " in stage
    assert 'aria-busy="false"' in stage


@pytest.mark.parametrize("late", ["cat", "error"])
def test_nothing_comes_late_from_an_older_run(tab, monkeypatch, late):
    newer = []
    watch, finished = tab._watch, tab._finished

    def draw_another(job):
        if job.recipes[0].seed == 1:
            newer.append(tab._draw([Recipe(seed=2, steps=2)], 8, [], request()))
            next(newer[0])

    def failing(job, request):
        yield from watch(job, request)
        draw_another(job)
        if job.recipes[0].seed == 1:
            raise ValueError("broken")

    def slow(job, scale, strip):
        draw_another(job)
        return finished(job, scale, strip)

    monkeypatch.setattr(tab, "_watch", failing if late == "error" else watch)
    monkeypatch.setattr(tab, "_finished", slow if late == "cat" else finished)
    told = [line for _, line, *_ in tab._draw([Recipe(seed=1, steps=2)], 8, [], request())]
    assert all("Step" in line or "Waiting" in line for line in told)
    *_, last = newer[0]
    assert "seed 2 " in last[1]


def test_a_cat_is_shown_though_it_pushes_others_of_its_strip_off_the_disk(tab, monkeypatch):
    monkeypatch.setattr(files, "_kept", OrderedDict())
    strip: list[str] = []
    for seed in (1, 2, 3):
        *_, last = tab._draw([Recipe(seed=seed, steps=2)], 8, strip, request())
        strip = last[2]
        assert f"seed {seed} " in last[1]
        monkeypatch.setattr(files, "MAX_KEPT_BYTES", sum(files._kept.values()) + 100)
    assert read_recipe(strip[0]).seed == 3
    assert last[7]["value"]  # the zip


def test_a_refused_run_leaves_the_stage_to_the_one_before(tab, studio):
    gate = Gate(studio, open=False)
    run = tab._draw([Recipe(seed=1, steps=4)], 8, [], request())
    next(run)
    (refused,) = tab._draw([Recipe(model="lion")], 8, [], request())
    assert "here; choose another." in refused[1]
    gate.event.set()
    *_, last = run
    assert "seed 1 " in last[1]


def test_a_link_sets_every_control(tab):
    opened = tab.open_page(
        request(seed="42", count="3", coat="tabby", steps="500", sampler="ddpm", guidance="2.5",
                model="tiny")
    )  # fmt: skip
    assert settings(opened) == [3, 42, "tabby", 500, "ddpm", 2.5, "tiny"]
    assert opened[3]["maximum"] == 1000
    assert "the original" in opened[7]  # the sampler's hint
    assert [linked["seed"] for linked in opened[-1]] == [42, 43, 44]


@pytest.mark.parametrize(
    "query",
    [
        {"seed": "-1"}, {"seed": "abc"}, {"seed": "9" * 6000}, {"seed": "1", "steps": "0"},
        {"seed": "1", "count": "99"}, {"seed": "1", "count": "x"}, {"seed": "1", "coat": "pink"},
        {"seed": "1", "sampler": "magic"}, {"seed": "1", "guidance": "nan"},
        {"seed": "1", "count": "5", "coat": "<script>"},
    ],
)  # fmt: skip
def test_an_impossible_link_says_so_and_shows_the_plain_page(tab, query):
    opened = tab.open_page(request(**query))
    assert "This link holds settings that are not possible here." in opened[-2]
    plain = tab.open_page(request())
    assert settings(opened) == settings(plain)
    told, example = (
        list(tab.first_cat(page[-1], 8, page[-4], request())) for page in (opened, plain)
    )
    assert told[0][0] == example[0][0]  # the same cat
    assert told[0][1] == gr.skip()  # what was wrong stays below it
    assert "an example" in example[0][1]


def test_a_link_to_a_model_that_is_gone_takes_the_default(tab):
    for hash in ({}, {"model_hash": "0123456789ab"}):
        opened = tab.open_page(request(seed="1", steps="2", model="../lion", **hash))
        assert settings(opened)[-1] == "tiny"
        *_, last = tab.first_cat(opened[-1], 8, [], request())
        assert "tiny draws it, since the model that drew it first is not here." in last[1]
    *_, plain = tab.first_cat(tab.open_page(request(seed="1", steps="2"))[-1], 8, [], request())
    assert "not here" not in plain[1]


def test_a_link_draws_what_it_was_copied_from(tab):
    """Variations too, which no control of the form describes."""
    cat = Recipe(seed=4, coat="black", steps=2)
    drawn = tab.studio.draw(variations(cat, count=1, strength=0.3, first_seed=9))
    query = dict(parse_qsl(to_query(drawn.recipes)))
    *_, linked = tab.open_page(request(**query))
    assert [Recipe.from_dict(values) for values in linked] == list(drawn.recipes)
    *_, last = tab.first_cat(linked, 8, [], request())
    assert Recipe.from_dict(last[4]) == drawn.recipes[0]
    assert torch.equal(pixels(last[5]), drawn.pictures[0])


def test_the_models_that_are_there_by_now_are_offered(tmp_path):
    save_tiny(tmp_path / "tiny.safetensors")
    tab = GenerateTab(studio := Studio(ModelLibrary([tmp_path])), Examples(studio))
    assert tab.list_models()["choices"] == ["tiny"]
    save_tiny(tmp_path / "mia.safetensors", labels=(*LABELS, "Mia"))
    assert tab.list_models()["choices"] == ["mia", "tiny"]


def test_a_models_own_coat_is_chosen_with_it(tmp_path):
    save_tiny(tmp_path / "a.safetensors")
    save_tiny(tmp_path / "mia.safetensors", labels=(*LABELS, "Mia"))
    save_tiny(tmp_path / "plain.safetensors", labels=())
    tab = GenerateTab(studio := Studio(ModelLibrary([tmp_path])), Examples(studio))
    coat, coats, _ = tab.choose_model("mia", "tabby")
    assert coat["value"] == "Mia"
    assert coat["choices"] == coats["choices"] == ["any", "black", "tabby", "Mia"]
    assert tab.choose_model("a", "Mia")[0]["value"] == "any"
    assert tab.choose_model("a", "tabby")[0]["value"] == "tabby"
    assert tab.choose_model("plain", "tabby")[0]["choices"] == ["any"]


def test_guidance_says_what_it_does_for_the_model(tmp_path):
    save_tiny(tmp_path / "a.safetensors")
    save_tiny(tmp_path / "plain.safetensors", labels=())
    guided = Denoiser.load(tmp_path / "a.safetensors").guided_by(
        Denoiser.load(tmp_path / "plain.safetensors")
    )
    guided.save(tmp_path / "guided.safetensors")
    tab = GenerateTab(studio := Studio(ModelLibrary([tmp_path])), Examples(studio))
    for model, words in (("a", "clearer coat, but slower"), ("plain", "nothing to be"),
                         ("guided", "clearer cats and coats")):  # fmt: skip
        assert words in tab.choose_model(model, "any")[2]["label"]
        opened = tab.open_page(request(seed="1", model=model, guidance="2"))
        assert words in opened[5]["label"]
        assert opened[5]["value"] == 2


def test_a_full_disk_is_told_and_the_page_opens_all_the_same(tab, monkeypatch):
    def full(*_):
        raise ValueError("The disk is full.")

    monkeypatch.setattr("studio.page.examples.save_file", full)
    opened = tab.open_page(request())
    assert settings(opened)[-1] == "tiny"
    assert opened[9:11] == ([], [])  # the strip, shown and remembered
    assert "The disk is full." in opened[-2]
    monkeypatch.setattr("studio.page.generate_tab.save_png", full)
    *_, last = tab._draw([Recipe(steps=2)], 8, [], request())
    assert "The disk is full." in last[1]


def test_lost_files_of_a_long_visit_hurt_nobody(tab):
    lost = [path.replace("cat-", "lost-") for path in tab.examples.files()[:2]]
    job = tab.studio.draw([Recipe(steps=2)], record="denoised")
    _, _, strip, *_ = tab._finished(job, 8, lost)
    assert len(strip) == 1
    for nothing in (lost[0], None):
        assert tab.rescale(nothing, 4) == gr.skip()
        assert tab.take_cat(nothing) == gr.skip()
    (failed,) = tab.restore(lost[0], 8, [], request())
    assert "alert" in failed[1]
    (told,) = tab.restore_from_strip(8, lost, SimpleNamespace(index=1), request())
    assert "no longer kept here" in told[1]
    assert len(told) == len(failed)


def test_half_a_cat_is_not_kept(tab):
    job = tab.studio.draw([Recipe(steps=2)], record="denoised")
    job.stopped = True
    _, line, strip, _, recipe, shown, download, *_ = tab._finished(job, 8, [])
    assert strip == []
    assert "stopped after" in line
    assert recipe == job.recipes[0].to_dict()  # to animate or vary it
    for path in (shown, download["value"]):
        with pytest.raises(ValueError, match="no recipe"):
            read_recipe(path)
    # what is painted on and saved is what is on the stage
    assert torch.equal(pixels(shown), job.pictures[0])
    assert np.array(tab.take_cat(shown)["background"])[::32, ::32].tolist() == (
        job.pictures[0].permute(1, 2, 0).tolist()
    )


def test_a_cat_is_in_the_strip_once(tab):
    jobs = [tab.studio.draw([Recipe(seed=s, steps=2)], record="denoised") for s in (1, 2, 1)]
    strip: list[str] = []
    for job in jobs:
        _, _, strip, *_ = tab._finished(job, 8, strip)
    assert [read_recipe(path).seed for path in strip] == [1, 2]


def test_a_download_has_the_size_that_was_chosen(tab):
    job = tab.studio.draw([Recipe(steps=2)], record="denoised")
    *_, shown, download, _, _ = tab._finished(job, 4, [])
    for scale, update in ((4, download), (1, tab.rescale(shown, 1)), (8, tab.rescale(shown, 8))):
        large = pixels(update["value"])
        assert large.shape == (3, 16 * scale, 16 * scale)
        assert torch.equal(large[:, ::scale, ::scale], job.pictures[0])
        assert read_recipe(update["value"]) == job.recipes[0]


def test_a_choice_outlives_gradios_memory_of_a_visit():
    """With it goes what a model list or a link had put into the list of choices."""
    one, many = (Choice(["any"], render=False, multiselect=multi) for multi in (False, True))
    assert one.preprocess("tabby") == "tabby"
    assert many.preprocess(["tabby", "white"]) == ["tabby", "white"]
    assert [one.preprocess(odd) for odd in (None, 7, ["any"], {"a": 1})] == [""] * 4
    assert [many.preprocess(odd) for odd in (None, "any", {"a": 1})] == [[]] * 3
    assert one.get_block_name() == "dropdown"


def test_the_editor_hands_over_files_undecoded(upload_folder, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image, "open", never)
    editor = PictureEditor(render=False)
    file = FileData(path=str(upload_folder / "huge.png"))
    value = editor.preprocess(EditorData(background=file, layers=[file], composite=None))
    assert value == {"background": file.path, "layers": [file.path], "composite": None}
    assert editor.preprocess(None) is None
    assert editor.get_block_name() == "imageeditor"
    assert not editor.server_fns
