"""A folder of cats to read."""

import pytest
from drawing import cats, write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "cats", cats(12))
