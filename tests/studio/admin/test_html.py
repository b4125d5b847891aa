"""What is shown of trainings: one that is damaged takes nothing else down."""

from __future__ import annotations

import pytest
from training_rig import SPEC, changed, rig  # noqa: F401 - rig is a fixture

from studio.admin.html import log_html, samples_html, training_html, training_title


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
