"""The folder for what is temporary: what goes there, and when it goes away."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from gradio.utils import get_upload_folder
from studio_fixtures import wait_until

from studio import disk
from studio.safety import temporary
from studio.safety.budget import NEARLY_FULL, UploadBudget
from studio.safety.temporary import FRESH_SECONDS, MAX_AGE, TemporaryFolder

HOUR = 3600.0


@pytest.fixture
def here(tmp_path):
    before = tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR")
    folder = TemporaryFolder(tmp_path, max_bytes=1000)
    folder.open()
    yield folder
    folder.close()
    assert (tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR")) == before


def write(folder: Path, name: str, size: int = 100, age: float = 0.0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_all_that_is_temporary_goes_there(here):
    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == here.folder
    assert Path(get_upload_folder()).parent == here.folder


def test_a_chore_that_fails_once_is_done_again(here, monkeypatch, capsys):
    monkeypatch.setattr(temporary, "SWEEP_SECONDS", 0.01)
    first, second = Mock(side_effect=[KeyError("gone meanwhile"), *[None] * 10_000]), Mock()
    here.keep_swept(first, second)
    wait_until(lambda: first.call_count > 1 and second.call_count > 1)
    assert "gone meanwhile" in capsys.readouterr().err


def test_what_is_old_goes_whoever_wrote_it(here):
    old = [
        write(here.folder, "tmpbroken_off", age=MAX_AGE + 60),
        write(here.folder, "gradio/abc/cat.png", age=MAX_AGE + 60),
        write(here.folder, "gradio/tmpx", age=MAX_AGE + 60),
    ]
    young = [write(here.folder, "tmpy", age=HOUR), write(here.folder, "gradio/d/e.png", age=HOUR)]
    here.sweep()
    assert not [path for path in old if path.exists()]
    assert all(path.exists() for path in young)
    assert not old[1].parent.exists()
    assert (here.folder / "gradio").is_dir()
    assert here.num_bytes == 200
    assert disk.is_held(here.folder / "lock") or not disk.CAN_LOCK


def test_of_what_is_too_much_the_oldest_goes(here):
    files = [write(here.folder, f"gradio/{i}/x", 300, age=HOUR - i) for i in range(6)]
    write(here.folder, "tmpnew", 500)
    here.sweep()
    assert [path.exists() for path in files] == [False] * 5 + [True]
    assert here.num_bytes == 800
    write(here.folder, "tmpnewer", 900, age=FRESH_SECONDS / 2)
    here.sweep()
    assert (here.folder / "tmpnewer").exists()  # it may just be arriving
    assert (here.folder / "tmpnew").exists()


def test_the_budget_of_uploads_counts_what_lies_there(here):
    uploads = UploadBudget()
    assert uploads.charge("a", 400) is None
    assert uploads.charge("a", 400) is None
    write(here.folder, "tmpa", 400)
    write(here.folder, "tmpb", 400)
    assert uploads.charge("a", 400) == NEARLY_FULL  # what others sent counts as well
    (here.folder / "tmpa").unlink()
    assert uploads.charge("a", 400) is None


def test_at_the_end_all_goes(tmp_path):
    folder = TemporaryFolder(tmp_path)
    folder.open()
    write(folder.folder, "gradio/a/b", 10)
    write(folder.folder, "tmp", 10)
    folder.close()
    assert not list((tmp_path / temporary.NAME).iterdir())


@pytest.mark.skipif(not disk.CAN_LOCK, reason="no locks here")
def test_at_the_start_goes_what_a_crash_left_but_nothing_of_a_program_that_runs(here, tmp_path):
    left = write(tmp_path, "temporary/page-crashed/gradio/x/cat.png")
    write(tmp_path, "temporary/page-crashed/lock", 0)
    mine = write(here.folder, "tmp")
    second = TemporaryFolder(tmp_path)
    try:
        assert not left.parent.exists()
        assert mine.exists()
        assert second.folder != here.folder
    finally:
        os.close(second._lock)
