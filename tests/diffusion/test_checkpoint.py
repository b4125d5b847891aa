"""One file that says what it is; anything else is a sentence, and never a pickle."""

import ast
import errno
import json
import os
import resource
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import AUTOENCODER, LATENT, SMALL, latent_denoiser, small_denoiser
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

import diffusion
from diffusion import Denoiser
from diffusion.checkpoint import (
    FORMAT,
    CheckpointInfo,
    find_checkpoint,
    join_parts,
    read_checkpoint,
    read_tensors,
    shipped_checkpoints,
    split_parts,
    write_checkpoint,
    write_tensors,
)
from diffusion.config import ModelConfig, SampleConfig
from diffusion.files import atomic_path

INFO = CheckpointInfo(
    ModelConfig(**{**SMALL.to_dict(), "num_classes": 2}),
    labels=("tabby", "Чёрный кот"),
    preset="tiny",
    images_seen=1234,
    data="cats",
)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "cats.safetensors"
    write_checkpoint(path, Denoiser.from_config(INFO.model).model.state_dict(), INFO)
    return path


def rewrite(path: Path, **changes: object) -> Path:
    """The checkpoint with parts of its metadata changed; None takes a part away."""
    tensors, values = read_tensors(path)
    values = {k: v for k, v in {**values, **changes}.items() if v is not None}
    write_tensors(path, tensors, values)
    return path


def test_a_seed_chooses_a_label_as_often_as_the_data_has_it():
    counted = replace(INFO, label_counts=(300, 100))
    chosen = [counted.any_label(seed) for seed in range(1000)]
    assert 710 < chosen.count("tabby") < 790
    others = [seed for seed, label in enumerate(chosen[:20]) if label != "tabby"]
    assert others == [4, 6, 13, 15]  # the same for ever
    assert replace(INFO, label_counts=(0, 7)).any_label(2**53 - 1) == "Чёрный кот"
    assert INFO.any_label(1) == replace(INFO, label_counts=(0, 0)).any_label(1) == ""
    assert CheckpointInfo.from_dict(counted.to_dict()) == counted
    for wrong in ((1,), (1, 2, 3), (1, -1), (1, 0.5)):
        with pytest.raises(ValueError, match="label_counts must be a whole number"):
            replace(INFO, label_counts=wrong)


# -- the file ---------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_with_all_it_says(tmp_path):
    state = small_denoiser(INFO.model).model.state_dict()
    state["count"] = torch.tensor(2**40 + 1)  # a whole number stays one
    path = tmp_path / "deep" / "er" / "cats.safetensors"
    write_checkpoint(path, state, INFO)
    loaded, info = read_checkpoint(path)
    assert info == INFO
    assert set(loaded) == set(state)
    assert loaded["count"] == 2**40 + 1
    for name in set(state) - {"count"}:
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], state[name].half().float())
    with safe_open(path, "pt") as file:
        assert file.get_tensor("conv_in.weight").dtype == torch.float16


def test_a_denoiser_comes_back_and_draws_the_same(tmp_path):
    denoiser = small_denoiser(INFO.model)
    for parameter in denoiser.parameters():
        parameter.copy_(parameter.half())  # what the file can hold
    denoiser.save(tmp_path / "cats.safetensors")
    loaded = Denoiser.load(tmp_path / "cats.safetensors")
    assert loaded.info == denoiser.info
    assert not loaded.training
    x, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 2])
    assert_close(loaded(x, 0.7, labels), denoiser(x, 0.7, labels), rtol=0, atol=0)


GUIDE = ModelConfig(**{**SMALL.to_dict(), "channels": 8})


