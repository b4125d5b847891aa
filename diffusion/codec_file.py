"""A codec as a file of its own: what ``train-codec`` writes and ``grow`` puts into a model."""

from __future__ import annotations

from pathlib import Path

import torch

from .autoencoder import Autoencoder
from .checkpoint import read_tensors, split_parts, write_tensors
from .config import AutoencoderConfig


def save_codec(autoencoder: Autoencoder, path: str | Path, *, images_seen: int = 0) -> None:
    """Write an autoencoder in half precision, atomically."""
    state = autoencoder.state_dict()
    metadata = {"autoencoder": autoencoder.config.to_dict(), "images_seen": images_seen}
    write_tensors(path, {name: tensor.half() for name, tensor in state.items()}, metadata)


def load_codec(path: str | Path) -> Autoencoder:
    """The autoencoder in a codec file, or in a checkpoint that carries one. Raises ValueError."""
    tensors, metadata = read_tensors(path)
    values = metadata.get("autoencoder") or metadata.get("codec")
    if not isinstance(values, dict):
        raise ValueError(f"{Path(path).name} carries no codec.")
    if "autoencoder" not in metadata:  # a model's checkpoint: its codec is one part of it
        tensors = split_parts(tensors).get("codec.", {})
    try:
        config = AutoencoderConfig.from_dict(values)
        with torch.device("meta"):
            autoencoder = Autoencoder(config)
        autoencoder.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    except (RuntimeError, TypeError, AttributeError):
        raise ValueError(f"The codec in {Path(path).name} is damaged.") from None
    autoencoder.to(memory_format=torch.channels_last)
    return autoencoder.eval().requires_grad_(False)
