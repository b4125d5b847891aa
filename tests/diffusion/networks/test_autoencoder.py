"""The network behind a codec: shapes, what it begins as, and its linear preview."""

import pytest
import torch
import torch.nn.functional as F
from helpers import AUTOENCODER, small_autoencoder
from torch.testing import assert_close

from diffusion.config import AutoencoderConfig
from diffusion.networks.autoencoder import Autoencoder, ConvBlock


@pytest.mark.parametrize(
    ("widths", "factor"), [((4,), 2), ((4, 8), 4), ((4, 6, 8), 8)], ids=["2", "4", "8"]
)
def test_pictures_become_latents_of_a_fraction_of_the_size_and_come_back(widths, factor):
    config = AutoencoderConfig(latent_channels=5, widths=widths, blocks=(1,) * len(widths))
    autoencoder = Autoencoder(config)
    assert config.downsampling == factor
    latents = autoencoder.encode(torch.randn(2, 3, 24, 16))
    assert latents.shape == (2, 5, 24 // factor, 16 // factor)
    assert autoencoder.decode(latents).shape == (2, 3, 24, 16)
    assert autoencoder.preview(latents).shape == latents[:, :3].shape


def test_each_level_has_its_own_blocks():
    config = AutoencoderConfig(latent_channels=4, widths=(4, 8, 12), blocks=(1, 2, 3))
    autoencoder = Autoencoder(config)
    for half in (autoencoder.encoder, autoencoder.decoder):
        widths = [m.conv_in.in_channels for m in half.modules() if isinstance(m, ConvBlock)]
        assert sorted(widths) == [4, 8, 8, 12, 12, 12]


def test_a_block_begins_as_the_identity():
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(ConvBlock(8)(x), x)


def test_a_position_depends_on_its_neighbourhood_alone():
    """Fully convolutional: a picture moved by one latent gives latents moved by one."""
    autoencoder = small_autoencoder()
    picture = torch.randn(1, 3, 96, 96)
    latents = autoencoder.encode(picture)
    moved = autoencoder.encode(picture.roll(4, 3))
    assert_close(moved[..., 11:-10, 11:-10], latents[..., 11:-10, 10:-11], rtol=1e-4, atol=1e-4)


def test_the_preview_is_the_best_linear_map_to_colours():
    autoencoder = small_autoencoder()
    latents = torch.randn(3, 4, 6, 6)
    weight, bias = torch.randn(3, 4), torch.randn(3)
    colours = F.conv2d(latents, weight[:, :, None, None], bias)
    pictures = F.interpolate(colours, scale_factor=AUTOENCODER.downsampling)
    autoencoder.fit_preview_(latents, pictures)
    assert_close(autoencoder.preview_weight, weight, rtol=1e-4, atol=1e-4)
    assert_close(autoencoder.preview_bias, bias, rtol=1e-4, atol=1e-4)
    assert_close(autoencoder.preview(latents), colours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_channels": 0},
        {"widths": (), "blocks": ()},
        {"widths": (4, 8), "blocks": (1,)},
        {"widths": (4, 0), "blocks": (1, 1)},
        {"widths": (4,) * 7, "blocks": (1,) * 7},
        {"widths": (4, 8), "blocks": (1, 65)},
    ],
)
def test_an_impossible_shape_is_refused(changes):
    with pytest.raises(ValueError, match=r"(latent_channels|widths|blocks) .*\.$"):
        AutoencoderConfig(**changes)
