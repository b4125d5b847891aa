"""The Admin tab by raw HTTP: every event refuses strangers, and does the owner's will."""

from __future__ import annotations

import json
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from admin_calls import add_photos, call, event_of, events, press, send, shown
from admin_fixtures import PASSWORD, fake_admin
from studio_fixtures import launch_page, save_tiny, wait_until

from diffusion.config import LENGTHS, FinetuneConfig
from diffusion.training.run_folder import MetricsLine, RunProgress
from studio import space
from studio.admin.tab import AdminTab
from studio.drawing.library import ModelLibrary
from studio.drawing.worker import Studio
from studio.page.choice import Choice
from studio.page.examples import FIRST_SEED
from studio.safety.owner import COOKIE, SESSION_SECONDS, SIGN_IN
from studio.training.training_folder import TrainingSpec

SPEC = TrainingSpec("Mia", FinetuneConfig("mia", images=LENGTHS["quick"]), base="tiny")


@pytest.fixture(scope="module")
def served(tmp_path_factory, upload_folder):
    """The real page with an Admin tab over made-up trainings, and two real models."""
    folder = tmp_path_factory.mktemp("admin")
    models = folder / "models"
    library = ModelLibrary([folder / "shipped", models], default="tiny")
    save_tiny(folder / "shipped" / "tiny.safetensors")
    studio = Studio(library)
    admin = fake_admin(studio, folder)
    save_tiny(models / "mia.safetensors", seed=1)
    return launch_page(studio, folder, admin), admin


@pytest.fixture
def admin(served):
    admin = served[1]
    admin.trainings.trainings.clear()
    admin.trainings.called.clear()
    admin.models.called.clear()
    return admin


@pytest.fixture
def stranger(served):
    with httpx.Client(base_url=served[0].url, timeout=30) as client:
        yield client


@pytest.fixture
def owner(served, admin):
    with httpx.Client(base_url=served[0].url, timeout=30) as client:
        client.cookies.set(COOKIE, admin.owner.sign_in(PASSWORD))
        yield client


# -- strangers --------------------------------------------------------------------------------


def test_every_event_of_the_tab_refuses_strangers(served, stranger, admin):
    """Whatever is added later is found here too; one alone may answer: with the door."""
    found = events(served[0].blocks)
    assert len(found) >= 25
    answering = set()
    for index, fn in found.items():
        assert fn.api_visibility == "private", fn.name
        assert fn.show_progress == "hidden", fn.name  # or Gradio says words of its own
        assert not fn.queue, fn.name  # an answer in the queue could be listened to
        for data in (None, ["x"] * len(fn.inputs), ["training0"] + [1] * (len(fn.inputs) - 1)):
            answer = send(stranger, served, index, data, event=("mia", ["delete"]))
            if "error" not in answer:
                answering.add(fn.name)
            joined = stranger.post(
                "/gradio_api/queue/join",
                json={"data": data or [], "fn_index": index, "session_hash": "stranger"},
            )
            assert joined.status_code in (200, 422, 500, 503)
    assert answering == {"look"}
    assert not admin.trainings.called
    assert not admin.models.called


def test_with_honest_values_too_a_stranger_is_refused(served, stranger, admin):
    """Values that pass Gradio's own checks, so that it is our check that refuses."""
    good = {
        "Choice": None, "Dropdown": None, "Radio": None, "Textbox": "mia", "Number": None,
        "Slider": 0.3, "State": None, "HTML": "",
    }  # fmt: skip
    for index, fn in events(served[0].blocks).items():
        if fn.name == "look":
            continue
        data = [good[type(block).__name__] for block in fn.inputs]
        answer = send(stranger, served, index, data, event=("mia", ["delete"]))
        assert answer["error"] == SIGN_IN, fn.name


def test_a_stranger_sees_the_door_and_nothing_of_the_owners(served, stranger, admin):
    admin.trainings.create(SPEC, [])
    view = shown(stranger, served)
    assert 'type="password"' in view["admin-door"]
    assert view["admin-room"]["visible"] is False
    assert view["Timer"]["active"] is False
    parts = ("admin-training", "admin-log", "admin-samples", "admin-models", "admin-curve")
    for part in parts:
        assert view[part] == ""
    text = json.dumps(view)
    assert "Mia" not in text
    assert "mia" not in text
    config = stranger.get("/config").text
    assert "training0" not in config
    assert "Mia" not in config


