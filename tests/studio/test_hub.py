"""A model of one's own from the Hub: fetched, kept, and no reason for the page not to start."""

from __future__ import annotations

import pytest
from huggingface_hub import constants
from stand_in_hub import TOKEN, StandInHub
from studio_fixtures import save_tiny

from studio.hub import fetch_model
from studio.serve import build_studio
from studio.settings import Settings
from studio.training.tuned import TunedModels


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, with a model in it."""
    with StandInHub() as server:
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("CHECKPOINT_REPO", "me/my.cat")
        server.models["me/my.cat"] = save_tiny(tmp_path / "a.safetensors").read_bytes()
        yield server


def test_it_is_the_pages_first_model_and_not_the_owners_to_change(hub, tmp_path):
    studio = build_studio(Settings(data_dir=tmp_path / "data"))
    assert studio.library.default == "my-cat"
    assert "cat-heads-64" in studio.library.names
    assert TunedModels(tmp_path / "data", studio.library).names() == []
    chosen = build_studio(Settings(data_dir=tmp_path / "data", checkpoint="cat-heads-64"))
    assert (chosen.library.default, "my-cat" in chosen.library.names) == ("cat-heads-64", True)


def test_it_is_fetched_again_only_when_it_has_changed(hub, tmp_path):
    first = fetch_model("me/my.cat", tmp_path).read_bytes()
    assert first == hub.models["me/my.cat"]
    assert fetch_model("me/my.cat", tmp_path).read_bytes() == first
    assert [line.split()[0] for line in hub.log].count("GET") == 1
    hub.models["me/my.cat"] = save_tiny(tmp_path / "b.safetensors", seed=1).read_bytes()
    assert fetch_model("me/my.cat", tmp_path).read_bytes() == hub.models["me/my.cat"]


@pytest.mark.parametrize(
    "trouble", [pytest.param("away", marks=pytest.mark.slow), "gone", "damaged"]
)
def test_in_trouble_the_page_starts_with_what_is_here(hub, tmp_path, capsys, monkeypatch, trouble):
    def cause() -> None:
        if trouble == "away":
            unreachable = "http://127.0.0.1:9"
            template = f"{unreachable}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
            monkeypatch.setattr(constants, "ENDPOINT", unreachable)
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        elif trouble == "gone":
            hub.models.clear()
        else:
            hub.models["me/my.cat"] = b"no model"

    before = hub.models["me/my.cat"]
    known = fetch_model("me/my.cat", tmp_path / "known")
    cause()
    new = build_studio(Settings(data_dir=tmp_path / "new"))
    assert new.library.default == "cat-heads-256"
    said = capsys.readouterr().err
    assert said.startswith("me/my.cat could not be fetched from the Hub: ")
    assert said.endswith("The page starts without.\n")
    assert said.count("\n") == 1
    assert fetch_model("me/my.cat", tmp_path / "known") == known
    assert known.read_bytes() == before


def test_what_is_no_name_of_a_repository_is_said(tmp_path):
    for name in ("cat", "me/my/cat", "../x", "https://huggingface.co/me/cat", "me/" + "x" * 99):
        with pytest.raises(ValueError, match="like USER/NAME"):
            fetch_model(name, tmp_path)
