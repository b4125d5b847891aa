"""The note beside a model: written whole, and never believed when it is damaged."""

from __future__ import annotations

import pytest

from studio.drawing.model_note import ModelNote, note_path, read_note, write_note


def test_a_note_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "mia.safetensors"
    assert read_note(path) == ModelNote()
    note = ModelNote("Mia „the cat“", "tiny", 12, 1e9)
    write_note(path, note)
    assert read_note(path) == note
    assert [file.name for file in tmp_path.iterdir()] == ["mia.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"title": 7}', b"\xff", b'{"photos": "many"}'])
def test_a_damaged_note_is_none(tmp_path, content):
    path = tmp_path / "mia.safetensors"
    note_path(path).write_bytes(content)
    assert read_note(path) == ModelNote()
