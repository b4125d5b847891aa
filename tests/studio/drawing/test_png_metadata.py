"""The recipe inside a PNG: there and back, and whatever a stranger may have put in its place."""

from __future__ import annotations

import json
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from studio_fixtures import crafted_png, pixels, png_chunk, recipe_png

from diffusion.sampling import MAX_SEED
from studio.drawing.png_metadata import MAX_UPLOAD_BYTES, encode_png, read_recipe
from studio.drawing.recipe import MAX_NAME, MAX_TURNS, Recipe, embed_mask, embed_picture
from studio.safety.guard import MAX_CALL_BYTES

RECIPE = Recipe(seed=42, coat="tabby", steps=7, model="tiny", model_hash="abc")


@pytest.mark.parametrize("scale", [1, 4, 8])
def test_a_recipe_and_its_pixels_come_back(tmp_path, scale):
    picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    path = tmp_path / "cat.png"
    path.write_bytes(encode_png(picture, RECIPE, scale=scale))
    assert read_recipe(path) == RECIPE
    assert pixels(path).shape == (3, 16 * scale, 16 * scale)
    assert torch.equal(pixels(path)[:, ::scale, ::scale], picture)


DEEP = "[" * 40_000 + "]" * 40_000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no recipe"),
        ("{", "damaged"),
        ("\x00\x01", "damaged"),
        (DEEP, "damaged"),
        ('{"seed": ' + "9" * 5000 + "}", "damaged"),
        ('{"seed": ' + "9" * 3000 + "}", "seed"),
        ("[]", "must be a JSON object"),
        ("3", "must be a JSON object"),
        ('"text"', "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"seed": 1, "hack": true}', "does not know"),
        ('{"seed": "1"}', "'seed'"),
        ('{"seed": null}', "'seed'"),
        ('{"seed": -1}', "seed"),
        ('{"seed": 1e3}', "'seed'"),
        ('{"guidance": NaN}', "Guidance"),
        ('{"guidance": Infinity}', "Guidance"),
        ('{"steps": 1000000000}', "Steps"),
        ('{"model": {"path": "/etc/passwd"}}', "'model'"),
        ('{"sampler": []}', "'sampler'"),
        (json.dumps({"coat": "x" * 150_000}), "too long"),
        (json.dumps({"coat": "x" * 50_000}), "too long"),
        ("x" * 10_000_000, "too long"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_foreign_text_is_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "cat.png"
    path.write_bytes(recipe_png(text))
    with pytest.raises(ValueError, match=sentence) as caught:
        read_recipe(path)
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 300


def test_a_text_that_unpacks_to_much_is_refused(tmp_path):
    path = tmp_path / "cat.png"
    squeezed = zlib.compress(b"x" * 50_000_000)
    path.write_bytes(crafted_png(16, 16, png_chunk(b"zTXt", b"cat-diffusion\0\0" + squeezed)))
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"no recipe|too long"):
        read_recipe(path)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(100),
        b"\x89PNG\r\n\x1a\n",
        crafted_png(16, 16),
        crafted_png(16, 16)[:40],
        crafted_png(20_000, 20_000, rows=1),
    ],
    ids=["empty", "gif", "head only", "no text", "cut", "400 megapixels"],
)
def test_other_files_carry_no_recipe(tmp_path, data):
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="no recipe"):
        read_recipe(path)


def test_missing_and_oversized_files(tmp_path):
    with pytest.raises(ValueError, match="no recipe"):
        read_recipe(tmp_path / "nothing.png")
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.write(encode_png(torch.zeros(3, 8, 8, dtype=torch.uint8), RECIPE))
        file.truncate(30_000_000)
    with pytest.raises(ValueError, match="no recipe"):
        read_recipe(path)


def test_nothing_is_decoded_for_a_recipe(tmp_path, monkeypatch):
    path = tmp_path / "cat.png"
    path.write_bytes(encode_png(torch.zeros(3, 8, 8, dtype=torch.uint8), RECIPE))
    monkeypatch.setattr(Image, "open", lambda *args, **how: pytest.fail("This decodes it."))
    assert read_recipe(path) == RECIPE


def longest_recipe() -> Recipe:
    """Noise of the largest picture, painted over with noise, and varied as often as can be."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    picture, painted = map(Image.fromarray, noise)
    name = "ж" * MAX_NAME
    turns = [[MAX_SEED, name, 0.123456789012345]] * (MAX_TURNS - 1)
    return Recipe(
        picture=embed_picture(picture, 256), mask=embed_mask(painted, 256),
        turned=json.dumps(turns), coat=name, towards_coat=name, model=name, towards=0.5,
    )  # fmt: skip


def test_the_longest_recipe_fits_into_a_png_and_a_call(tmp_path):
    recipe = longest_recipe()
    path = tmp_path / "cat.png"
    picture = torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8)
    path.write_bytes(encode_png(picture, recipe, scale=4))
    assert path.stat().st_size < MAX_UPLOAD_BYTES
    assert read_recipe(path) == recipe
    assert torch.equal(pixels(path)[:, ::4, ::4], picture)
    call = {"data": [recipe.to_dict(), 0.25, 1], "fn_index": 12, "session_hash": "x" * 12}
    assert len(json.dumps(call)) <= MAX_CALL_BYTES
