"""Clients and browsers on the real page, and what they send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from gradio_client import Client
from PIL import Image

from studio.drawing.recipe import Recipe
from studio.page.examples import Examples
from studio.page.generate.actions import GenerateActions


@pytest.fixture(scope="module")
def client(page, tmp_path_factory) -> Client:
    folder = tmp_path_factory.mktemp("downloads")
    return Client(page.url, verbose=False, download_files=folder, analytics_enabled=False)


@pytest.fixture(scope="module")
def http(page) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{page.url}/gradio_api", timeout=30) as http:
        yield http


@pytest.fixture
def picture(tmp_path) -> Path:
    """A picture of 16x16 pixels of many colours."""
    path = tmp_path / "picture.png"
    pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    return path


@pytest.fixture
def mask(tmp_path) -> Path:
    """White where the picture is to be painted anew: the left half."""
    path, image = tmp_path / "mask.png", Image.new("L", (16, 16))
    image.paste(255, (0, 0, 8, 16))
    image.save(path)
    return path


@pytest.fixture
def goes_on(page):
    """After whatever a test did, the next honest request is served."""
    yield
    job = page.studio.draw([Recipe(steps=1)])
    assert job.error is None


@pytest.fixture
def actions(studio) -> GenerateActions:
    return GenerateActions(studio, Examples(studio))


@pytest.fixture
def visit(browser, page):
    """Opens the page; afterwards no request has left this machine and nothing has gone wrong."""
    from browsing import DRAWN, visits  # a module that is skipped where Playwright is missing

    with visits(browser, page.url) as open_page:

        def visit(path="/", **how):
            opened = open_page(path, **how)
            opened.wait_for_selector(DRAWN)
            return opened

        yield visit
