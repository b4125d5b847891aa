"""Settings: they survive JSON, and refuse what is impossible with a sentence."""

import json

import pytest

from diffusion.config import ModelConfig, SampleConfig, TrainConfig
from diffusion.presets import PRESETS

CONFIGS = [
    ModelConfig(channel_mult=(1, 3), num_classes=2, parameterization="velocity"),
    TrainConfig(images=1000, optimizer="muon", augment=0.1),
    TrainConfig(minutes=2.5, precision="bf16"),
    SampleConfig(sampler="heun", num_steps=7, guidance=2.0),
    *(preset.model for preset in PRESETS.values()),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_survives_json(config):
    values = json.loads(json.dumps(config.to_dict()))
    assert type(config).from_dict(values) == config


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig, SampleConfig])
def test_unknown_keys_are_named(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} .*\bspeed, zeal\b.*\."):
        kind.from_dict({"zeal": 1, "speed": 2})


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        SampleConfig().num_steps = 3


NAN, INF = float("nan"), float("inf")

BAD = [
    (ModelConfig, {"fine_channels": -4}),
    (ModelConfig, {"fine_channels": 6}),
    (ModelConfig, {"fine_channels": 8, "patch_size": 1}),
    (ModelConfig, {"image_size": 60}),
    (ModelConfig, {"image_size": 0}),
    (ModelConfig, {"image_size": 4}),
    (ModelConfig, {"image_channels": 0}),
    (ModelConfig, {"patch_size": 0}),
    (ModelConfig, {"channels": 0}),
    (ModelConfig, {"channels": 30}),
    (ModelConfig, {"channel_mult": ()}),
    (ModelConfig, {"channel_mult": (1, 0)}),
    (ModelConfig, {"num_blocks": 0}),
    (ModelConfig, {"num_classes": -1}),
    (ModelConfig, {"augment_channels": -1}),
    (ModelConfig, {"dropout": 1.0}),
    (ModelConfig, {"dropout": -0.1}),
    (ModelConfig, {"parameterization": "score"}),
    (ModelConfig, {"sigma_data": 0.0}),
    (ModelConfig, {"sigma_data": -1.0}),
    # 200 // 64 is 3 heads, into which 200 channels do not divide.
    (ModelConfig, {"channels": 100, "channel_mult": (1, 2)}),
    (TrainConfig, {}),
    (TrainConfig, {"images": 10, "minutes": 1.0}),
    (TrainConfig, {"images": 0}),
    (TrainConfig, {"images": -5}),
    (TrainConfig, {"minutes": 0.0}),
    (TrainConfig, {"minutes": -1.0}),
    (TrainConfig, {"minutes": NAN}),
    (TrainConfig, {"images": 10, "batch_size": 0}),
    (TrainConfig, {"images": 10, "accumulate": 0}),
    (TrainConfig, {"images": 10, "seed": -1}),
    (TrainConfig, {"images": 10, "seed": 2**32}),
    (TrainConfig, {"images": 10, "label_lr": -1e-3}),
    (TrainConfig, {"images": 10, "batch_size": 16, "accumulate": 3}),
    (TrainConfig, {"images": 10, "optimizer": "sgd"}),
    (TrainConfig, {"images": 10, "lr": 0.0}),
    (TrainConfig, {"images": 10, "lr": NAN}),
    (TrainConfig, {"images": 10, "muon_lr": -1.0}),
    (TrainConfig, {"images": 10, "weight_decay": -0.1}),
    (TrainConfig, {"images": 10, "grad_clip": -1.0}),
    (TrainConfig, {"images": 10, "warmup_images": -1}),
    (TrainConfig, {"images": 10, "decay_fraction": 1.5}),
    (TrainConfig, {"images": 10, "decay_fraction": -0.5}),
    (TrainConfig, {"images": 10, "ema_halflife_images": -1}),
    (TrainConfig, {"images": 10, "P_std": -1.0}),
    (TrainConfig, {"images": 10, "label_dropout": 1.5}),
    (TrainConfig, {"images": 10, "augment": -0.1}),
    (TrainConfig, {"images": 10, "holdout": -1}),
    (TrainConfig, {"images": 10, "precision": "fp8"}),
    (TrainConfig, {"images": 10, "save_minutes": -1.0}),
    (SampleConfig, {"num_steps": 0}),
    (SampleConfig, {"num_steps": 1001}),
    (SampleConfig, {"guidance": -0.5}),
    (SampleConfig, {"guidance": 21.0}),
    (SampleConfig, {"guidance": NAN}),
    (SampleConfig, {"strength": 0.0}),
    (SampleConfig, {"strength": 1.1}),
    (SampleConfig, {"strength": NAN}),
    (SampleConfig, {"sigma_min": 0.0}),
    (SampleConfig, {"sigma_min": 2.0, "sigma_max": 2.0}),
    (SampleConfig, {"sigma_max": INF}),
    (SampleConfig, {"rho": 0.0}),
    (SampleConfig, {"rho": NAN}),
]


@pytest.mark.parametrize(
    ("kind", "values"), BAD, ids=[f"{k.__name__}-{v}".replace(" ", "") for k, v in BAD]
)
def test_an_impossible_value_is_refused_by_a_sentence(kind, values):
    with pytest.raises(ValueError, match=r"^\w+ .*\.$"):
        kind.from_dict(values)


def test_the_edges_of_what_is_possible_are_accepted():
    ModelConfig(image_size=8, num_blocks=1, dropout=0.0)
    TrainConfig(images=1, batch_size=1, decay_fraction=0.0, grad_clip=0.0, warmup_images=0)
    TrainConfig(minutes=0.01, decay_fraction=1.0, label_dropout=0.0, augment=1.0, holdout=0)
    SampleConfig(num_steps=1, guidance=0.0, strength=0.001)
    SampleConfig(num_steps=1000, guidance=20.0)
