"""Settings as frozen dataclasses.

Every config round-trips through plain JSON (``to_dict`` / ``from_dict``); an unknown key or an
impossible value raises ``ValueError`` with a sentence a person can act on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from .names import composed

C = TypeVar("C", bound="Config")
T = TypeVar("T")

# Fine-tuning: how long (images shown), and what may change with the peak learning rate it bears.
LENGTHS = {"quick": 3_000, "balanced": 8_000, "thorough": 20_000}
LAYERS = {"all": 2e-4, "deep": 3e-4, "label": 1e-2}
LEAST_KEEP, MOST_KEEP = 0.05, 0.75  # of a batch; less would want the pictures in too many copies
FINETUNE_CHECKPOINTS = 10  # in the course of it
MAX_LABEL = 40  # characters
MAX_BLOCKS = 64  # residual blocks at a level
MAX_SIZE = 1024  # pixels, width or height of a model's pictures
MAX_PICTURES = 2_000  # of one cat


def setting(default: T, told: str) -> T:
    """A field of a config with what the command line tells of it."""
    field: T = dataclasses.field(default=default, metadata={"help": told})
    return field


@dataclass(frozen=True)
class Config:
    """Base of all settings: conversion to and from plain dictionaries."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary of every field."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any]) -> C:
        """Inverse of ``to_dict``. Raises ValueError on keys that this version does not know."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{cls.__name__} has no setting called {', '.join(unknown)}.")
        lists_to_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**lists_to_tuples)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


@dataclass(frozen=True)
class ModelConfig(Config):
    """Shape of the U-Net and how its output is read (see ``Denoiser``)."""

    image_size: int = 64  # pixels, width = height
    image_channels: int = 3
    patch_size: int = 2  # the U-Net works on patch_size x patch_size pixel patches
    channels: int = 64  # feature channels at the outermost level
    channel_mult: tuple[int, ...] = (1, 2, 3)  # per level; each level halves the resolution
    num_blocks: int = 2  # residual blocks per level (and one more at the outermost, on the way up)
    attention_resolutions: tuple[int, ...] = (16, 8)  # feature resolutions with self-attention
    attention_head_channels: int = 64
    fine_channels: int = 0  # of a refinement at half the patch size; 0 is none
    num_classes: int = 0  # label classes; class index num_classes is the null class
    augment_channels: int = 0  # size of the augmentation parameters fed to the network
    dropout: float = 0.0  # probability
    parameterization: str = "edm"  # what the network predicts: edm, epsilon or velocity
    sigma_data: float = 0.5  # standard deviation of the data, in [-1, 1] units

    def __post_init__(self) -> None:
        _require(self.patch_size >= 1, "patch_size must be at least 1.")
        _require(
            len(self.channel_mult) > 0 and min(self.channel_mult) >= 1,
            "channel_mult must list at least one level, each at least 1.",
        )
        _require(self.image_channels >= 1, "image_channels must be at least 1.")
        _require(self.augment_channels >= 0, "augment_channels must not be negative.")
        _require(0 < self.sigma_data <= 100, "sigma_data must be positive, at most 100.")
        multiple = self.patch_size * 2 ** (len(self.channel_mult) - 1)
        _require(
            self.image_size >= multiple and self.image_size % multiple == 0,
            f"image_size {self.image_size} must be a multiple of {multiple} for this network.",
        )
        _require(self.image_size <= MAX_SIZE, f"image_size must be at most {MAX_SIZE}.")
        _require(
            self.channels >= 4 and self.channels % 4 == 0,
            "channels must be a positive multiple of 4.",
        )
        for width in (self.channels * mult for mult in self.channel_mult):
            _require(
                self.attention_head_channels >= 1
                and width % max(1, width // self.attention_head_channels) == 0,
                f"{width} channels cannot be split into heads of {self.attention_head_channels}.",
            )
        _require(1 <= self.num_blocks <= MAX_BLOCKS, f"num_blocks is from 1 to {MAX_BLOCKS}.")
        _require(
            self.fine_channels >= 0 and self.fine_channels % 4 == 0,
            "fine_channels must be 0 or a multiple of 4.",
        )
        _require(
            not self.fine_channels or self.patch_size % 2 == 0,
            "A refinement (fine_channels) needs an even patch_size.",
        )
        _require(0 <= self.dropout < 1, "dropout must be at least 0 and below 1.")
        _require(self.num_classes >= 0, "num_classes must not be negative.")
        _require(
            self.parameterization in ("edm", "epsilon", "velocity"),
            f"parameterization '{self.parameterization}' must be edm, epsilon or velocity.",
        )


@dataclass(frozen=True)
class AutoencoderConfig(Config):
    """Shape of the network behind a latent codec (see ``Autoencoder``)."""

    latent_channels: int = 32
    widths: tuple[int, ...] = (48, 96, 160)  # channels at 1/2, 1/4, ... of the picture's width
    blocks: tuple[int, ...] = (1, 2, 4)  # residual blocks at each of these

    def __post_init__(self) -> None:
        numbers = (self.latent_channels, *self.widths, *self.blocks)
        _require(
            all(isinstance(number, int) for number in numbers),
            "latent_channels, widths and blocks must be whole numbers.",
        )
        _require(self.latent_channels >= 1, "latent_channels must be at least 1.")
        _require(
            0 < len(self.widths) == len(self.blocks) <= 6 and min(*self.widths, *self.blocks) >= 1,
            "widths and blocks must be lists of one length, 1 to 6, each number at least 1.",
        )
        _require(max(self.blocks) <= MAX_BLOCKS, f"blocks must be at most {MAX_BLOCKS} each.")

    @property
    def downsampling(self) -> int:
        """Width of a picture over the width of its latents."""
        return 2 ** len(self.widths)


@dataclass(frozen=True)
class UpscalerConfig(Config):
    """Shape of the network that enlarges small pictures (see ``Upscaler``)."""

    factor: int = 2  # width of a picture over the width of the small one
    widths: tuple[int, int] = (48, 96)  # channels at 1/2 and at 1/4 of the picture's width
    blocks: tuple[int, int] = (2, 4)  # residual blocks at each of these

    def __post_init__(self) -> None:
        _require(self.factor in (2, 4), f"An upscaler's factor is 2 or 4, not {self.factor}.")
        numbers = (*self.widths, *self.blocks)
        _require(
            len(self.widths) == len(self.blocks) == 2
            and all(isinstance(number, int) and number >= 1 for number in numbers),
            "widths and blocks must be two whole numbers each, at least 1.",
        )
        _require(max(self.blocks) <= MAX_BLOCKS, f"blocks must be at most {MAX_BLOCKS} each.")

    @property
    def downsampling(self) -> int:
        """As ``AutoencoderConfig.downsampling``: the factor."""
        return self.factor

    @property
    def latent_channels(self) -> int:
        """Channels of what is denoised: those of a picture."""
        return 3


CodecConfig: TypeAlias = AutoencoderConfig | UpscalerConfig


def codec_config(values: dict[str, Any]) -> CodecConfig:
    """The shape of a codec's network from plain values. Raises ValueError."""
    kind = UpscalerConfig if "factor" in values else AutoencoderConfig
    return kind.from_dict(values)


