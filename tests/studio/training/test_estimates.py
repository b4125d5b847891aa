"""How long a training takes: measured once, and never beside one."""

from __future__ import annotations

import json
import signal

import pytest
from studio_fixtures import wait_until
from training_rig import start_long


def test_the_speed_is_measured_once_per_base_model_and_remembered(rig):
    trainings = rig.server(start=False)
    assert trainings.estimates("tiny") is None
    wait_until(lambda: trainings.estimates("tiny") is not None)
    expected = {"images_per_second": 40.0, "quick": 1.5, "balanced": 4.0, "thorough": 10.0}
    assert trainings.estimates("tiny") == trainings.estimates("") == expected
    wait_until((rig.data_dir / "speed.json").exists)
    hash = rig.library.get("tiny").hash
    assert json.loads((rig.data_dir / "speed.json").read_text()) == {hash: expected}
    assert rig.server(start=False, command=["false"]).estimates("tiny") == expected
    with pytest.raises(ValueError, match="There is no model"):
        trainings.estimates("lion")


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 7}', "\0"])
def test_a_damaged_speed_file_is_measured_anew(rig, content):
    rig.data_dir.mkdir()
    (rig.data_dir / "speed.json").write_text(content)
    trainings = rig.server(start=False)
    assert trainings.estimates("tiny") is None
    wait_until(lambda: trainings.estimates("tiny") is not None)


def test_what_cannot_be_measured_is_said_and_not_tried_again_and_again(rig, monkeypatch):
    monkeypatch.setenv("STAND_IN_ESTIMATE", "broken")
    trainings = rig.server(start=False)
    wait_until(lambda: trainings.estimates("tiny") == {})
    missing = rig.server(start=False, command=["/nowhere/python"])
    assert missing.estimates("tiny") is None
    assert missing.estimates("tiny") == {}


def test_a_measurement_gives_way_to_a_training_and_none_begins_beside_one(rig, monkeypatch):
    monkeypatch.setenv("STAND_IN_ESTIMATE", "slow")
    trainings = rig.server()
    assert trainings.estimates("tiny") is None
    measuring = trainings._estimates._measuring
    id = start_long(rig, trainings)
    assert measuring.wait(5) == -signal.SIGKILL
    wait_until(lambda: trainings._estimates._measuring is None)
    assert trainings.estimates("tiny") is None
    assert trainings._estimates._measuring is None
    trainings.cancel(id)
    assert trainings.estimates("tiny") is None
    assert trainings._estimates._measuring is not None
