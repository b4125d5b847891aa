"""The form: for a model, and for one who comes back."""

from __future__ import annotations

import json

import pytest
from page_actions import request, settings
from studio_fixtures import LABELS, save_tiny

from diffusion import Denoiser, SampleConfig
from studio.drawing.library import ModelLibrary
from studio.drawing.recipe import Recipe
from studio.drawing.worker import Studio
from studio.page.examples import FIRST_SEED, Examples
from studio.page.generate.actions import GenerateActions
from studio.page.generate.form_actions import SAMPLER_HINTS, FormActions

pytestmark = pytest.mark.usefixtures("upload_folder")


def test_the_models_that_are_there_by_now_are_offered(tmp_path):
    save_tiny(tmp_path / "tiny.safetensors")
    actions = GenerateActions(studio := Studio(ModelLibrary([tmp_path])), Examples(studio))
    assert actions.form.list_models()["choices"] == [("tiny", "tiny")]
    save_tiny(tmp_path / "mia.safetensors", labels=(*LABELS, "Mia"))
    assert actions.form.list_models()["choices"] == [("mia", "mia"), ("tiny", "tiny")]


def test_a_models_own_coat_is_chosen_with_it(tmp_path):
    save_tiny(tmp_path / "a.safetensors")
    save_tiny(tmp_path / "mia.safetensors", labels=(*LABELS, "Mia"))
    save_tiny(tmp_path / "plain.safetensors", labels=())
    actions = GenerateActions(studio := Studio(ModelLibrary([tmp_path])), Examples(studio))
    shown = actions.form.choose_model("mia", "tabby")
    coat, coats = shown["coat"], shown["morph_coats"]
    assert coat["value"] == "Mia"
    assert coat["choices"] == coats["choices"] == ["any", "Mia", "black", "tabby"]
    assert actions.form.choose_model("a", "Mia")["coat"]["value"] == "any"
    assert actions.form.choose_model("a", "tabby")["coat"]["value"] == "tabby"
    assert actions.form.choose_model("plain", "tabby")["coat"]["choices"] == ["any"]
    assert (shown["steps"]["value"], shown["sampler"]["value"]) == (12, "dpmpp_2m")
    assert shown["hint"] == SAMPLER_HINTS["dpmpp_2m"]


def test_a_student_leaves_no_choice_of_its_sampling_and_says_why(tmp_path):
    save_tiny(tmp_path / "a.safetensors")
    usual = SampleConfig(sampler="euler", num_steps=2, guidance=1.0)
    save_tiny(tmp_path / "quick.safetensors", sampling=usual, teacher="0123456789ab")
    form = GenerateActions(studio := Studio(ModelLibrary([tmp_path])), Examples(studio)).form
    kept = json.dumps({"model": "quick", "steps": 30, "sampler": "ddpm", "guidance": 4})
    linked = form.controls(Recipe(model="quick", steps=30, guidance=4))
    for shown in (form.choose_model("quick", "any"), form.kept(kept), linked):
        sampling = [shown[name] for name in ("steps", "sampler", "guidance")]
        assert [control["value"] for control in sampling] == [2, "euler", 1]
        assert not any(control["interactive"] for control in sampling)
        assert "taught" in shown["hint"]
    back = form.choose_model("a", "any")
    assert all(back[name]["interactive"] for name in ("steps", "sampler", "guidance"))
    assert back["hint"] == SAMPLER_HINTS["dpmpp_2m"]


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
        assert words in actions.form.choose_model(model, "any")["guidance"]["label"]
        opened = actions.open_page(request(seed="1", model=model, guidance="2"))
        assert words in opened["guidance"]["label"]
        assert opened["guidance"]["value"] == 2


def test_what_a_visitor_changed_is_there_again(tmp_path):
    save_tiny(tmp_path / "a.safetensors")
    save_tiny(tmp_path / "mia.safetensors", labels=(*LABELS, "Mia"))
    form = FormActions(Studio(ModelLibrary([tmp_path])))
    plain = form.plain()
    assert form.kept("{}") == plain
    kept = form.kept(json.dumps({"count": 9, "coat": "Mia", "model": "mia", "scale": 2}))
    assert settings(kept) == [9, FIRST_SEED, "Mia", 12, "dpmpp_2m", Recipe.guidance, "mia"]
    assert kept["scale"] == 2
    assert settings(form.kept('{"sampler": "ddpm"}'))[3] == 1000
    other = form.kept('{"count": 4, "seed": 7, "coat": "Mia", "model": "a"}')  # a coat of mia's
    assert settings(other)[:3] == [4, 7, "any"]
    for broken in ("", "x", "3", None, '{"coat": "Mia"}', '{"count": 99}', '{"steps": "x"}',
                   '{"coat": {}}', "[" * 9999, "x" * 20_000):  # fmt: skip
        assert form.kept(broken) == plain


@pytest.mark.parametrize(
    ("sampler", "steps", "taken"),
    [("fitted", 12, 8), ("fitted", 3, 8), ("fitted", 5, 5), ("heun", 500, 12), ("heun", 100, 100),
     ("ddpm", 500, 500), ("ddpm", 1001, 1000), ("heun", 0, 12), ("heun", "many", 12),
     ("heun", None, 12)],
)  # fmt: skip
def test_steps_that_the_kept_sampler_does_not_take_cost_no_other_setting(
    tmp_path, sampler, steps, taken
):
    save_tiny(tmp_path / "a.safetensors")
    form = FormActions(Studio(ModelLibrary([tmp_path])))
    kept = {"count": 9, "coat": "tabby", "sampler": sampler, "steps": steps, "seed": 77}
    shown = form.kept(json.dumps(kept))
    assert settings(shown) == [9, 77, "tabby", taken, sampler, Recipe.guidance, "a"]


def test_a_seed_that_is_to_stay_stays(actions):
    opened = actions.open_page(request(), json.dumps({"seed": 77}))
    assert (settings(opened)[1], opened["fresh"]) == (77, False)
    assert actions.open_page(request(), "{}")["fresh"]
    linked = actions.open_page(request(seed="5"), json.dumps({"seed": 77}))
    assert (settings(linked)[1], linked["fresh"]) == (5, False)
    broken = actions.open_page(request(), json.dumps({"seed": -1}))
    assert (settings(broken)[1], broken["fresh"]) == (FIRST_SEED, True)
