"""A tiny cat model, a studio that draws with it and the real page over it, for all modules."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SMALL
from PIL import Image
from torch import Tensor

from diffusion import Denoiser, ModelConfig
from diffusion.checkpoint import CheckpointInfo, taught_data
from diffusion.sampling import draw
from studio.drawing.library import ModelLibrary
from studio.drawing.worker import Studio

TINY = dataclasses.replace(SMALL, image_size=16, num_classes=2)
LABELS = ("black", "tabby")


def save_tiny(
    path: Path,
    *,
    seed: int = 0,
    config: ModelConfig = TINY,
    labels: tuple[str, ...] = LABELS,
    counts: tuple[int, ...] = (),
    taught: bool = False,
    **info: Any,
) -> Path:
    """Write a tiny model whose pictures differ by seed and by coat; ``taught`` its newest label."""
    torch.manual_seed(seed)
    config = dataclasses.replace(config, num_classes=len(labels))
    data = taught_data(labels[-1]) if taught else ""
    told = CheckpointInfo(config, labels=labels, label_counts=counts, data=data, **info)
    denoiser = Denoiser.from_config(config, info=told)
    generator = torch.Generator().manual_seed(seed)
    for parameter in denoiser.parameters():
        if not parameter.any():  # zero-initialised: without this every network is the same
            parameter.data.normal_(0, 0.1, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    denoiser.save(path)
    return path


@dataclasses.dataclass(frozen=True)
class Page:
    """The running page of a test session."""

    url: str  # http://127.0.0.1:PORT
    studio: Studio
    blocks: Any  # the gr.Blocks


def launch_page(studio: Studio, data_dir: Path, admin: Any = None) -> Page:
    """Serve the real page on a free port, in a thread of its own; with ``admin``, its tab too."""
    from studio.page.examples import EXAMPLES, Examples
    from studio.serve import build_page, launch
    from studio.settings import Settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(port=port, data_dir=data_dir)
    examples = Examples(studio)
    wait_until(lambda: len(examples.files()) == EXAMPLES, 60)  # else they are drawn amid the tests
    blocks = build_page(studio, examples, admin)
    address = launch(blocks, settings, block=False, studio=studio, admin=admin)
    return Page(address.rstrip("/"), studio, blocks)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A folder that holds ``tiny.safetensors``."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny(folder / "tiny.safetensors")
    return folder


@pytest.fixture
def gate() -> Gate:
    """What the ``studio`` of the same test draws with."""
    return Gate()


@pytest.fixture
def studio(tiny_folder, gate) -> Studio:
    """A studio of one's own over the tiny model."""
    return Studio(ModelLibrary([tiny_folder]), draw=gate)


@pytest.fixture(scope="session")
def upload_folder(tmp_path_factory) -> Iterator[Path]:
    """Gradio's folder of uploads and results, away from the machine's own."""
    folder = tmp_path_factory.mktemp("gradio")
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["GRADIO_TEMP_DIR"]
    else:
        os.environ["GRADIO_TEMP_DIR"] = before


@pytest.fixture(scope="session")
def page_gate() -> Gate:
    """What the ``page`` draws with."""
    return Gate()


@pytest.fixture(scope="session")
def page(tiny_folder, tmp_path_factory, upload_folder, page_gate) -> Page:
    """The real page over the tiny model, once for all tests of a session."""
    from studio.serve import build_page  # noqa: F401 - imports gradio before the clock starts

    studio = Studio(ModelLibrary([tiny_folder]), draw=page_gate)
    return launch_page(studio, tmp_path_factory.mktemp("data"))


class Gate:
    """The drawing function of a studio: counts batches and steps, and holds the worker at its next
    sampler step while closed, for so many ``seconds`` at most. Its ``draw`` does the work."""

    def __init__(self) -> None:
        self.draw, self.event, self.seconds = draw, threading.Event(), 10.0
        self.count()

    def __call__(self, denoiser, start, config, *, callback, **how):
        self.batches.append(len(start))

        def gated(step):
            self.steps += 1
            self.event.wait(self.seconds)
            return callback is not None and callback(step)

        return self.draw(denoiser, start, config, callback=gated, **how)

    def count(self) -> Gate:
        """Count anew, with the gate open."""
        self.batches: list[int] = []  # pictures in each batch
        self.steps = 0
        self.event.set()
        return self

    def close(self, *, seconds: float = 10.0) -> Gate:
        """Count anew, with the gate closed until ``event`` is set; as a context it opens again."""
        self.count().seconds = seconds
        self.event.clear()
        return self

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.event.set()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once it holds; fail if it does not come to that."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def pixels(source: str | bytes | Path) -> Tensor:
    """uint8 [3, H, W] of a PNG: a path, bytes or a data URI."""
    if isinstance(source, str) and source.startswith("data:"):
        source = base64.b64decode(source.split(",", 1)[1])
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def crafted_png(width: int, height: int, *chunks: bytes, rows: int | None = None) -> bytes:
    """A black 8-bit grey PNG, cheap at any size, with ``chunks`` ahead of its pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    squeezed = zlib.compressobj(9)
    row = bytes(width + 1)
    data = b"".join(squeezed.compress(row) for _ in range(height if rows is None else rows))
    data += squeezed.flush()
    parts = [header, *chunks, png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def recipe_png(text: str, size: int = 16) -> bytes:
    """A PNG whose recipe is any text."""
    return crafted_png(size, size, png_chunk(b"tEXt", b"cat-diffusion\0" + text.encode()))