@pytest.mark.parametrize("token", ["x", "x" * 43])
def test_a_forged_or_expired_session_sees_the_door(served, stranger, admin, token, monkeypatch):
    stranger.cookies.set(COOKIE, token)
    assert shown(stranger, served)["admin-room"]["visible"] is False
    real = admin.owner.sign_in(PASSWORD)
    stranger.cookies.set(COOKIE, real)
    assert shown(stranger, served)["admin-room"]["visible"] is True
    later = admin.owner._clock() + SESSION_SECONDS + 1
    monkeypatch.setattr(admin.owner, "_clock", lambda: later)
    assert shown(stranger, served)["admin-room"]["visible"] is False
    assert call(stranger, served, "pause_training", [None]) == SIGN_IN


def test_the_owners_cookie_from_another_sites_page_is_refused(served, owner):
    index = event_of(served, "pause_training")
    body = {"data": [None], "fn_index": index, "session_hash": "x"}
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        if "origin" not in headers:
            headers = {**headers, "origin": str(owner.base_url)}
        answer = owner.post("/gradio_api/run/predict", json=body, headers=headers)
        assert answer.status_code == 403


def test_the_routes_are_served_in_front_of_the_page(served, stranger):
    for path in ("sets/current", "trainings/training0/samples/base.png", "models/mia.safetensors"):
        assert stranger.get(f"/admin/{path}").status_code == 401
    large = stranger.post("/admin/upload?set=x&name=y", content=bytes(5_000_000))
    assert large.status_code == 401


def test_where_there_is_no_password_the_tab_says_how_to_switch_it_on(studio, tmp_path):
    admin = fake_admin(studio, tmp_path, password="")
    tab = AdminTab(admin)
    with gr.Blocks() as blocks, gr.Tab("Admin"):
        tab.build(blocks, Choice([], label="Model"))
    door = tab.actions.look("", "", {}, SimpleNamespace(cookies={}))["door"]
    assert "ADMIN_PASSWORD" in door
    assert "<form" not in door


# -- the owner --------------------------------------------------------------------------------


def test_the_owner_sees_trainings_and_models(served, owner, admin):
    view = shown(owner, served)
    assert view["admin-room"]["visible"] is True
    assert "Nothing has been trained yet" in view["admin-training"]
    assert "Download mia" in view["admin-models"]
    assert view["admin-base"]["choices"] == [["tiny", "tiny"], ["mia", "mia"]]
    assert view["model"]["choices"] == [["tiny", "tiny"], ["mia", "mia"]]  # the Generate tab's
    assert "about 2 min" in str(view["admin-length"]["choices"])
    admin.trainings.create(SPEC, [])
    admin.trainings.change(
        "training0", state="running", message="All is well.", log_tail=["<b>line</b>"],
        progress=RunProgress(fraction=0.34, images=1024, images_per_second=41.25,
                             seconds_left=130, heldout_loss=0.21),
        metrics=[*(MetricsLine(64 * i, 1 / (i + 1)) for i in range(9)),
                 MetricsLine(600, 0.1, 0.2)],
    )  # fmt: skip
    view = shown(owner, served)
    html = view["admin-training"]
    for piece in (
        'value="0.3400"', "1,024 images shown", "41.2 images/s", "2 min left", "All is well.",
        "held-out loss 0.2100",
    ):  # fmt: skip
        assert piece in html
    assert "<svg" in view["admin-curve"]
    assert "on photos kept aside" in view["admin-curve"]
    assert "&lt;b&gt;line&lt;/b&gt;" in view["admin-log"]
    assert view["admin-trainings"]["choices"] == [["Mia · 34 %", "training0"]]
    assert 'src="admin/trainings/training0/samples/000000512.png"' in view["admin-samples"]
    assert "After 512 images" in view["admin-samples"]
    assert [view[f"admin-{b}"]["interactive"] for b in ("pause", "resume", "stop", "cancel")] == [
        True, False, True, True,
    ]  # fmt: skip


