"""Presets: their settings are valid, and those of latents fit the codec."""

import pytest

from diffusion.config import AutoencoderConfig, TrainConfig
from diffusion.presets import PRESETS, get_preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_valid_training_settings(name):
    preset = get_preset(name)
    assert TrainConfig(images=1000, **preset.train).images == 1000
    # Augmentation needs a network that is told of it.
    assert not preset.train.get("augment") or preset.model.augment_channels == 6


def test_an_unknown_preset_is_refused_by_a_sentence_that_lists_them():
    with pytest.raises(ValueError, match=r"no preset 'dog-64'.*cat-64-lite.*\."):
        get_preset("dog-64")


@pytest.mark.parametrize("name", ["cat-256-lite", "cat-256-guide", "cat-256"])
def test_presets_of_256_pixels_fit_the_default_codec(name):
    preset, codec = get_preset(name), AutoencoderConfig()
    assert preset.model.image_size * codec.downsampling == 256
    assert preset.model.image_channels == codec.latent_channels
    # As many positions as cat-64-lite has patches, so that it can begin with its weights.
    small = get_preset("cat-64-lite").model
    assert preset.model.image_size == small.image_size // small.patch_size
    assert (preset.model.patch_size, preset.model.fine_channels) == (1, 0)
