"""Work that several processes share has the results of one process, which are written once."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
from shared_work import prepare
from tqdm import tqdm
from training_runs import command

from diffusion.processes import shared_out

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def test_one_process_does_all_in_order():
    with tqdm(total=6, disable=True) as bar:
        assert shared_out(["a", "bb", "ccc"], str.upper, bar, len) == ["A", "BB", "CCC"]
        assert shared_out([], str.upper, bar, len) == []


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.safetensors"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
def test_two_processes_share_the_work_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    prepare(tmp_path)
    reports, done = {}, {}
    for name, launcher in (("one", []), ("two", LAUNCHER)):
        out = tmp_path / name
        out.mkdir()
        script = {"launcher": [sys.executable, *launcher], "script": "shared_work.py"}
        process = command(str(out), **script)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        for bar in ("drawing", "encoding", "redrawing", "the teacher draws"):
            assert len(re.findall(rf"\b{bar}:   0%", errors)) == 1  # of one process
        assert errors.count("60 pictures, 0 left out") == 1
        reports[name] = json.loads((out / "report.json").read_text())
        done[name] = [json.loads(path.read_text()) for path in sorted(out.glob("done-*.json"))]
    assert hashes(tmp_path / "two") == hashes(tmp_path / "one")
    assert len(hashes(tmp_path / "one")) == 1 + 3 + 4
    for report in reports.values():
        del report["seconds"]
    assert reports["two"] == reports["one"]
    alone, shared = done["one"][0], done["two"]
    assert alone == {
        "drawn": [16, 16, 16, 16, 8], "encoded": [8, 8] * 7 + [4, 4], "redrawn": [16, 16, 16, 12],
        "states": [8, 4, 8, 4], "all": [2, 20, 3, 8, 8],
    }  # fmt: skip
    assert [it["drawn"] for it in shared] == [[16, 16, 8], [16, 16]]
    assert [it["encoded"] for it in shared] == [[8, 8] * 4, [8, 8] * 3 + [4, 4]]
    assert [it["redrawn"] for it in shared] == [[16, 16], [16, 12]]
    assert [it["states"] for it in shared] == [[8, 8], [4, 4]]
    assert [it["all"] for it in shared] == [alone["all"]] * 2
