"""Checkpoints: one safetensors file that says in its own metadata what it is. Never a pickle."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import (
    MAX_SIZE,
    AutoencoderConfig,
    CodecConfig,
    Config,
    ModelConfig,
    SampleConfig,
    codec_config,
)
from .files import atomic_path
from .names import composed

WEIGHTS_NAME = "model.safetensors"
FORMAT = "cat-diffusion-2"
PARTS = ("guide.", "codec.")  # what the names of their tensors begin with
FORMATS = (FORMAT, "cat-diffusion-1")  # that can be read; 1 had no ``sampling``
HASH_LENGTH = 12  # hexadecimal digits of a file's SHA-256 that name a model's weights
SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"


@dataclass(frozen=True)
class CheckpointInfo(Config):
    """What a checkpoint says of itself, so that loading it needs no flags."""

    model: ModelConfig
    labels: tuple[str, ...] = ()  # name of each class; its index is the class label
    label_counts: tuple[int, ...] = ()  # training pictures with each label, where that is known
    preset: str = ""
    images_seen: int = 0  # training images shown, over all runs
    data: str = ""  # name of the training set
    history: tuple[str, ...] = field(default_factory=tuple)  # a line for each training run
    guide: ModelConfig | None = None  # the weaker network inside (see ``guidance.Guided``)
    codec: CodecConfig | None = None  # the network of the codec inside; None where it has none
    sampling: SampleConfig = field(default_factory=SampleConfig)  # what suits this model
    teacher: str = ""  # hash of the checkpoint whose cats a student draws in fewer steps

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (*self.labels, *self.history)):
            raise ValueError("Labels and history must be text.")
        object.__setattr__(self, "labels", tuple(map(composed, self.labels)))
        if not isinstance(self.images_seen, int) or self.images_seen < 0:
            raise ValueError("images_seen must be a whole number.")
        if len(self.labels) != self.model.num_classes:
            raise ValueError(
                f"{len(self.labels)} label names do not fit {self.model.num_classes} classes."
            )
        counts = self.label_counts
        if counts and (len(counts) != len(self.labels) or not all(_is_count(n) for n in counts)):
            raise ValueError("label_counts must be a whole number for each label.")
        if self.guide and self.guide.num_classes:
            raise ValueError("A guide must not have labels. Train it without --labels.")
        if self.guide and self._shape(self.guide) != self._shape(self.model):
            raise ValueError("A guide must draw pictures of the same size as the model.")
        if self.codec and self.codec.latent_channels != self.model.image_channels:
            raise ValueError("The codec's latents have other channels than the model denoises.")
        if self.picture_size > MAX_SIZE:
            raise ValueError(f"A model's pictures must have at most {MAX_SIZE} pixels a side.")

    @staticmethod
    def _shape(model: ModelConfig) -> tuple[int, int]:
        return model.image_channels, model.image_size

    @property
    def taught_label(self) -> str:
        """The label that fine-tuning has added; "" in a network that was not fine-tuned."""
        newest = self.labels[-1] if self.labels else ""
        return newest if newest and self.data == taught_data(newest) else ""

    @property
    def picture_size(self) -> int:
        """Width and height of the pictures, in pixels."""
        return self.model.image_size * (self.codec.downsampling if self.codec else 1)

    @property
    def in_latents(self) -> bool:
        """Whether x0 are latents, rather than pictures."""
        return isinstance(self.codec, AutoencoderConfig)

    @property
    def training_size(self) -> int:
        """Width and height of the pictures that it is trained on, in pixels: smaller than what it
        draws, where an upscaler enlarges that."""
        return self.picture_size if self.in_latents else self.model.image_size

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CheckpointInfo:
        if not isinstance(values.get("model"), dict):
            raise ValueError("The checkpoint contains no config of its model.")
        readers: dict[str, Callable[[dict[str, Any]], Config]] = {
            "model": ModelConfig.from_dict,
            "guide": ModelConfig.from_dict,
            "codec": codec_config,
            "sampling": SampleConfig.from_dict,
        }
        configs: dict[str, Any] = {
            name: reader(values[name])
            for name, reader in readers.items()
            if values.get(name) is not None
        }
        configs.setdefault("sampling", sampling_of_format_1(configs["model"]))
        return super().from_dict({**values, **configs})

    def without_guide(self) -> CheckpointInfo:
        """The same without a guide, and without the line that tells of it."""
        runs = tuple(run for run in self.history if not run.startswith("guide: "))
        return replace(self, guide=None, history=runs)

    def any_label(self, seed: int) -> str:
        """A label for a seed, each as often as in the training data; "", which is no label, where
        the checkpoint does not say how often that is."""
        total = sum(self.label_counts)
        if not total:
            return ""
        draw = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] % total
        return self.labels[int(np.searchsorted(np.cumsum(self.label_counts), draw, side="right"))]

    def require_teachable(self, label: str) -> None:
        """Raises ValueError for a label that it has, and for a student, which can learn from its
        teacher alone."""
        if self.teacher:
            raise ValueError("This model is a student. Fine-tune its teacher instead.")
        if composed(label) in self.labels:
            raise ValueError(f"The model already has a label '{label}'. Choose another.")

    def label_index(self, label: str | None) -> int:
        """Class label of a label's name; None or "" is the null class. Raises ValueError."""
        if not label:
            return self.model.num_classes
        label = composed(label)
        if label not in self.labels:
            known = ", ".join(self.labels) or "no labels"
            raise ValueError(f"This model does not know the label '{label}'; it knows {known}.")
        return self.labels.index(label)


