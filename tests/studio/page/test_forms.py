"""From what a form or a script sends to recipes: every mistake a sentence."""

from __future__ import annotations

import base64
import contextvars
import io
import os
import threading
import weakref
from collections import Counter

import pytest
import torch
from PIL import Image
from studio_fixtures import crafted_png, save_tiny

from diffusion.sampling import MAX_SEED
from studio.drawing.library import ModelLibrary
from studio.drawing.recipe import Recipe
from studio.page import forms
from studio.page.forms import (
    number,
    random_seed,
    read_count,
    read_mask_layer,
    read_morph_form,
    read_recipe_form,
    read_seeds,
    read_upload,
    text,
    whole_number,
)
from studio.safety.client import current_client

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("value", ["1", "abc", 1.5, NAN, INFINITY, None, True, [], {}, b"1"])
def test_what_is_no_whole_number(value):
    with pytest.raises(
        ValueError, match=r"^The seed (must be a whole number|is missing).*\.$"
    ) as e:
        whole_number(value, "The seed")
    assert "None" not in str(e.value)


def test_whole_numbers():
    assert [whole_number(v, "it") for v in (0, 3.0, -2, 10**30)] == [0, 3, -2, 10**30]
    assert type(whole_number(3.0, "it")) is int
    assert number(2, "it") == 2.0
    assert type(number(2, "it")) is float


@pytest.mark.parametrize("value", ["1", None, True, [], {}])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"^It (must be a number|is missing).*\.$"):
        number(value, "It")


def test_a_long_value_is_not_repeated_whole():
    with pytest.raises(ValueError, match="whole number") as caught:
        whole_number("x" * 10_000, "The seed")
    assert len(str(caught.value)) < 100
    with pytest.raises(ValueError, match="short text"):
        text("x" * 201, "The coat")


def test_the_form():
    recipe = read_recipe_form(42.0, "any", 12, "euler", 1, None)
    assert (recipe.seed, recipe.coat, recipe.sampler, recipe.model) == (42, "", "euler", "")
    assert type(recipe.seed) is int
    assert recipe.any_coat
    assert read_recipe_form(1, "", 12, "euler", 1, "").any_coat
    assert not read_recipe_form(1, "tabby", 12, "euler", 1, "").any_coat
    for values in (
        ("abc", "", 12, "euler", 1, ""), (1, 7, 12, "euler", 1, ""), (1, "", None, "euler", 1, ""),
        (1, "", 12, "nope", 1, ""), (1, "", 12, "euler", "2", ""), (1, "", 12, "euler", NAN, ""),
        (1, "", 12, "euler", 1, ["m"]), (2**64, "", 12, "euler", 1, ""),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"\.$"):
            read_recipe_form(*values)


def test_counts_and_seeds():
    assert read_count(16) == 16
    for bad in (0, 17, -1, 1.5, None, "3"):
        with pytest.raises(ValueError, match="cats"):
            read_count(bad)
    assert read_seeds("1, 2,3  4") == [1, 2, 3, 4]
    assert read_seeds([1, 2.0]) == [1, 2]
    for bad in ("1, x", "-1", "1.5", "²", "٣", "9" * 20, None, 5, ["1"], [None], {"a": 1}):
        with pytest.raises(ValueError, match="seed"):
            read_seeds(bad)
    assert all(0 <= random_seed() <= MAX_SEED for _ in range(100))


