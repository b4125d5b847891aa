"""The stage's HTML: escaped, and its pictures the very pixels that were drawn."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import pytest
import torch
from studio_fixtures import pixels

from studio.drawing.png_metadata import read_recipe
from studio.drawing.recipe import Recipe, to_query
from studio.drawing.worker import Update
from studio.page.stage import (
    WELCOME,
    cats_text,
    film_text,
    progress_text,
    result_text,
    stage_html,
    status_html,
)

EVIL = "<script>alert(1)</script>\" onload='x' &"


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


def pictures(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)


def assert_near(shown: torch.Tensor, picture: torch.Tensor) -> None:
    """As a JPEG shows it: of these pictures, which are noise, no two are as near by chance."""
    assert (shown.float() - picture.float()).abs().mean() < 16


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (16, 4)])
def test_pictures_come_back_from_the_page(count, columns, tmp_path):
    drawn = pictures(count)
    recipes = [Recipe(seed=i, model="tiny") for i in range(count)]
    tags = Tags(stage_html(drawn, recipes, frames=list(drawn)))
    images = tags.named("img")
    assert len(images) == count
    for picture, recipe, image in zip(drawn, recipes, images, strict=True):
        assert_near(pixels(image["src"]), picture)
        assert f"seed {recipe.seed}" in image["alt"]
    if count == 1:  # one alone is exact, and carries its recipe
        path = tmp_path / "cat.png"
        path.write_bytes(base64.b64decode(images[0]["src"].split(",")[1]))
        assert torch.equal(pixels(path), drawn[0])
        assert read_recipe(path) == recipes[0]
    assert len(tags.named("button")) == (count if count > 1 else 0)
    stage = tags.named("div")[0]
    assert stage["style"] == f"--columns: {columns}"
    assert stage["data-link"] == to_query(recipes)
    assert stage["aria-busy"] == "false"
    assert json.loads(stage["data-recipes"]) == [recipe.to_dict() for recipe in recipes]
    assert "data-mine" not in stage
    assert len(tags.named("i")) == count
    assert_near(pixels(tags.named("i")[-1]["data-frame"]), drawn[-1])


def test_a_forming_picture_carries_no_recipe(tmp_path):
    drawn = pictures(1)
    tags = Tags(stage_html(drawn, [Recipe()], forming=True))
    image = tags.named("img")[0]
    assert tags.named("div")[0]["aria-busy"] == "true"
    assert image["alt"].startswith("Forming cat")
    assert_near(pixels(image["src"]), drawn[0])
    (tmp_path / "cat.png").write_bytes(base64.b64decode(image["src"].split(",")[1]))
    with pytest.raises(ValueError, match="no recipe"):
        read_recipe(tmp_path / "cat.png")


def test_only_finished_cats_become_ones_own():
    for how, kept in (({}, True), ({"forming": True}, False), ({"stopped": True}, False)):
        stage = Tags(stage_html(pictures(2), [Recipe()] * 2, mine=True, **how)).named("div")[0]
        assert ("data-mine" in stage) == kept
        assert (stage["data-recipes"] != "[]") == kept


def test_half_a_cat_carries_no_recipe(tmp_path):
    image = Tags(stage_html(pictures(1), [Recipe()], stopped=True)).named("img")[0]
    assert image["alt"].startswith("Half-formed cat")
    (tmp_path / "cat.png").write_bytes(base64.b64decode(image["src"].split(",")[1]))
    with pytest.raises(ValueError, match="no recipe"):
        read_recipe(tmp_path / "cat.png")


def test_nothing_yet():
    assert WELCOME in stage_html(None, [])


def test_names_are_escaped():
    html = stage_html(pictures(1), [Recipe(coat=EVIL, model=EVIL)])
    tags = Tags(html)
    assert not tags.named("script")
    assert set(tags.named("img")[0]) == {"class", "alt", "src"}
    assert EVIL in tags.named("img")[0]["alt"]
    for error in (False, True):
        line = Tags(status_html(EVIL, error=error))
        assert [name for name, _ in line.found] == ["p"]


def test_an_error_is_announced():
    assert Tags(status_html("No.", error=True)).named("p")[0]["role"] == "alert"
    assert Tags(status_html("Yes.")).named("p")[0]["role"] == "status"


def test_lines_for_people():
    at = Update(pictures=None, step=7, total=12, share=0.58, place=0, done=False)
    assert progress_text(at) == "Step 7 of 12"
    assert film_text(at) == "Drawing the film: 58%"
    waits = Update(pictures=None, step=0, total=12, share=0.0, place=3, done=False)
    assert progress_text(waits) == film_text(waits) == "Waiting: place 4 in the queue"
    begins = Update(pictures=None, step=0, total=12, share=0.0, place=0, done=False)
    assert progress_text(begins) == "Waiting"
    recipe = Recipe(seed=1, model="tiny")
    assert (
        result_text(recipe, 1, 0.5, stopped=False, note="")
        == f"{recipe.describe()} · 0.50\N{NO-BREAK SPACE}s"
    )
    each = Recipe(seed=1, coat="tabby", any_coat=True)
    assert "any coat: tabby ·" in cats_text(each, 1)
    assert "any coat ·" in cats_text(each, 4)
    text = result_text(recipe, 4, 0.5, stopped=True, note="A note.")
    assert text.startswith("4 cats from seed 1")
    assert text.endswith("stopped after 0.50\N{NO-BREAK SPACE}s · A note.")