def _is_count(number: object) -> bool:
    return isinstance(number, int) and number >= 0


def sampling_of_format_1(model: ModelConfig) -> SampleConfig:
    """How models were drawn before their checkpoints said so: above 8 at 64 pixels guidance takes
    its time and betters nothing, and shapes of twice the width bear twice the noise."""
    return SampleConfig(guided_below=model.image_size / 8)


def split_parts(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint by part; "" is the network itself."""
    parts = {prefix: below(state, prefix) for prefix in PARTS}
    parts[""] = {k: v for k, v in state.items() if not k.startswith(PARTS)}
    return {prefix: tensors for prefix, tensors in parts.items() if tensors}


def join_parts(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Inverse of ``split_parts``."""
    return {prefix + k: v for prefix, tensors in parts.items() for k, v in tensors.items()}


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, Any]
) -> None:
    """Atomically write tensors with JSON ``metadata`` to a safetensors file: the same ones give the
    same bytes. Raises OSError."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry: safetensors writes several in a random order.
    entry = {FORMAT: json.dumps(metadata)}
    with atomic_path(path) as temporary, _disk_errors(path):
        save_file(contiguous, temporary, metadata=entry)


@contextmanager
def _disk_errors(path: str | Path) -> Iterator[None]:
    """Within the block, what safetensors says of a disk is said as Python says it."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inverse of ``write_tensors``. Raises ValueError with a plain sentence for any other file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no checkpoint at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            known = file.metadata() or {}
            metadata = next((known[name] for name in FORMATS if name in known), None)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        raise ValueError(
            f"{path.name} is not a complete safetensors file (cut short, or another format)."
        ) from None
    try:
        values = json.loads(metadata or "")
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(
            f"{path.name} is not a checkpoint of Cat Diffusion: it has no metadata of ours."
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{path.name} is not a checkpoint of Cat Diffusion: it has no metadata of ours."
        )
    return tensors, values


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def write_checkpoint(path: str | Path, state: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    """Write a network's weights in half precision with ``info`` in the metadata, atomically."""
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    write_tensors(path, half, info.to_dict())


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], CheckpointInfo]:
    """Weights (as float32) and info of a checkpoint. Raises ValueError for anything else."""
    tensors, values = read_tensors(path)
    try:
        info = CheckpointInfo.from_dict(values)
    except (TypeError, AttributeError):
        raise ValueError(f"The config in {Path(path).name} is damaged.") from None
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, info


def taught_data(label: str) -> str:
    """What a fine-tuned network says of its data."""
    return f"pictures of {label}"


def checkpoints_in(folder: Path) -> dict[str, Path]:
    """Name to path of a folder's checkpoints, without what ``atomic_path`` is still writing."""
    files = sorted(folder.glob("*.safetensors"))
    return {path.stem: path for path in files if not path.name.startswith(".")}


def shipped_checkpoints() -> dict[str, Path]:
    """Name to path of the checkpoints that come with the repository."""
    return checkpoints_in(SHIPPED)


def find_checkpoint(name_or_path: str | Path) -> Path:
    """Path of a shipped checkpoint by name, or of a file. Raises ValueError listing the names."""
    shipped = shipped_checkpoints()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = ", ".join(shipped) or "none"
    raise ValueError(f"There is no checkpoint '{name_or_path}'; the program comes with {names}.")
