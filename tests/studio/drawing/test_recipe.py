"""Recipes: what they accept, how they travel, what start they build."""

from __future__ import annotations

import base64
import dataclasses
import io
from urllib.parse import parse_qsl

import numpy as np
import pytest
import torch
from PIL import Image
from studio_fixtures import TINY, crafted_png, save_tiny

from diffusion import Denoiser, SampleConfig
from diffusion.checkpoint import CheckpointInfo
from diffusion.sampling import MAX_SEED, seed_noise, slerp
from studio.drawing.library import ModelLibrary
from studio.drawing.png_metadata import encode_png, read_recipe
from studio.drawing.recipe import (
    LARGEST_PICTURE,
    MAX_EMBEDDED,
    MAX_TURNS,
    Recipe,
    build_start,
    consecutive,
    embed_mask,
    embed_picture,
    embedded_length,
    morph,
    to_query,
    variations,
)
from studio.page.forms import read_link


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ModelLibrary:
    """A model whose usual sampling is its own, and one that was taught a cat."""
    folder = tmp_path_factory.mktemp("models")
    own = SampleConfig(num_steps=7, sampler="heun", guidance=2.5)
    save_tiny(folder / "m x.safetensors", counts=(1, 1), sampling=own)
    save_tiny(folder / "mia.safetensors", labels=("black", "Mia"), taught=True)
    return ModelLibrary([folder], default="m x")


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory) -> Denoiser:
    return Denoiser.load(save_tiny(tmp_path_factory.mktemp("models") / "tiny.safetensors"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"seed": "abc"}, "'seed' of the recipe must be a int"),
        ({"seed": True}, "'seed'"),
        ({"seed": 1.5}, "'seed'"),
        ({"seed": None}, "'seed'"),
        ({"seed": [1]}, "'seed'"),
        ({"towards_seed": -1}, "seed"),
        ({"steps": 0}, "between 1 and 100"),
        ({"steps": 101}, "between 1 and 100"),
        ({"steps": 10**9}, "between 1 and 100"),
        ({"steps": 1001, "sampler": "ddpm"}, "between 1 and 1000"),
        ({"sampler": "magic"}, "no sampler 'magic'"),
        ({"sampler": ["euler"]}, "'sampler'"),
        ({"guidance": -1}, "Guidance"),
        ({"guidance": float("nan")}, "Guidance"),
        ({"guidance": float("inf")}, "Guidance"),
        ({"towards": 1.01}, "variation"),
        ({"towards": float("nan")}, "variation"),
        *(
            ({"turned": text}, "damaged")
            for text in (
                "x",
                "3",
                "null",
                "[" * 100_000,
                "[[1, 2, 3]]",
                '[[1, "", 2]]',
                '[[1, "", NaN]]',
                '[[-1, "", 0.5]]',
                '[[1, "", true]]',
                '[[1, ""]]',
                '[[1.5, "", 0.5]]',
                '[[true, "", 0.5]]',
                "{}",
                '""',
                f'[[1, "{"x" * 201}", 0.5]]',
            )
        ),
        ({"strength": 0}, "Strength"),
        ({"strength": float("nan")}, "Strength"),
        ({"coat": "x" * 201}, "name .* too long"),
        ({"model_hash": "x" * 100_000}, "name .* too long"),
        ({"picture": "A" * (MAX_EMBEDDED + 1)}, "too large"),
        ({"mask": "AAAA"}, "needs a picture"),
    ],
)
def test_impossible_values_are_refused_with_a_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        Recipe(**changes)
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 200


def test_the_limits_themselves_are_allowed():
    Recipe(seed=MAX_SEED, steps=100, guidance=10, towards=1, strength=1)
    Recipe(steps=1000, sampler="ddpm")


def test_recipes_survive_a_dictionary():
    recipe = Recipe(seed=3, coat="tabby", steps=7, guidance=2.5, towards_seed=4, towards=0.25)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert "picture" not in recipe.to_dict()
    plain = Recipe().to_dict()
    assert Recipe.from_dict(plain) == Recipe()
    assert {
        "seed",
        "steps",
        "sampler",
        "coat",
        "guidance",
        "model",
        "model_hash",
        "version",
    } == set(plain)


@pytest.mark.parametrize("values", [None, [], "seed", 3, {"seed": 1, "evil": 2}, {"seed": {}}])
def test_other_dictionaries_are_refused(values):
    with pytest.raises(ValueError, match="recipe"):
        Recipe.from_dict(values)