def test_a_guide_comes_back_with_its_model(tmp_path):
    denoiser = small_denoiser(INFO.model, guide=GUIDE)
    path = tmp_path / "cats.safetensors"
    denoiser.save(path)
    loaded = Denoiser.load(path)
    assert loaded.info == denoiser.info
    assert loaded.info.guide == GUIDE
    assert not loaded.guide.training
    for ours, theirs in ((loaded, denoiser), (loaded.guide, denoiser.guide)):
        weights = theirs.model.state_dict()
        assert all(torch.equal(v, weights[k].half()) for k, v in ours.model.state_dict().items())
    tensors, values = read_tensors(path)
    assert all(not parameter.requires_grad for parameter in loaded.parameters())
    for broken in (
        (tensors, {**values, "guide": None}),  # weights of a guide that nothing speaks of
        ({k: v for k, v in tensors.items() if not k.startswith("guide.")}, values),
        ({k: v for k, v in tensors.items() if k != "guide.conv_in.bias"}, values),
        (tensors, {**values, "guide": {**values["guide"], "channels": 2**40}}),
    ):
        write_tensors(path, *broken)
        with pytest.raises(ValueError, match="do not fit its own config"):
            Denoiser.load(path)
    for guide in ({"num_classes": 1}, {"image_size": 16}, {"nose": 1}, 7):
        claim = {**values["guide"], **guide} if isinstance(guide, dict) else guide
        write_tensors(path, tensors, {**values, "guide": claim})
        with pytest.raises(ValueError, match=r"guide must|no setting called|is damaged"):
            Denoiser.load(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_file_is_a_sentence(checkpoint, share):
    raw = checkpoint.read_bytes()
    checkpoint.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(ValueError, match=r"^cats\.safetensors is not a complete safetensors file"):
        Denoiser.load(checkpoint)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch unpickled",)


def test_a_pickle_is_a_sentence_and_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Bomb()}, "cats.safetensors")
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        Denoiser.load("cats.safetensors")
    assert not Path("unpickled").exists()


def test_text_folders_and_nothing_are_sentences(tmp_path):
    (tmp_path / "cats.safetensors").write_text("I am no checkpoint. " * 100)
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        read_checkpoint(tmp_path / "cats.safetensors")
    for path in (tmp_path, tmp_path / "nowhere.safetensors"):
        with pytest.raises(ValueError, match="There is no checkpoint at"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {FORMAT: "no json"}, {FORMAT: "[1, 2]"}, {FORMAT: "null"}, {FORMAT: "[" * 100_000}],
)
def test_somebody_elses_safetensors_is_a_sentence(tmp_path, metadata):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(
        ValueError, match=r"^other\.safetensors is not a checkpoint of Cat Diffusion"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": None}, "contains no config of its model"),
        ({"model": "large"}, "contains no config of its model"),
        ({"model": {**SMALL.to_dict(), "wings": 2}}, "no setting called wings"),
        ({"wings": 2}, "no setting called wings"),
        ({"labels": ["one"]}, "1 label names do not fit 2 classes"),
        ({"labels": [1, 2]}, "Labels and history must be text"),
        ({"history": [1]}, "Labels and history must be text"),
        ({"images_seen": "many"}, "images_seen must be a whole number"),
        ({"images_seen": -1}, "images_seen must be a whole number"),
        ({"model": {**SMALL.to_dict(), "sigma_data": 1e308}}, "sigma_data must be positive"),
        ({"labels": 5}, "The config in cats.safetensors is damaged"),
        ({"model": {**SMALL.to_dict(), "channels": "64"}}, "The config in .* is damaged"),
        ({"model": {**INFO.model.to_dict(), "image_size": 9}}, "image_size 9 must be"),
        ({"model": {**INFO.model.to_dict(), "image_size": 2**20}}, "image_size must be at most"),
        ({"model": {**INFO.model.to_dict(), "parameterization": "magic"}}, "'magic' must be edm"),
        ({"model": {**INFO.model.to_dict(), "channels": 32}}, "weights in .* do not fit its own"),
        ({"model": {**INFO.model.to_dict(), "channels": 16.0}}, "weights in .* do not fit its own"),
    ],
)
def test_wrong_metadata_is_a_sentence(checkpoint, changes, sentence):
    rewrite(checkpoint, **changes)
    with pytest.raises(ValueError, match=sentence):
        Denoiser.load(checkpoint)


@pytest.mark.parametrize(
    "claim",
    [
        {"channels": 2**20}, {"channels": 2**62}, {"channels": 2**80}, {"num_blocks": 10**12},
        {"augment_channels": 2**60}, {"channel_mult": [1, 10**9]}, {"image_channels": 2**60},
        {"patch_size": 8, "image_channels": 10**7, "channel_mult": [1]},
        {"fine_channels": 2**20}, {"fine_channels": 1e300},
    ],
)  # fmt: skip
def test_a_boastful_config_costs_nothing(checkpoint, claim):
    """Terabytes in its config, but not in its weights: refused before any of it is allocated."""
    rewrite(checkpoint, model={**INFO.model.to_dict(), **claim})
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ValueError, match=r"do not fit its own config|num_blocks is from"):
        Denoiser.load(checkpoint)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert time.monotonic() - start < 10


