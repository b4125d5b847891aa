"""Files that are whole or not there, and what a killed process leaves behind."""

import os
import time

import pytest
import torch
from helpers import SMALL

from diffusion.checkpoint import CheckpointInfo, write_checkpoint
from diffusion.files import atomic_path, clear_temporary


def test_atomic_path_keeps_the_ending_and_writes_beside(tmp_path):
    path = tmp_path / "new" / "picture.png"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["picture.png"]


def test_files_get_the_permissions_of_the_user(tmp_path):
    old = os.umask(0o022)
    try:
        write_checkpoint(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, CheckpointInfo(SMALL))
    finally:
        os.umask(old)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o644


def test_what_a_killed_process_was_writing_is_cleared_and_nothing_else(tmp_path):
    (tmp_path / "steps").mkdir()
    gone = [".state-0123456789abcdef.safetensors", ".progress-0123456789abcdef.json", ".tmpAb3xY9"]
    kept = ["state.safetensors", ".gitignore", ".tmp", ".state-0123.safetensors", ".tmp-of-mine"]
    for name in (*gone, *kept):
        (tmp_path / "steps" / name).touch()
        (tmp_path / name).touch()
    clear_temporary(tmp_path)  # another process may be about to rename it
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2 * len(gone + kept)
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, time.time() - 61))
    clear_temporary(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2 * len(kept)