def test_what_can_be_drawn_together():
    base = Recipe(model="m")
    for same in ({"seed": 9}, {"coat": "tabby"}, {"towards": 0.5}, {"version": "0"}):
        assert dataclasses.replace(base, **same).batch_key == base.batch_key
    for other in ({"steps": 3}, {"sampler": "heun"}, {"guidance": 1.0}, {"model": "n"},
                  {"picture": "x"}, {"picture": "x", "strength": 0.5}):  # fmt: skip
        assert dataclasses.replace(base, **other).batch_key != base.batch_key
    painted = dataclasses.replace(base, picture="x", mask="y")
    assert painted.batch_key != dataclasses.replace(base, picture="x").batch_key
    # without a picture, strength means nothing
    assert dataclasses.replace(base, strength=0.5).batch_key == base.batch_key


def test_steps_to_take():
    assert Recipe(steps=12).steps_to_take == 12
    assert Recipe(steps=12, strength=0.5).steps_to_take == 12
    assert Recipe(steps=12, strength=0.5, picture="x").steps_to_take == 6
    assert Recipe(steps=12, strength=0.01, picture="x").steps_to_take == 1


def test_the_description_names_what_matters():
    text = Recipe(seed=42, coat="tabby", model="cats").describe()
    assert text == "seed 42 · tabby · 12 steps · cats"
    text = Recipe(seed=1, towards_seed=2, towards=0.25, guidance=3, model="cats").describe()
    assert text == "seed 1 · any coat · 25% towards seed 2 · 12 steps · cats"
    assert "12 steps · euler" in Recipe(sampler="euler").describe()
    assert "from a picture, strength 0.5" in Recipe(picture="x", strength=0.5).describe()
    assert "partly repainted" in Recipe(picture="x", mask="y").describe()


def test_the_seed_chooses_the_coat_as_often_as_the_data_has_it():
    labels = ("black", "tabby")
    info = CheckpointInfo(TINY, labels=labels, label_counts=(1, 3))
    recipes = [Recipe(seed=seed, any_coat=True).with_coat(info) for seed in range(400)]
    assert 270 < sum(recipe.coat == "tabby" for recipe in recipes) < 330
    first = recipes[0]
    assert f"any coat: {first.coat}" in first.describe()
    assert first.with_coat(dataclasses.replace(info, label_counts=(0, 1))) == first  # chosen once
    for unchanged in (Recipe(seed=1), Recipe(coat="black"), Recipe(any_coat=True, picture="x")):
        assert unchanged.with_coat(info) == unchanged
    uncounted = CheckpointInfo(TINY, labels=labels)
    assert Recipe(any_coat=True).with_coat(uncounted) == Recipe(any_coat=True)


def test_a_link_to_any_coats_says_so(library):
    info = library.get("m x").info
    unchosen = consecutive(Recipe(seed=3, any_coat=True, model="m x"), 8)
    drawn = [recipe.with_coat(info) for recipe in unchosen]
    assert len({recipe.coat for recipe in drawn}) == 2
    for recipes, expected in ((drawn, unchosen), (drawn[:1], drawn[:1])):
        query = dict(parse_qsl(to_query(recipes), keep_blank_values=True))
        assert read_link(query, library) == expected
    before = dict(parse_qsl(to_query([Recipe(seed=3, model="m x")]), keep_blank_values=True))
    assert "any_coat" not in before  # such links drew without a label
    assert read_link(before, library)[0].with_coat(info).coat == ""


def test_what_a_link_written_by_hand_leaves_out_is_as_on_the_page(library):
    own = {"steps": 7, "sampler": "heun", "guidance": 2.5}
    for query, expected in (
        ({"seed": "3"}, Recipe(seed=3, any_coat=True, **own)),
        ({"seed": "3", "coat": "any"}, Recipe(seed=3, any_coat=True, **own)),
        ({"seed": "3", "coat": "tabby"}, Recipe(seed=3, coat="tabby", **own)),
        ({"seed": "3", "guidance": "1"}, Recipe(seed=3, any_coat=True, **{**own, "guidance": 1.0})),
        ({"seed": "3", "sampler": "ddpm"},
         Recipe(seed=3, any_coat=True, **{**own, "sampler": "ddpm", "steps": 1000})),
        ({"seed": "3", "model": "mia"}, Recipe(seed=3, coat="Mia", model="mia")),
    ):  # fmt: skip
        assert read_link(query, library) == [expected]
    with pytest.raises(KeyError):
        read_link({"coat": "tabby"}, library)


