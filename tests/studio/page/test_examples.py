"""The first cats of a visit: drawn in the background, and never ahead of a visitor's own."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from studio_fixtures import save_tiny, wait_until

from studio.drawing.library import ModelLibrary
from studio.drawing.png_metadata import read_recipe
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Studio
from studio.page.examples import EXAMPLES, FIRST_SEED, Examples

pytestmark = pytest.mark.usefixtures("upload_folder")


def seeds(files: list[str]) -> list[int]:
    return [read_recipe(path).seed for path in files]


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A visit waits for all of them, however slow the machine is."""
    monkeypatch.setattr("studio.page.examples.PATIENCE", 60.0)


def all_drawn(examples: Examples) -> bool:
    return len(examples._drawn) == EXAMPLES


def test_they_go_through_the_coats(studio):
    examples = Examples(studio)
    files = examples.files()
    assert seeds(files) == list(range(FIRST_SEED, FIRST_SEED + EXAMPLES))
    coats = [read_recipe(path).coat for path in files]
    assert coats[:4] == ["", "black", "tabby", ""]


def test_of_a_model_that_was_taught_a_cat_they_show_that_cat(tmp_path):
    save_tiny(tmp_path / "mia.safetensors", taught=True)
    files = Examples(Studio(ModelLibrary([tmp_path]))).files()
    assert {read_recipe(path).coat for path in files} == {"tabby"}
    assert not any(read_recipe(path).any_coat for path in files)


def test_they_outlive_their_files(studio):
    examples = Examples(studio)
    first = examples.files()
    for path in first:
        shutil.rmtree(Path(path).parent)
    assert examples.files() == first
    assert all(Path(path).is_file() for path in first)


def test_a_visitor_waits_for_one_of_them_at_most(studio, gate):
    gate.close()
    examples = Examples(studio)
    examples.begin()
    wait_until(lambda: gate.steps == 1)
    mine = studio.submit([Recipe(steps=2)])  # other settings, so it cannot share a batch
    gate.event.set()
    mine.wait(10)
    assert mine.done
    assert not all_drawn(examples)
    assert gate.batches[:2] == [1, 1]


def test_a_visit_in_the_first_moments_sees_what_is_there(studio, monkeypatch):
    monkeypatch.setattr("studio.page.examples.PATIENCE", 0.05)
    examples, drawn, draw = Examples(studio), threading.Semaphore(3), studio.draw

    def held(recipes):
        drawn.acquire()
        return draw(recipes)

    monkeypatch.setattr(studio, "draw", held)
    examples.begin()
    wait_until(lambda: len(examples._drawn) == 3)
    assert len(examples.files()) == 3
    drawn.release(EXAMPLES)
    wait_until(lambda: all_drawn(examples))
    assert len(examples.files()) == EXAMPLES


def test_many_visits_draw_them_once(studio, gate):
    examples = Examples(studio)
    visits = [threading.Thread(target=examples.files) for _ in range(6)]
    for visit in visits:
        visit.start()
    for visit in visits:
        visit.join(20)
    wait_until(lambda: all_drawn(examples))
    assert sum(gate.batches) == EXAMPLES


def test_another_default_model_draws_its_own(tmp_path):
    path = save_tiny(tmp_path / "tiny.safetensors")
    studio = Studio(ModelLibrary([tmp_path], default_file=tmp_path / "default"))
    examples = Examples(studio)
    assert {read_recipe(file).model for file in examples.files()} == {"tiny"}
    save_tiny(path.with_stem("mia"), seed=1)
    (tmp_path / "default").write_text("mia")
    assert {read_recipe(file).model for file in examples.files()} == {"mia"}


def test_a_default_that_changes_to_and_fro_draws_each_example_once(tmp_path, gate):
    path = save_tiny(tmp_path / "tiny.safetensors")
    save_tiny(path.with_stem("mia"), seed=1)
    studio = Studio(ModelLibrary([tmp_path], default_file=tmp_path / "default"), draw=gate)
    gate.close()
    examples = Examples(studio)
    for number, default in enumerate(("tiny", "mia", "tiny"), 1):
        (tmp_path / "default").write_text(default)
        examples.begin()
        wait_until(lambda n=number: len(studio._jobs) + len(studio._drawing) == n)
    gate.event.set()
    wait_until(lambda: all_drawn(examples))
    files = examples.files()
    assert seeds(files) == list(range(FIRST_SEED, FIRST_SEED + EXAMPLES))
    assert {read_recipe(file).model for file in files} == {"tiny"}


def test_a_renamed_default_model_draws_under_its_new_name(tmp_path):
    path = save_tiny(tmp_path / "mia.safetensors")
    (tmp_path / "default").write_text("mia")
    examples = Examples(Studio(ModelLibrary([tmp_path], default_file=tmp_path / "default")))
    assert {read_recipe(file).model for file in examples.files()} == {"mia"}
    path.rename(path.with_stem("mia-2"))
    (tmp_path / "default").write_text("mia-2")
    assert {read_recipe(file).model for file in examples.files()} == {"mia-2"}


def test_a_failure_leaves_the_page_without_and_the_next_visit_tries_again(studio, monkeypatch):
    examples = Examples(studio)
    monkeypatch.setattr(studio, "max_waiting", 0)
    assert examples.files() == []
    monkeypatch.setattr(studio, "max_waiting", 64)
    assert len(examples.files()) == EXAMPLES