def test_how_long_a_training_takes_is_told_once_it_is_known(served, owner, admin, monkeypatch):
    visit = "lengths"
    monkeypatch.setattr(admin.trainings, "estimates", lambda base: None)
    assert "Quick: not measured yet" in str(shown(owner, served, visit=visit)["admin-length"])
    known = {"tiny": {}, "mia": {"quick": 0.4, "balanced": 3.6, "thorough": 20.0}}
    monkeypatch.setattr(admin.trainings, "estimates", lambda base: known[base or "tiny"])
    assert "'Quick'" in str(shown(owner, served, visit=visit)["admin-length"])
    send(owner, served, event_of(served, "choose_base"), ["mia"], visit=visit)
    found = str(shown(owner, served, visit=visit)["admin-length"])
    assert "Quick: under a minute" in found
    assert "Balanced: about 4 min" in found


def test_a_training_begins_from_what_the_pages_cat_was_made_of(served, owner, admin, monkeypatch):
    visit = "base"
    asked = []
    monkeypatch.setattr(admin.trainings, "estimates", lambda base: asked.append(base) or {})
    library = admin.studio.library
    monkeypatch.setattr(library, "_default", "mia")
    assert shown(owner, served, visit=visit)["admin-base"]["value"] == "tiny"
    assert asked == ["tiny"]


def test_a_look_sends_only_what_changed(served, owner, admin):
    admin.trainings.create(SPEC, [])
    visit = "onevisit"
    assert "admin-base" in shown(owner, served, visit=visit)
    assert shown(owner, served, visit=visit) == {}
    admin.trainings.change("training0", state="running", progress=RunProgress(fraction=0.5))
    assert set(shown(owner, served, visit=visit)) == {"admin-training", "admin-trainings"}
    assert "admin-base" in shown(owner, served, visit="another")


def test_every_mistake_of_the_owners_is_a_line(served, owner, admin):
    form = ["tiny", "Mia", "", "quick", None, None, "all", 0.3]
    visit = "mistakes"
    shown(owner, served, visit=visit)
    for identity in admin.sets._ids():
        admin.sets.delete(identity)
    assert "There are no photos yet" in call(owner, served, "start_training", form, visit=visit)
    add_photos(admin, 7)
    line = call(owner, served, "start_training", form, visit=visit)
    assert 'role="alert"' in line
    assert "There are 7 usable photos" in line
    add_photos(admin)
    for place, value, sentence in (
        (1, "", "name"), (1, "x" * 100, "name"), (2, "x" * 41, "label"), (4, -1, "rate"),
        (4, 2, "rate"), (5, 9999, "batch"), (2, "a\nb", "label"),
    ):  # fmt: skip
        values = [*form]
        values[place] = value
        line = call(owner, served, "start_training", values, visit=visit)
        assert 'role="alert"' in line, (place, value)
        assert sentence in line
    assert not admin.trainings.trainings
    assert "Choose a model first" in call(owner, served, "publish_model", [None, "x", "x"])
    for what in ((), ("fly",), (["delete"],)):
        assert 'role="alert"' in press(owner, served, "mia", *what)
    assert not admin.models.called


def test_start_gives_the_squares_and_a_second_start_is_refused(served, owner, admin):
    add_photos(admin)
    visit = "starting"
    shown(owner, served, visit=visit)
    form = ["tiny", "Mia", "", "thorough", 0.0005, 8, "deep", 0.5]
    assert "in the queue" in call(owner, served, "start_training", form, visit=visit)
    assert admin.trainings.called == [
        ("create", TrainingSpec("Mia", FinetuneConfig("Mia", images=LENGTHS["thorough"], lr=0.0005,
                                                      batch_size=8, layers="deep", keep=0.5),
                                base="tiny")),
    ]  # fmt: skip
    assert admin.trainings.given[-1] == [(64, 64)] * 9
    assert not (admin.sets.current().folder / "squares").exists()
    assert "already in training" in call(owner, served, "start_training", form, visit=visit)
    admin.trainings.change("training0", state="done")
    assert "in the queue" in call(owner, served, "start_training", form, visit=visit)


