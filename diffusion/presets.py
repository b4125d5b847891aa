"""Named starting points: a network, and the training and sampling that suit it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .config import ModelConfig, SampleConfig


@dataclass(frozen=True)
class Preset:
    """A named starting point: a network and the training settings that suit it."""

    model: ModelConfig
    train: dict[str, Any]  # TrainConfig fields without the budget
    sampling: SampleConfig = field(default_factory=SampleConfig)  # what its checkpoints recommend


LARGE = ModelConfig(channels=96, num_blocks=3, augment_channels=6, dropout=0.1)
LITE = ModelConfig(channels=64, channel_mult=(1, 2, 4), num_blocks=1, augment_channels=6)
LITE_128 = dataclasses.replace(LITE, image_size=128, patch_size=4, fine_channels=32)
SAMPLING_128 = SampleConfig(guided_below=16.0)
# Latents of 256-pixel pictures: as many positions as the U-Nets above have patches.
OF_LATENTS: dict[str, Any] = {"image_size": 32, "image_channels": 32, "patch_size": 1}
LATENT = dataclasses.replace(LITE, **OF_LATENTS)
LATENT_SAMPLING = SampleConfig(guidance=2.0, guided_below=30.0, texture_below=0.0)
LATENT_TRAINING = {
    "optimizer": "muon",
    "batch_size": 32,
    "lr": 5e-4,
    "warmup_images": 1_600,
    "P_mean": -0.4,
}
LITE_TRAINING = {"optimizer": "muon", "lr": 5e-4, "warmup_images": 1_600}

PRESETS: dict[str, Preset] = {
    # The model to ship where there is a GPU.
    "cat-64": Preset(
        LARGE,
        {
            "optimizer": "muon",
            "batch_size": 256,
            "lr": 6e-4,
            "warmup_images": 50_000,
            "augment": 0.12,
            "ema_halflife_images": 500_000,
        },
    ),
    # Trains on a CPU in hours. With so few images seen nothing is memorised, so dropout and
    # augmentation would only slow it down; its noise levels lean towards those that shape a cat.
    "cat-64-lite": Preset(
        LITE, {**LITE_TRAINING, "batch_size": 16, "decay_fraction": 0.5, "P_mean": -0.6}
    ),
    # Guides cat-64-lite (see ``Guided``): a quarter of its work, trained for less long, no labels.
    "cat-64-guide": Preset(
        dataclasses.replace(LITE, channels=32),
        {**LITE_TRAINING, "batch_size": 16, "decay_fraction": 0.3, "P_mean": -0.6},
    ),
    # What both grow into (see ``grow``): twice the size at a seventh more work, a fifth for the
    # guide. The noise that shapes a cat is stronger there.
    "cat-128-lite": Preset(
        LITE_128,
        {**LITE_TRAINING, "batch_size": 32, "decay_fraction": 0.8, "P_mean": -0.4},
        SAMPLING_128,
    ),
    "cat-128-guide": Preset(
        dataclasses.replace(LITE_128, channels=32, fine_channels=16),
        {**LITE_TRAINING, "batch_size": 16, "decay_fraction": 0.3, "P_mean": -0.4},
        SAMPLING_128,
    ),
    # What cat-64-lite, cat-64-guide and cat-64 grow into with a codec.
    "cat-256-lite": Preset(LATENT, {**LATENT_TRAINING, "decay_fraction": 0.3}, LATENT_SAMPLING),
    "cat-256-guide": Preset(
        dataclasses.replace(LATENT, channels=32),
        {**LATENT_TRAINING, "batch_size": 16, "decay_fraction": 0.3},
        LATENT_SAMPLING,
    ),
    "cat-256": Preset(
        dataclasses.replace(LARGE, **OF_LATENTS),
        {
            **LATENT_TRAINING,
            "batch_size": 256,
            "warmup_images": 50_000,
            "decay_fraction": 0.5,
            "ema_halflife_images": 250_000,
        },
        LATENT_SAMPLING,
    ),
    # The recipe this project began with (Ho et al. 2020): no patches, epsilon-prediction.
    "ddpm-2020": Preset(
        ModelConfig(
            patch_size=1,
            channels=64,
            channel_mult=(1, 2, 4, 4),
            num_blocks=1,
            attention_resolutions=(32, 16, 8),
            parameterization="epsilon",
        ),
        {"batch_size": 5, "lr": 3e-4, "warmup_images": 0, "decay_fraction": 0.0, "grad_clip": 0.0},
    ),
}


def get_preset(name: str) -> Preset:
    """The preset called ``name``. Raises ValueError that lists the names there are."""
    if name not in PRESETS:
        raise ValueError(f"There is no preset '{name}'; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


def preset_of(model: ModelConfig) -> str:
    """The name of the preset with a network of this shape, whatever its labels; "" if none has."""
    shape = dataclasses.replace(model, num_classes=0)
    return next((name for name, preset in PRESETS.items() if preset.model == shape), "")