def test_an_upload_is_read(upload_folder):
    path = upload_folder / "cat.png"
    pixels = torch.randint(0, 256, (9, 7, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    read = torch.frombuffer(
        bytearray(read_upload(str(path), Image.Image.tobytes)), dtype=torch.uint8
    )
    assert torch.equal(read, pixels.flatten())


def test_only_the_upload_folder_is_read(upload_folder, tmp_path):
    outside = tmp_path / "private.png"
    outside.write_bytes(crafted_png(8, 8))
    link = upload_folder / "link.png"
    link.symlink_to(outside)
    crooked = f"{upload_folder}/../{os.path.relpath(outside, upload_folder.parent)}"
    for path in (str(outside), str(link), crooked, "/etc/passwd", str(upload_folder), "x\0y"):
        with pytest.raises(ValueError, match="must be an uploaded file"):
            read_upload(path, Image.Image.copy)
    for path in ("http://127.0.0.1/cat.png", "https://x.org/a.png", "ftp://x/a.png",
                 "file:///etc/passwd", "a" * 5000):  # fmt: skip
        with pytest.raises(ValueError, match="must be an uploaded file, not a web address"):
            read_upload(path, Image.Image.copy)
    for path in (None, "", 3, {"path": "x"}, []):
        with pytest.raises(ValueError, match="The mask is missing"):
            read_upload(path, Image.Image.copy, "The mask")


def test_a_picture_lives_no_longer_than_it_is_looked_at(upload_folder):
    path = upload_folder / "cat.png"
    path.write_bytes(crafted_png(8, 8))
    seen, size = read_upload(str(path), lambda image: (weakref.ref(image), image.size))
    assert size == (8, 8)
    assert seen() is None


def test_only_an_uploaded_layer_is_a_mask(upload_folder, tmp_path):
    inside, outside = upload_folder / "layer.png", tmp_path / "layer.png"
    for path in (inside, outside):
        layer = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
        layer.paste((255, 0, 0, 200), (0, 0, 4, 8))
        layer.save(path)
    with Image.open(io.BytesIO(base64.b64decode(read_mask_layer(str(inside), 8)))) as mask:
        assert list(mask.convert("L").crop((0, 0, 8, 1)).getdata()) == [255] * 4 + [0] * 4
    for path in (str(outside), "/etc/passwd", "http://x/a.png", "", None, 3):
        with pytest.raises(ValueError, match="Nothing is marked"):
            read_mask_layer(path, 8)


def test_broken_and_oversized_layers(upload_folder):
    path = upload_folder / "layer.png"
    for data, sentence in (
        (b"%PDF", "damaged or incomplete"),
        (crafted_png(400, 400)[:-60], "damaged or incomplete"),
        (crafted_png(4097, 8, rows=1), "larger than 4096x4096"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"^The mask .*{sentence}"):
            read_mask_layer(str(path), 8)


def test_broken_and_oversized_uploads(upload_folder):
    path = upload_folder / "upload.png"
    for data, sentence in (
        (b"", "not an image"),
        (b"%PDF", "not an image"),
        (crafted_png(400, 400)[:-60], "damaged or incomplete"),
        (crafted_png(20_000, 20_000, rows=1), "megapixels"),
        (crafted_png(12_000, 9_000, rows=1), "megapixels"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"^The picture cannot be used: .*{sentence}.*"):
            read_upload(str(path), Image.Image.copy)
    with path.open("wb") as file:
        file.truncate(21_000_000)
    with pytest.raises(ValueError, match="larger than 20 MB"):
        read_upload(str(path), Image.Image.copy)
    path.unlink()


def test_uploads_are_decoded_one_by_one(upload_folder, monkeypatch):
    path = upload_folder / "cat.png"
    path.write_bytes(crafted_png(8, 8))
    at_once, most = 0, 0
    pause = threading.Event()

    def slow(data):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        pause.wait(0.02)
        at_once -= 1

    monkeypatch.setattr(forms, "decode_image", slow)
    threads = [threading.Thread(target=read_upload, args=(str(path), bool)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_morph_of_a_million_seeds_is_refused_unread(tmp_path, monkeypatch):
    made = []
    plain, library = Recipe(), ModelLibrary([save_tiny(tmp_path / "tiny.safetensors").parent])
    monkeypatch.setattr(forms, "Recipe", lambda **values: made.append(values) or plain)
    with pytest.raises(ValueError, match="2 to 8 seeds"):
        read_morph_form([1] * 1_000_000, [""], 12, 12, "dpmpp_2m", 1.5, "", library)
    assert len(made) < 20


def test_the_seeds_of_a_morph_choose_their_coats(tmp_path):
    path = save_tiny(tmp_path / "tiny.safetensors", counts=(1, 1))
    library = ModelLibrary([path.parent])
    chosen = [library.get("tiny").info.any_label(seed) for seed in range(6)]
    assert set(chosen) == {"black", "tabby"}
    recipes = read_morph_form(list(range(6)), ["any"], 2, 12, "euler", 1, "tiny", library)
    assert [(r.coat, r.towards_coat) for r in recipes[::2]] == [
        (coat, chosen[(seed + 1) % 6]) for seed, coat in enumerate(chosen)
    ]


def test_one_client_does_not_hold_up_the_pictures_of_others(upload_folder, monkeypatch):
    path = upload_folder / "cat.png"
    Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr(forms._being_read, "taken", Counter({"greedy": forms.MAX_BEING_READ}))
    context = contextvars.copy_context()
    context.run(current_client.set, "greedy")
    with pytest.raises(ValueError, match="still being read"):
        context.run(read_upload, str(path), Image.Image.copy)
    context.run(current_client.set, "modest")
    for _ in range(forms.MAX_BEING_READ + 1):
        assert context.run(read_upload, str(path), lambda image: image.size) == (8, 8)
    assert forms._being_read.taken == {"greedy": forms.MAX_BEING_READ}