def test_noise_turns_towards_another_seed_and_keeps_its_length(denoiser):
    own, other = seed_noise(denoiser, [1, 2])
    at = [build_start(denoiser, [Recipe(seed=1, towards_seed=2, towards=t)]).noise[0]
          for t in (0.0, 0.3, 1.0)]  # fmt: skip
    assert torch.equal(at[0], own)
    torch.testing.assert_close(at[2], other)
    ratio = at[1].norm() / own.norm()
    assert 0.95 < ratio < 1.05
    assert torch.dot(at[1].flatten(), own.flatten()) > torch.dot(at[1].flatten(), other.flatten())


def test_the_coat_turns_too(denoiser):
    recipe = Recipe(coat="black", towards_seed=2, towards_coat="tabby", towards=0.25)
    labels = build_start(denoiser, [recipe]).labels
    torch.testing.assert_close(labels, torch.tensor([[0.75, 0.25, 0.0]]))
    assert build_start(denoiser, [Recipe()]).labels.tolist() == [[0, 0, 1]]


def test_embedded_pictures_and_masks_come_back_exactly(denoiser):
    pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
    mask = Image.new("RGB", (16, 16))
    mask.paste("white", (0, 0, 8, 16))
    recipe = Recipe(
        picture=embed_picture(Image.fromarray(pixels.numpy()), 16), mask=embed_mask(mask, 16)
    )
    start = build_start(denoiser, [recipe, recipe])
    assert torch.equal(start.picture[1].permute(1, 2, 0), pixels)
    assert start.keep.shape == (2, 1, 16, 16)
    assert not start.keep[0, 0, :, :8].any()
    assert start.keep[0, 0, :, 8:].all()


@pytest.mark.parametrize("size", [64, 128])
def test_a_noisy_picture_fits_into_a_recipe_and_both_into_a_png(size, tmp_path):
    noise = Image.fromarray(torch.randint(0, 256, (size, size, 3), dtype=torch.uint8).numpy())
    recipe = Recipe(picture=embed_picture(noise, size), mask=embed_mask(noise, size))
    drawn = torch.zeros(3, size, size, dtype=torch.uint8)
    (tmp_path / "cat.png").write_bytes(encode_png(drawn, recipe))
    assert read_recipe(tmp_path / "cat.png") == recipe


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="Nothing is marked"):
        embed_mask(Image.new("RGB", (300, 300)), 16)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        crafted_png(16, 16)[:-30],
        crafted_png(8, 16),
        crafted_png(2000, 2000),
        crafted_png(20_000, 20_000, rows=1),
    ],
    ids=["empty", "text", "short", "other size", "4 megapixels", "400 megapixels"],
)
def test_a_damaged_or_huge_embedded_picture_is_refused_undecoded(denoiser, data, monkeypatch):
    decoded = []
    load = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, *a, **k: decoded.append(self.size) or load(self, *a)
    )
    text = base64.b64encode(data).decode()
    assert len(text) <= MAX_EMBEDDED
    with pytest.raises(ValueError, match=r"picture inside the recipe is|needs a picture"):
        build_start(denoiser, [Recipe(picture=text or "!")])
    assert all(size == (16, 16) for size in decoded)


@pytest.mark.parametrize("text", ["!!!", "é", "AAA"])
def test_text_that_is_no_base64_is_refused(denoiser, text):
    with pytest.raises(ValueError, match="damaged"):
        build_start(denoiser, [Recipe(picture=text)])


def test_variations_stay_apart_and_have_limits():
    recipe = Recipe(seed=5, coat="tabby")
    many = variations(recipe, count=3, strength=0.5, first_seed=10)
    assert [r.towards_seed for r in many] == [10, 11, 12]
    assert {r.towards_coat for r in many} == {"tabby"}
    for count, strength, first in ((0, 0.5, 0), (17, 0.5, 0), (2, 1.5, 0), (2, 0.5, MAX_SEED)):
        with pytest.raises(ValueError, match=r"\."):
            variations(recipe, count=count, strength=strength, first_seed=first)