def test_weights_that_are_missing_are_a_sentence(checkpoint):
    tensors, values = read_tensors(checkpoint)
    del tensors["conv_out.weight"]
    write_tensors(checkpoint, tensors, values)
    with pytest.raises(ValueError, match="do not fit its own config"):
        Denoiser.load(checkpoint)


def test_labels_have_an_index_and_no_label_is_the_null_class():
    assert INFO.label_index("Чёрный кот") == 1
    assert INFO.label_index(None) == INFO.label_index("") == 2
    with pytest.raises(ValueError, match="does not know the label 'dog'; it knows tabby, Чёрный"):
        INFO.label_index("dog")


def test_what_a_checkpoint_says_survives_json():
    assert CheckpointInfo.from_dict(json.loads(json.dumps(INFO.to_dict()))) == INFO


def test_checkpoints_are_found_by_name_or_path(checkpoint):
    assert find_checkpoint(checkpoint) == checkpoint
    for name, path in shipped_checkpoints().items():
        assert find_checkpoint(name) == path
    with pytest.raises(ValueError, match="There is no checkpoint 'dogs'; the program comes with"):
        find_checkpoint("dogs")


def test_a_half_written_checkpoint_is_not_found(checkpoint, monkeypatch):
    monkeypatch.setattr("diffusion.checkpoint.SHIPPED", checkpoint.parent)
    with atomic_path(checkpoint):
        assert len(list(checkpoint.parent.glob("*.safetensors"))) == 2
        assert list(shipped_checkpoints()) == ["cats"]


