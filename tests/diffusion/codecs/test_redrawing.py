"""Pictures that a model draws again: what of them stays, and that no work is done twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from drawing import cats, write_folder
from helpers import SMALL, small_denoiser

from diffusion.codec import to_uint8
from diffusion.codecs import redrawing
from diffusion.codecs.redrawing import redraw
from diffusion.data.dataset import ImageSet, load_images
from diffusion.sampling import draw, from_seeds
from diffusion.training import kept


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    return load_images(
        write_folder(tmp_path_factory.mktemp("cats"), cats(10, 16)), image_size=16, photos=False
    )


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(kept, "PER_FILE", 4)
    monkeypatch.setattr(redrawing, "DRAW_BATCH", 2)


def test_each_is_drawn_from_its_small_picture_and_its_label(images, tmp_path):
    model = small_denoiser(replace(SMALL, num_classes=2))
    images = replace(images, classes=torch.tensor([1, -1] * 5))
    x0 = redraw(model, images, tmp_path, model_hash="a")
    assert (x0.shape, x0.dtype) == ((10, 3, 8, 8), torch.float16)
    small = F.avg_pool2d(images.pixels.float(), 2).round().to(torch.uint8)
    start = replace(from_seeds(model, [3_000_006, 3_000_007], [1, 2]), picture=small[6:8])
    config = replace(model.info.sampling, strength=redrawing.STRENGTHS[1])  # second batch of a file
    drawn = draw(model, start, config)
    assert (to_uint8(x0[6:8]).int() - drawn.int()).abs().max() <= 1


def test_what_is_there_already_is_not_drawn_again(images, tmp_path, monkeypatch):
    model = small_denoiser()
    first = redraw(model, images, tmp_path, model_hash="a")
    (tmp_path / "0000004.safetensors").unlink()
    drawn, original = [], redrawing.draw_x0
    monkeypatch.setattr(
        redrawing, "draw_x0", lambda m, s, c: drawn.append(len(s)) or original(m, s, c)
    )
    assert torch.equal(redraw(model, images, tmp_path, model_hash="a"), first)
    assert sum(drawn) == 4
    relabelled = replace(images, classes=torch.tensor([0] * 10))
    cropped = replace(images, digests=tuple(digest[::-1] for digest in images.digests))
    others = [{"images": other} for other in (images.subset(range(9, -1, -1)), relabelled, cropped)]
    for other in ({"model_hash": "b"}, *others):
        asked = {"images": images, "model_hash": "a", **other}
        with pytest.raises(ValueError, match="of another model, or of other pictures"):
            redraw(model, asked["images"], tmp_path, model_hash=asked["model_hash"])