@dataclass(frozen=True)
class TrainConfig(Config):
    """One training run. The budget is ``images`` or ``minutes``, whichever is set."""

    images: int | None = setting(None, "budget: training images shown")
    minutes: float | None = setting(None, "budget: minutes spent training")
    batch_size: int = setting(16, "images per optimizer step, over all processes")
    accumulate: int = setting(1, "micro-batches per optimizer step")
    optimizer: str = setting("adamw", "adamw, or muon for the inner convolutions")
    lr: float = setting(4e-4, "peak learning rate of AdamW")
    muon_lr: float = setting(2e-3, "peak learning rate of Muon")
    label_lr: float = setting(0.0, "peak learning rate of the labels' embedding; 0: as lr")
    weight_decay: float = setting(0.0, "pull of all weights towards 0")
    grad_clip: float = setting(1.0, "global gradient norm; 0 is off")
    warmup_images: int = setting(4_000, "images over which the learning rate rises")
    decay_fraction: float = setting(0.4, "share of the budget over which the rate falls to 0")
    ema_halflife_images: int = setting(10_000, "half-life of the weight average, in images")
    P_mean: float = setting(-1.2, "mean of ln(sigma) in training (EDM parameterization only)")
    P_std: float = setting(1.2, "standard deviation of ln(sigma)")
    label_dropout: float = setting(0.1, "probability of training an image as the null class")
    mirror: bool = setting(True, "show every image mirrored half of the time")
    augment: float = setting(0.0, "probability of each non-leaking augmentation")
    holdout: int = setting(300, "images kept out of training (at most a tenth of the set)")
    seed: int = setting(0, "of all that is random")
    precision: str = setting("auto", "auto (bf16 where that is faster), fp32 or bf16")
    compile: bool = setting(False, "torch.compile the network")
    save_minutes: float = setting(10.0, "minutes between checkpoints (samples, held-out loss)")
    save_images: int = setting(0, "a checkpoint after so many images as well; 0 is off")
    keep_steps: int = setting(0, "earlier checkpoints whose weights stay in steps/")
    patience: float = setting(0.0, "share of the budget with a risen held-out loss; 0: off")

    def __post_init__(self) -> None:
        _require(
            (self.images is None) != (self.minutes is None),
            "Give the training budget either in images or in minutes.",
        )
        budget = self.minutes if self.images is None else self.images
        _require(budget is not None and budget > 0, "The budget must be positive.")
        _require(self.batch_size >= 1, "batch_size must be at least 1.")
        _require(self.accumulate >= 1, "accumulate must be at least 1.")
        _require(
            self.batch_size % self.accumulate == 0,
            f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}.",
        )
        _require(self.optimizer in ("adamw", "muon"), "optimizer must be adamw or muon.")
        _require(self.lr > 0 and self.muon_lr > 0, "The learning rate must be positive.")
        _require(0 <= self.decay_fraction <= 1, "decay_fraction must be between 0 and 1.")
        for name in (
            "label_lr",
            "weight_decay",
            "grad_clip",
            "warmup_images",
            "ema_halflife_images",
            "P_std",
            "holdout",
            "save_minutes",
            "save_images",
            "keep_steps",
            "patience",
        ):
            _require(getattr(self, name) >= 0, f"{name} must not be negative.")
        for name in ("label_dropout", "augment"):
            _require(0 <= getattr(self, name) <= 1, f"{name} must be between 0 and 1.")
        _require(0 <= self.seed < 2**32, "seed must be between 0 and 2^32 - 1.")
        _require(
            self.precision in ("auto", "fp32", "bf16"), "precision must be auto, fp32 or bf16."
        )