def test_what_cannot_be_started_is_told_before_the_photos_are_prepared(served, owner, admin):
    add_photos(admin)
    visit = "impossible"
    shown(owner, served, visit=visit)
    form = ["lion", "Mia", "", "quick", None, None, "all", 0.3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studio.training.photos.PictureSet.squares", None)
        line = call(owner, served, "start_training", form, visit=visit)
    assert "There is no model" in line
    assert not admin.trainings.trainings


def test_the_buttons_reach_the_training_that_is_shown(served, owner, admin):
    visit = "buttons"
    admin.trainings.create(SPEC, [])
    admin.trainings.change("training0", steps=[512, 1024], result="mia")
    admin.trainings.called.clear()
    shown(owner, served, visit=visit)
    for name in ("pause_training", "resume_training", "stop_training"):
        assert 'role="status"' in call(owner, served, name, ["training0"], visit=visit)
    assert "512" in press(owner, served, "training0", "keep", "512")
    assert 'role="status"' in call(owner, served, "cancel_training", ["training0"], visit=visit)
    assert 'role="alert"' in call(owner, served, "pause_training", ["training0"], visit=visit)
    assert admin.trainings.called == [
        ("pause", "training0"), ("resume", "training0"), ("stop_and_keep", "training0"),
        ("roll_back", "training0", 512), ("cancel", "training0"),
    ]  # fmt: skip


def test_a_model_is_renamed_chosen_published_and_deleted(served, owner, admin):
    visit = "models"
    shown(owner, served, visit=visit)
    press(owner, served, "mia", "rename", "Mia the cat")
    press(owner, served, "mia", "default")
    line = call(owner, served, "publish_model", ["mia", "me/mia", "hf_secret"], visit=visit)
    assert "Published" in line
    press(owner, served, "mia", "delete")
    assert admin.models.called == [
        ("rename", "mia", "Mia the cat"), ("set_default", "mia"),
        ("publish", "mia", "me/mia", "hf_secret"), ("delete", "mia"),
    ]  # fmt: skip


def test_a_finished_training_shows_its_cats_and_what_can_be_done_now(served, owner, admin):
    visit = "ready"
    admin.trainings.create(SPEC, [])
    admin.trainings.change("training0", state="done", result="mia", can_go_on=True)
    view = shown(owner, served, visit=visit)
    html = view["admin-training"]
    assert "mia is ready" in html
    assert html.count('src="admin/models/mia/cats.jpg?v=') == 8
    assert f'href="./?seed={FIRST_SEED}&amp;coat=tabby' in html  # Draw Mia
    for act, of in (("default", "mia"), ("longer", "training0")):
        assert f'data-act="{act}" data-of="{of}"' in html
    hidden = [view[f"admin-{b}"]["visible"] for b in ("pause", "resume", "stop")]
    assert hidden == [False] * 3
    assert view["admin-cancel"]["value"] == "Delete this training"
    admin.trainings.called.clear()
    assert "goes on" in press(owner, served, "training0", "longer")
    assert admin.trainings.called == [("teach_longer", "training0")]
    assert "is ready" not in shown(owner, served, visit=visit)["admin-training"]


def test_a_model_is_a_card(served, owner, admin):
    html = shown(owner, served)["admin-models"]
    for piece in (
        'src="admin/models/mia/cats.jpg?v=', 'value="mia"', "9 photos", "from tiny", "1970",
        "Make default", 'data-title="mia">Delete', "admin/models/mia/before.jpg?v=",
    ):  # fmt: skip
        assert piece in html


def test_a_damaged_model_is_named(served, owner, admin):
    library, places = admin.studio.library, admin.studio.library.places
    (damaged := admin.models.path("leo")).write_bytes(b"no model")
    library.places = (*places, damaged)
    try:
        assert "left out" not in shown(owner, served, visit="before")["admin-models"]
        with pytest.raises(ValueError, match="leo"):
            library.get("leo")
        html = shown(owner, served, visit="after")["admin-models"]
    finally:
        library.places = places
        damaged.unlink()
    assert "leo is left out: " in html
    assert "Download mia" in html


def test_on_zero_gpu_the_tab_says_that_nothing_can_be_trained(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "on_zero_gpu", lambda: True)
    admin = fake_admin(studio, tmp_path)
    tab = AdminTab(admin)
    with gr.Blocks() as blocks, gr.Tab("Admin"):
        tab.build(blocks, Choice([], label="Model"))
    assert "ZeroGPU" in json.dumps(blocks.get_config_file(), default=str)
    assert tab.start_button.interactive is False


def test_the_set_that_is_uploaded_to_is_found_by_another_device(served, owner, admin):
    add_photos(admin)
    first = owner.get("/admin/sets/current").text
    with httpx.Client(base_url=owner.base_url) as other:
        other.cookies.set(COOKIE, admin.owner.sign_in(PASSWORD))
        wait_until(lambda: "9 photos" in other.get("/admin/sets/current").text)
        assert other.get("/admin/sets/current").text == first