# -- writing ----------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_no_other(checkpoint, monkeypatch):
    old = checkpoint.read_bytes()

    def half_a_file(tensors, path, metadata):
        Path(path).write_bytes(b"half a")
        raise OSError("No space left on device")

    monkeypatch.setattr("diffusion.checkpoint.save_file", half_a_file)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(checkpoint, {}, INFO)
    assert checkpoint.read_bytes() == old
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_what_safetensors_says_of_a_disk_is_an_error_as_python_says_it(checkpoint, monkeypatch):
    said = "I/O error: No space left on device (os error 28)"

    def full(tensors, path, metadata):
        raise SafetensorError(said)

    monkeypatch.setattr("diffusion.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_checkpoint(checkpoint, {}, INFO)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(checkpoint))
    said = "a header that is too large"
    with pytest.raises(SafetensorError):
        write_checkpoint(checkpoint, {}, INFO)


# -- the hub ----------------------------------------------------------------------------------


def test_save_pretrained_and_from_pretrained_need_no_network(tmp_path, monkeypatch):
    def connect(*_):
        raise AssertionError("went to the network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    denoiser = small_denoiser(INFO.model)
    denoiser.info = INFO
    denoiser.save_pretrained(tmp_path / "cats")
    assert (tmp_path / "cats" / "model.safetensors").is_file()
    loaded = Denoiser.from_pretrained(str(tmp_path / "cats"))
    assert loaded.info == INFO
    for a, b in zip(loaded.parameters(), denoiser.parameters(), strict=True):
        assert torch.equal(a, b.half().float())


def test_nothing_in_the_project_unpickles():
    """No pickle and no numpy.load, neither called nor imported; torch.load of weights only."""
    root = Path(diffusion.__file__).parent.parent
    files = [*root.glob("diffusion/**/*.py"), *root.glob("studio/**/*.py"), root / "app.py"]
    assert len(files) > 15
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        safe = [c.func for c in calls if "weights_only=True" in map(ast.unparse, c.keywords)]
        for node in nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [getattr(node, "module", None) or "", *(n.name for n in node.names)]
                unsafe = {"pickle", "dill", "joblib", "shelve", "marshal"}
                assert not unsafe & {m.split(".")[0] for m in modules}, file
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                call = f"{node.value.id}.{node.attr}"
                assert call not in ("np.load", "numpy.load", "torch.jit.load"), file
                assert call != "torch.load" or node in safe, file


# -- parts, and files of the first format ---------------------------------------------------------


def test_parts_are_told_apart_by_their_names_and_joined_again():
    state = {
        "conv_in.weight": torch.zeros(1),
        "guided.weight": torch.zeros(2),  # no part: only the beginning of a name
        "guide.conv_in.weight": torch.zeros(3),
        "codec.mean": torch.zeros(4),
    }
    parts = split_parts(state)
    assert {prefix: set(tensors) for prefix, tensors in parts.items()} == {
        "": {"conv_in.weight", "guided.weight"},
        "guide.": {"conv_in.weight"},
        "codec.": {"mean"},
    }
    joined = join_parts(parts)
    assert joined.keys() == state.keys()
    assert all(joined[name] is state[name] for name in state)
    assert split_parts({"codec.mean": torch.zeros(1)}).keys() == {"codec."}


@pytest.mark.parametrize(("size", "below"), [(8, 1.0), (64, 8.0), (128, 16.0)])
def test_a_file_of_the_first_format_is_drawn_as_it_always_was(tmp_path, size, below):
    model = ModelConfig(**{**SMALL.to_dict(), "image_size": size})
    state = small_denoiser(model).model.state_dict()
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    values = {"model": model.to_dict(), "images_seen": 5}
    path = tmp_path / "old.safetensors"
    save_file(state, path, metadata={"cat-diffusion-1": json.dumps(values)})
    denoiser = Denoiser.load(path)
    assert (denoiser.info.images_seen, denoiser.info.codec) == (5, None)
    assert denoiser.info.sampling == SampleConfig(guided_below=below)
    denoiser.save(path)  # from now on it says so itself
    values = read_tensors(path)[1]
    assert values["sampling"]["guided_below"] == below
    with safe_open(path, "pt") as file:
        assert FORMAT == "cat-diffusion-2"
        assert set(file.metadata()) == {FORMAT}  # of several, the order would be random


def test_a_model_of_latents_comes_back_and_draws_the_same(tmp_path):
    guide = ModelConfig(**{**LATENT.to_dict(), "channels": 8})
    denoiser = latent_denoiser(guide=guide)
    for tensor in denoiser.state_dict().values():
        tensor.copy_(tensor.half())  # what the file can hold
    path = tmp_path / "latent.safetensors"
    denoiser.save(path)
    loaded = Denoiser.load(path)
    assert loaded.info == denoiser.info
    assert (loaded.info.picture_size, loaded.codec.shape) == (16, (4, 4, 4))
    assert split_parts(read_checkpoint(path)[0]).keys() == {"", "guide.", "codec."}
    config = SampleConfig(num_steps=3, guidance=2.0)
    drawn = diffusion.generate(loaded, [1, 2], config)
    assert drawn.shape == (2, 3, 16, 16)
    assert torch.equal(drawn, diffusion.generate(denoiser, [1, 2], config))
    fast = diffusion.generate(Denoiser.load_for_sampling(path), [1, 2], config)
    assert (fast.float() - drawn.float()).abs().mean() < 4  # perhaps in bfloat16


@pytest.mark.parametrize(
    ("codec", "sentence"),
    [
        ({"latent_channels": 5}, "other channels"),
        ({"widths": [4] * 6, "blocks": [1] * 6, "latent_channels": 4}, "do not fit"),
        ({"widths": 4}, "damaged"),
        ({"latent_channels": None}, "whole numbers"),
        (7, "damaged"),
    ],
)
def test_what_a_stranger_claims_of_the_codec_inside_is_no_traceback(tmp_path, codec, sentence):
    latent_denoiser().save(tmp_path / "latent.safetensors")
    if isinstance(codec, dict):
        codec = {**AUTOENCODER.to_dict(), **codec}
    with pytest.raises(ValueError, match=sentence):
        Denoiser.load(rewrite(tmp_path / "latent.safetensors", codec=codec))


def test_pictures_larger_than_any_are_refused_before_they_are_drawn():
    model = ModelConfig(**{**LATENT.to_dict(), "image_size": 512})
    with pytest.raises(ValueError, match="at most 1024 pixels"):
        CheckpointInfo(model, codec=AUTOENCODER)
