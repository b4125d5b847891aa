"""A codec's own file, and the codec inside a checkpoint."""

import pytest
import torch
from helpers import AUTOENCODER, latent_denoiser, small_autoencoder, small_denoiser

from diffusion import Denoiser
from diffusion.checkpoint import read_tensors, write_tensors
from diffusion.cli.main import main
from diffusion.codec_file import load_codec, save_codec


@pytest.fixture
def path(tmp_path):
    save_codec(small_autoencoder(), tmp_path / "codec.safetensors", images_seen=77)
    return tmp_path / "codec.safetensors"


def test_an_autoencoder_comes_back_in_half_precision(path):
    saved, loaded = small_autoencoder().state_dict(), load_codec(path)
    assert loaded.config == AUTOENCODER
    assert loaded.state_dict().keys() == saved.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, saved[name].half().float())
    assert read_tensors(path)[1]["images_seen"] == 77


def test_it_is_ready_to_use(path):
    loaded = load_codec(path)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 4, 4)


def test_the_codec_of_a_checkpoint_is_the_same(tmp_path, path):
    latent_denoiser().save(tmp_path / "model.safetensors")
    one, other = load_codec(path).state_dict(), load_codec(tmp_path / "model.safetensors")
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, one[name])


def test_a_model_of_pixels_carries_none(tmp_path):
    small_denoiser().save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"^model.safetensors carries no codec\.$"):
        load_codec(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["mean", "preview_weight", "encoder.conv_in.weight"])
@pytest.mark.parametrize("change", ["missing", "another shape"])
def test_a_file_without_a_tensor_or_with_another_shape_is_damaged(path, name, change):
    tensors, metadata = read_tensors(path)
    tensor = tensors.pop(name)
    if change == "another shape":
        tensors[name] = tensor[:1].clone()
    write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"^The codec in codec.safetensors is damaged\.$"):
        load_codec(path)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"widths": "abc"}, "whole numbers"),
        ({"widths": 3}, "damaged"),
        ({"latent_channels": "4"}, "whole numbers"),
        ({"widths": [1.5, 2], "blocks": [1, 1]}, "whole numbers"),
        ({"widths": [8]}, "lists of one length"),
        ({"widths": [8, 16]}, "damaged"),  # of other shapes than the tensors
        ({"speed": 1}, "speed"),
        ({"latent_channels": 10**30}, "damaged"),
        ({"latent_channels": 10**12}, "damaged"),
        ([], "carries no codec"),
        ("x", "carries no codec"),
    ],
)
def test_what_a_stranger_claims_of_a_codec_is_no_traceback(path, config, sentence):
    tensors, metadata = read_tensors(path)
    if isinstance(config, dict):
        config = {**metadata["autoencoder"], **config}
    write_tensors(path, tensors, {"autoencoder": config})
    with pytest.raises(ValueError, match=sentence):
        load_codec(path)


def test_a_file_that_is_cut_short(path):
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load_codec(path)


def test_a_codec_is_no_model(path):
    with pytest.raises(ValueError, match="no config of its model"):
        Denoiser.load(path)


@pytest.mark.parametrize("part", ["codec.", "codec.decoder."])
def test_a_checkpoint_whose_codec_is_cut_off(tmp_path, part):
    latent_denoiser().save(tmp_path / "model.safetensors")
    tensors, metadata = read_tensors(tmp_path / "model.safetensors")
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(part)}
    write_tensors(tmp_path / "cut.safetensors", rest, metadata)
    with pytest.raises(ValueError, match=r"^The weights in cut.safetensors do not fit"):
        Denoiser.load(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match=r"^The codec in cut.safetensors is damaged\.$"):
        load_codec(tmp_path / "cut.safetensors")


def test_a_model_gets_a_better_decoder(tmp_path, capsys):
    model, codec, out = (str(tmp_path / f"{name}.safetensors") for name in ("m", "codec", "out"))
    latent_denoiser().save(model)
    better = small_autoencoder()
    better.decoder.conv_in.weight.data += 1
    save_codec(better, codec)
    arguments = ["codec", "--checkpoint", model, "--codec", codec, "--out", out]
    assert main(arguments) == 0
    before, after = read_tensors(model), read_tensors(out)
    assert after[1] == before[1]
    changed = [k for k in before[0] if not torch.equal(before[0][k], after[0][k])]
    assert changed == ["codec.decoder.conv_in.weight"]
    better.encoder.conv_in.weight.data += 1
    save_codec(better, codec)
    assert main(arguments) == 1
    assert "another encoder" in capsys.readouterr().err
    small_denoiser().save(model)
    assert main(arguments) == 1
    assert "draws pictures, which no autoencoder can decode" in capsys.readouterr().err
