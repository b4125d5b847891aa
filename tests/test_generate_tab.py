"""The tab's handlers by themselves: links, lost files, and what reaches them from the editor."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData
from PIL import Image
from studio_fixtures import pixels

from studio.editor import PictureEditor
from studio.generate_tab import FIRST_SEED, GenerateTab, _take_cat
from studio.png_metadata import read_recipe
from studio.recipe import Recipe

pytestmark = pytest.mark.usefixtures("upload_folder")


def request(**query: str) -> gr.Request:
    return SimpleNamespace(query_params=query, session_hash="visit")


@pytest.fixture
def tab(studio) -> GenerateTab:
    return GenerateTab(studio)


def settings(opened: tuple) -> list:
    """Count, seed, coat, steps, sampler, guidance and model that an opened page shows."""
    return [value["value"] if isinstance(value, dict) else value for value in opened[:7]]


def test_a_plain_visit(tab):
    opened = tab.open_page(request())
    assert settings(opened) == [1, FIRST_SEED, "any", 12, "dpmpp_2m", 1.0, "tiny"]
    assert opened[-1] is False
    assert [read_recipe(path).seed for path in opened[7]] == list(range(FIRST_SEED, FIRST_SEED + 8))


def test_a_link_sets_every_control(tab):
    opened = tab.open_page(
        request(seed="42", count="3", coat="tabby", steps="500", sampler="ddpm", guidance="2.5",
                model="tiny")
    )  # fmt: skip
    assert settings(opened) == [3, 42, "tabby", 500, "ddpm", 2.5, "tiny"]
    assert opened[3]["maximum"] == 1000
    assert opened[-1] is True


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
    assert settings(opened) == settings(tab.open_page(request()))
    assert opened[-1] is False


def test_a_link_to_a_model_that_is_gone_takes_the_default(tab):
    assert settings(tab.open_page(request(seed="1", model="../lion")))[-1] == "tiny"


def test_examples_outlive_their_files(tab):
    first = tab.examples()
    for path in first:
        shutil.rmtree(Path(path).parent)
    assert all(Path(path).is_file() for path in tab.examples())
    assert tab.examples() == first


def test_lost_files_of_a_long_visit_hurt_nobody(tab):
    lost = [path.replace("cat-", "lost-") for path in tab.examples()[:2]]
    job = tab.studio.draw([Recipe(steps=2)], record="denoised")
    _, _, strip, *_ = tab._finished(job, 8, lost)
    assert len(strip) == 1
    assert tab.rescale(job.recipes[0].to_dict(), 4, lost) == gr.skip()
    assert _take_cat(lost) == gr.skip()
    (failed,) = tab.restore(lost[0], 8, [], request())
    assert "alert" in failed[1]


def test_half_a_cat_is_not_kept(tab):
    job = tab.studio.draw([Recipe(steps=2)], record="denoised")
    job.stopped = True
    _, line, strip, *_ = tab._finished(job, 8, [])
    assert strip == []
    assert "stopped after" in line


def test_a_download_has_the_size_that_was_chosen(tab):
    job = tab.studio.draw([Recipe(steps=2)], record="denoised")
    download = tab._finished(job, 4, [])[5]
    assert pixels(download["value"]).shape == (3, 64, 64)
    assert read_recipe(download["value"]) == job.recipes[0]


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
