"""Cats to train codecs and upscalers on."""

from pathlib import Path

import pytest
from drawing import cats, write_folder

from diffusion.data.dataset import ImageSet, load_images

SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("cats"), cats(24, SIZE))


@pytest.fixture(scope="module")
def images(folder) -> ImageSet:
    return load_images(folder, image_size=SIZE, photos=False)
