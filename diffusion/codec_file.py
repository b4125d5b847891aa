"""A codec as a file of its own: what ``train-codec`` writes and ``grow`` puts into a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from .checkpoint import read_tensors, split_parts, write_tensors
from .codec import build_network
from .config import codec_config
from .networks.autoencoder import Autoencoder
from .networks.upscaler import Upscaler


def save_codec(network: Autoencoder | Upscaler, path: str | Path, *, images_seen: int = 0) -> None:
    """Write a codec's network in half precision, atomically."""
    state = network.state_dict()
    metadata = {"autoencoder": network.config.to_dict(), "images_seen": images_seen}
    write_tensors(path, {name: tensor.half() for name, tensor in state.items()}, metadata)


def load_codec(path: str | Path) -> Autoencoder | Upscaler:
    """The network in a codec file, or in a checkpoint that carries one. Raises ValueError."""
    tensors, metadata = read_tensors(path)
    values = metadata.get("autoencoder") or metadata.get("codec")
    if not isinstance(values, dict):
        raise ValueError(f"{Path(path).name} carries no codec.")
    if "autoencoder" not in metadata:  # a model's checkpoint: its codec is one part of it
        tensors = split_parts(tensors).get("codec.", {})
    try:
        config = codec_config(values)
        with torch.device("meta"):
            network = build_network(config)
        network.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    except (RuntimeError, TypeError, AttributeError):
        raise ValueError(f"The codec in {Path(path).name} is damaged.") from None
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def load_autoencoder(path: str | Path) -> Autoencoder:
    """As ``load_codec``, for what needs latents. Raises ValueError for an upscaler."""
    network = load_codec(path)
    if not isinstance(network, Autoencoder):
        raise ValueError(f"{Path(path).name} carries an upscaler, which has no latents.")
    return network


def load_upscaler(path: str | Path) -> Upscaler:
    """As ``load_codec``, for what enlarges pictures. Raises ValueError for an autoencoder."""
    network = load_codec(path)
    if not isinstance(network, Upscaler):
        raise ValueError(f"{Path(path).name} carries an autoencoder, not an upscaler.")
    return network


def weights_hash(network: nn.Module) -> str:
    """SHA-256 over a network's weights in half precision; that of an encoder says what latents
    belong to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
