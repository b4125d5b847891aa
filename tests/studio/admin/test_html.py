"""What is shown of trainings: one that is damaged takes nothing else down."""

from __future__ import annotations

import re

import pytest
from training_rig import SPEC, changed, rig  # noqa: F401 - rig is a fixture

from diffusion.config import FinetuneConfig
from diffusion.training.run_folder import RunProgress
from studio.admin.trainings_html import log_html, samples_html, training_html, training_title
from studio.training.training_folder import TrainingSpec
from studio.training.views import TrainingView


@pytest.mark.parametrize(
    ("name", "content"),
    [("progress.json", '{"state": "training", "images": "many", "fraction": "half"}'),
     ("progress.json", '{"seconds_left": 1e999, "updated": "now"}'), ("progress.json", "{"),
     ("metrics.jsonl", '{"images": 8, "loss": "low"}\n' * 3),
     ("metrics.jsonl", '{"images": 8}\nword\n{"images": 16, "loss": 1}\n')],
)  # fmt: skip
@pytest.mark.parametrize("state", ["queued", "running", "paused", "done"])
def test_one_damaged_training_is_shown_as_damaged_and_the_others_as_they_are(
    rig, name, content, state  # noqa: F811
):  # fmt: skip
    trainings = rig.server(start=False)
    damaged = trainings.create(changed(SPEC, name="Leo"), rig.pictures)
    whole = trainings.create(SPEC, rig.pictures)
    record = rig.folder(damaged) / "job.json"
    record.write_text(record.read_text().replace('"queued"', f'"{state}"', 1))
    (rig.folder(damaged) / name).write_text(content)
    (rig.folder(whole) / "progress.json").write_text('{"images": 1024, "heldout_loss": 0.25}')
    views = {view.id: view for view in trainings.views()}
    shown = {id: training_html(view) for id, view in views.items()}
    assert f"Damaged: {name}" in shown[damaged]
    assert "1,024 images shown" in shown[whole]
    assert "Damaged" not in shown[whole]
    for view in views.values():
        assert view.spec.name in training_title(view)
        assert log_html(view)
        assert samples_html(view) == ""


@pytest.mark.parametrize(
    ("told", "shares", "title"),
    [(dict(state="preparing", prepared=0.25), ["0.2500", "0.0000", "0.0000"], "preparing · Mia"),
     (dict(state="preparing", prepared=0.25, fraction=0.5), ["0.2500", "0.5000", "0.0000"],
      "preparing · Mia"),  # it goes on, and is as far as it was
     (dict(state="training", fraction=0.5), ["1.0000", "0.5000", "0.0000"], "50 % · Mia"),
     (dict(state="training", fraction=1.0), ["1.0000", "1.0000"], "last check · Mia")],
)  # fmt: skip
def test_the_phases_move_from_the_start(told, shares, title):
    spec = TrainingSpec("Mia", FinetuneConfig("Mia", images=100), base="tiny")
    html = training_html(TrainingView("x", spec, state="running", progress=RunProgress(**told)))
    assert re.findall(r'<progress max="1" value="([\d.]+)"', html) == shares
    assert f'data-title="{title}"' in html
    assert "role=" not in html  # nothing that is said at each step
    assert html.count("aria-current") == 1


def test_a_training_that_is_done_says_so_once_and_offers_no_bar():
    spec = TrainingSpec("<Mia>", FinetuneConfig("Mia", images=100), base="tiny")
    html = training_html(TrainingView("x", spec, state="done"))
    assert 'data-said="&lt;Mia&gt; is ready."' in html
    assert "<progress" not in html
    assert "More photos help" in html
    assert "More photos help" not in training_html(
        TrainingView("x", spec, state="done", can_go_on=True)
    )


def test_the_film_offers_the_states_that_are_kept(tmp_path):
    spec = TrainingSpec("Mia", FinetuneConfig("Mia", images=100), base="tiny")
    names = ("base", "000000016", "000000032", "000000048")
    samples = [tmp_path / f"{name}.png" for name in names]
    view = TrainingView("x", spec, state="done", samples=samples, steps=[32, 48], result="mia")
    html = samples_html(view)
    assert re.findall(r'data-keep="(\d*)"', html) == ["", "", "32", "48"]
    assert html.count("<figure") == 2
    assert "Before: tiny" in html
    assert "After 48 images" in html