def test_a_variation_of_a_variation_begins_where_that_one_is(denoiser):
    cat = Recipe(seed=5, coat="tabby")
    (once,) = variations(cat, count=1, strength=0.5, first_seed=10)
    (twice,) = variations(once, count=1, strength=0.25, first_seed=20)
    assert twice.turns == [(10, "tabby", 0.5), (20, "tabby", 0.25)]
    assert "50% towards seed 10 · 25% towards seed 20" in twice.describe()
    assert Recipe.from_dict(twice.to_dict()) == twice
    before, after = (build_start(denoiser, [recipe]).noise[0] for recipe in (once, twice))
    exact = slerp(before, seed_noise(denoiser, [20])[0], 0.25)
    torch.testing.assert_close(after, exact)
    (same,) = variations(once, count=1, strength=0, first_seed=20)
    assert torch.equal(build_start(denoiser, [same]).noise[0], before)
    for seed in range(MAX_TURNS - 2):
        (twice,) = variations(twice, count=1, strength=0.1, first_seed=seed)
    with pytest.raises(ValueError, match="varied 16 times"):
        variations(twice, count=1, strength=0.1, first_seed=99)


def test_a_variation_of_a_morph_keeps_the_colours_between_two_coats(denoiser):
    half = morph([Recipe(seed=1, coat="black"), Recipe(seed=2, coat="tabby")], frames=2)[1]
    (varied,) = variations(half, count=1, strength=0.2, first_seed=9)
    labels = build_start(denoiser, [varied]).labels[0]
    torch.testing.assert_close(labels, torch.tensor([0.6, 0.4, 0.0]))


def test_a_morph_loops_through_its_seeds():
    stops = [Recipe(seed=s, coat=c) for s, c in ((1, "black"), (2, "tabby"), (3, ""))]
    path = morph(stops, frames=4)
    assert len(path) == 12
    assert [(r.seed, r.towards_seed) for r in path[::4]] == [(1, 2), (2, 3), (3, 1)]
    assert [path[i].towards for i in (0, 4, 8)] == [0, 0, 0]
    turned = [r.towards for r in path[:4]]
    assert turned == sorted(turned)
    assert path[4].towards_coat == ""
    for bad, frames in ((stops[:1], 4), (stops * 3, 4), (stops, 1), (stops, 33)):
        with pytest.raises(ValueError, match="morph"):
            morph(bad, frames=frames)


def test_embedding_makes_a_square_of_the_models_size():
    wide = Image.new("RGB", (300, 100), "red")
    with Image.open(io.BytesIO(base64.b64decode(embed_picture(wide, TINY.image_size)))) as small:
        assert small.size == (16, 16)


def test_nothing_but_pixels_is_embedded():
    told = Image.new("RGB", (32, 32), "red")
    told.info["icc_profile"] = bytes(100_000)
    assert len(embed_picture(told, 16)) < 200


def test_a_link_leads_back(library):
    one = Recipe(seed=2**40, coat="a & b/ö", steps=7, sampler="euler", guidance=2.5, model="m x")
    for recipes in (
        [one],
        consecutive(one, 5),
        variations(one, count=1, strength=0.25, first_seed=3),
        variations(
            variations(one, count=1, strength=0.25, first_seed=3)[0],
            count=1, strength=0.5, first_seed=4,
        ),
    ):  # fmt: skip
        query = dict(parse_qsl(to_query(recipes), keep_blank_values=True))
        assert read_link(query, library) == list(recipes)
    # no series, so the first alone
    many = variations(one, count=3, strength=0.25, first_seed=3)
    assert read_link(dict(parse_qsl(to_query(many), True)), library) == many[:1]
    picture = embed_picture(Image.new("RGB", (4, 4)), TINY.image_size)
    assert to_query([dataclasses.replace(one, picture=picture)]) == ""


def test_noise_of_the_largest_picture_fits_and_a_larger_one_does_not():
    noise = np.random.default_rng(0).integers(0, 256, (2, 300, 300, 3), dtype=np.uint8)
    size = LARGEST_PICTURE
    assert size == 256
    picture = embed_picture(Image.fromarray(noise[0, :size, :size]), size)
    mask = embed_mask(Image.fromarray(noise[1, :size, :size]), size)
    assert 0.98 * MAX_EMBEDDED < len(picture) <= MAX_EMBEDDED
    recipe = Recipe(picture=picture, mask=mask)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="too large"):
        Recipe(picture=embed_picture(Image.fromarray(noise[0]), 300))


@pytest.mark.parametrize("size", [16, 64, 128, 256])
def test_the_length_of_noise_follows_its_size(size):
    noise = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    length = len(embed_picture(Image.fromarray(noise), size))
    assert length <= embedded_length(size) <= 1.01 * length + 700
