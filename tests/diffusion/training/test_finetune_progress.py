"""What a fine-tuning tells of itself before it learns, and when it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawing import cats, write_zip
from studio_fixtures import save_tiny

from diffusion.config import FinetuneConfig
from diffusion.training import finetune, replays

CONFIG = FinetuneConfig(label="Mia", images=64, batch_size=4)


@pytest.fixture
def told(monkeypatch) -> list[finetune.RunProgress]:
    """Everything that a run tells, in its order."""
    monkeypatch.setattr(replays, "REPLAYS", 6)
    monkeypatch.setattr(finetune, "SAMPLES", 2)
    told = []
    write = finetune.RunProgress.write

    def listen(self: finetune.RunProgress, out: Path) -> None:
        told.append(self)
        write(self, out)

    monkeypatch.setattr(finetune.RunProgress, "write", listen)
    return told


def test_the_preparations_are_told_and_a_run_that_goes_on_is_as_far_as_it_was(tmp_path, told):
    base = save_tiny(tmp_path / "tiny.safetensors")
    pictures, out = write_zip(tmp_path / "mia.zip", cats(24)), tmp_path / "out"
    steps = iter(range(100))
    assert not finetune.finetune(base, pictures, out, CONFIG, stop=lambda: next(steps) == 7)
    preparing = [run.prepared for run in told if run.state == "preparing"]
    assert preparing == sorted(preparing)
    assert (preparing[0], preparing[-1]) == (0.0, 1.0)
    assert len(set(preparing)) >= 5
    assert told[-1].fraction == 0.5
    told.clear()
    assert finetune.finetune(base, pictures, out, CONFIG)
    assert {run.fraction for run in told if run.state == "preparing"} == {0.5}
    assert [run.fraction for run in told if run.state == "training"][-1] == 1.0  # the last check