@dataclass(frozen=True)
class FinetuneConfig(Config):
    """One fine-tuning. The budget is ``images`` or ``minutes``, whichever is set."""

    label: str  # name of the new cat
    images: int | None = None  # budget: images shown
    minutes: float | None = None  # budget: minutes spent training
    lr: float = 0.0  # peak learning rate; 0 is the one that suits ``layers``
    batch_size: int = 16
    layers: str = "all"  # what may change: all, deep (all but the outermost levels) or label
    keep: float = 0.3  # share of each batch that shows what the base model drew

    def __post_init__(self) -> None:
        _require(
            (self.images is None) != (self.minutes is None),
            "Give the training budget either in images or in minutes.",
        )
        object.__setattr__(self, "label", composed(self.label))
        label = self.label.strip()
        _require(
            label == self.label and 0 < len(label) <= MAX_LABEL and label.isprintable(),
            f"The label must be a name of 1 to {MAX_LABEL} characters.",
        )
        _require(self.layers in LAYERS, f"layers must be one of {', '.join(LAYERS)}.")
        _require(
            self.keep == 0 or LEAST_KEEP <= self.keep <= MOST_KEEP,
            f"keep must be 0, or between {LEAST_KEEP} and {MOST_KEEP}.",
        )
        _require(self.lr >= 0, "The learning rate must not be negative.")
        _require(self.lr <= 1, "The learning rate must be at most 1.")
        _require(1 <= self.batch_size <= 256, "batch_size must be between 1 and 256.")

    def training(self) -> TrainConfig:
        """The settings of the trainer. Raises ValueError for an impossible budget."""
        return TrainConfig(
            images=self.images,
            minutes=self.minutes,
            batch_size=self.batch_size,
            lr=self.lr or LAYERS[self.layers],
            # Else the new label goes along with the one that it begins as.
            label_lr=0.0 if self.layers == "label" else LAYERS["label"],
            warmup_images=20 * self.batch_size,
            decay_fraction=0.5,
            ema_halflife_images=50 * self.batch_size,
            P_mean=-0.4,  # what makes a cat that cat is under more noise than its texture
            label_dropout=0.0,  # what has no label is left to the base model's own pictures
            augment=0.0,
            save_minutes=min(1.0, self.minutes / FINETUNE_CHECKPOINTS) if self.minutes else 1.0,
            save_images=self.images // FINETUNE_CHECKPOINTS if self.images else 0,
            keep_steps=6,
            patience=0.4,
        )


@dataclass(frozen=True)
class SampleConfig(Config):
    """How an image is drawn from noise. Each checkpoint says what suits it (``info.sampling``)."""

    sampler: str = "dpmpp_2m"
    num_steps: int = 12  # sampler steps
    guidance: float = 1.7  # away from a weaker estimate (see ``Guided``); 1 is off
    guided_below: float = 8.0  # noise std above which there is no guidance
    texture_below: float = 0.3  # noise std below which only texture is left to draw ...
    texture_share: float = 0.4  # ... and the share of (guidance - 1) that it gets
    strength: float = 1.0  # how far up the grid sampling starts; 1 is at sigma_max
    sigma_min: float = 0.02  # noise std of the last step before 0; below, 8 bits show nothing
    sigma_max: float = 80.0  # noise std of the first step
    rho: float = 7.0  # warp of the sigma grid (EDM Eq. 5)

    def __post_init__(self) -> None:
        _require(
            1 <= self.num_steps <= 1000,
            f"The number of steps must be between 1 and 1000, not {self.num_steps}.",
        )
        _require(
            0 <= self.guidance <= 20, f"Guidance must be between 0 and 20, not {self.guidance}."
        )
        _require(
            0 < self.strength <= 1,
            f"Strength must be above 0 and at most 1, not {self.strength}.",
        )
        _require(
            0 < self.sigma_min < self.sigma_max < float("inf"),
            "sigma_min must be positive and below sigma_max.",
        )
        _require(0 < self.rho < float("inf"), "rho must be positive.")
        _require(
            self.guided_below >= 0 and self.texture_below >= 0 and 0 <= self.texture_share <= 1,
            "guided_below and texture_below must not be negative, texture_share between 0 and 1.",
        )

    @property
    def steps_to_take(self) -> int:
        """Steps that the sampler takes: the last part of the grid when ``strength`` is below 1."""
        return self.num_steps - int((1 - self.strength) * (self.num_steps - 1) + 0.5)
