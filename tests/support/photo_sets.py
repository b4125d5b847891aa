"""Sets of an owner's photos, and what is in them."""

from __future__ import annotations

import pytest
from drawing import write_zip

from studio.training.picture_sets import PictureSets


@pytest.fixture
def sets(tmp_path) -> PictureSets:
    return PictureSets(tmp_path / "uploads")


@pytest.fixture
def pictures(sets):
    return sets.create()


def add(pictures, files) -> None:
    for name, data in files.items():
        pictures.add(name, [data])


def reasons(pictures) -> dict[str, str]:
    return {item.name: item.reason for item in pictures.scan().left_out}


def names(pictures) -> list[str]:
    return [picture.name for picture in pictures.scan().pictures]


def zip_bytes(path, files) -> bytes:
    return write_zip(path / "some.zip", files).read_bytes()
