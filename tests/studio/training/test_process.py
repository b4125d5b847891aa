"""Processes: of the lowest priority, without our secrets, never mistaken for another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from studio_fixtures import wait_until
from training_rig import start_long

from studio.disk import try_hold
from studio.training import process


def test_a_process_has_the_lowest_priority():
    sleep = process.start_niced(["sleep", "60"], stdout=None, stderr=None)
    try:
        assert os.getpriority(os.PRIO_PROCESS, sleep.pid) == 19
        autogroup = Path(f"/proc/{sleep.pid}/autogroup")
        if autogroup.exists() and "nice" in autogroup.read_text():
            assert autogroup.read_text().endswith("nice 19\n")
    finally:
        sleep.kill()
        sleep.wait()


def test_the_process_gets_its_options_but_none_of_our_secrets(rig, monkeypatch):
    monkeypatch.setenv("ADMIN_PASSWORD", "correct horse battery")
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    trainings = rig.server()
    spec = {"label": "--out=/tmp/x", "lr": 1e-4, "batch_size": 8, "layers": "deep", "keep": 0.25}
    id = start_long(rig, trainings, **spec)
    pid = rig.record(id)["pid"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    folder = str(rig.folder(id).resolve())
    assert words[3:] == [
        "--base", f"{folder}/base/tiny.safetensors", "--data", f"{folder}/images",
        "--keep-both", "--label=--out=/tmp/x", "--images=20000", "--lr=0.0001", "--batch-size=8",
        "--layers=deep", "--keep=0.25", "--out", folder,
    ]  # fmt: skip
    assert os.getsid(pid) == pid
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"correct horse" not in environment
    assert b"hf_token" not in environment


def test_another_process_with_its_number_is_not_taken_for_it(rig):
    trainings = rig.server()
    id = start_long(rig, trainings)
    rig.crash(trainings)
    os.kill(rig.record(id)["pid"], signal.SIGKILL)
    wait_until(lambda: not rig.alive())
    with subprocess.Popen(["sleep", "9"], start_new_session=True) as stranger:
        record = rig.folder(id) / "job.json"
        record.write_text(json.dumps({**rig.record(id), "pid": stranger.pid}))
        trainings = rig.server()
        assert trainings.view(id).state == "paused"
        # Even where the lock is held, so that ours lives somewhere, the stranger is left alone.
        record.write_text(json.dumps({**rig.record(id), "state": "running"}))
        lock = try_hold(record.with_name(process.LOCK_NAME))
        for action in (trainings.pause, trainings.stop_and_keep, trainings.cancel):
            with pytest.raises(ValueError, match="cannot control"):
                action(id)
            assert rig.record(id)["wanted"] == ""
        os.close(lock)
        assert stranger.poll() is None
        stranger.kill()
