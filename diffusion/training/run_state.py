"""The state of a run: all the numbers that it takes to go on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..checkpoint import below, read_tensors, write_tensors
from .run_folder import STATE_NAME, whole_weights


def write_state(
    out: Path,
    network: nn.Module,
    averaged: nn.Module,
    optimizers: Sequence[Optimizer],
    metadata: dict[str, Any],
) -> None:
    """Write the state of the run in ``out``, atomically; ``metadata`` is JSON-ready and has the
    keys "info", "train" and "progress"."""
    tensors = {f"model.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in averaged.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{index}.{k}": v for k, v in values.items()}
    write_tensors(out / STATE_NAME, tensors, metadata)


def read_state(out: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata. Raises ValueError for a damaged state; it says what is whole beside it,
    and how to go on from there."""
    try:
        tensors, metadata = read_tensors(out / STATE_NAME)
        if not {"info", "train", "progress"} <= set(metadata):
            raise ValueError(f"{STATE_NAME} in {out} is not the state of a training run.")
    except ValueError as error:
        whole = whole_weights(out)
        way_on = "Nothing beside it is whole either; choose another --out."
        if whole:
            way_on = f"But {whole} is whole: start a new run from it with --init and another --out."
        raise ValueError(f"{error} {way_on}") from None
    return tensors, metadata


def restore_state(
    tensors: Mapping[str, Tensor],
    network: nn.Module,
    averaged: nn.Module,
    optimizers: Sequence[Optimizer],
) -> None:
    """Put the tensors of a state where they were. Raises ValueError if other weights learned."""
    network.load_state_dict(below(tensors, "model."))
    averaged.load_state_dict(below(tensors, "ema."))
    for i, optimizer in enumerate(optimizers):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in below(tensors, f"optimizer.{i}.").items():
            index, name = key.split(".")
            weight = weights[int(index)] if int(index) < len(weights) else None
            if weight is None or (tensor.ndim and tensor.shape != weight.shape):
                raise ValueError("Other weights learned in this run before. Choose another --out.")
            state.setdefault(int(index), {})[name] = _laid_out_as(weight, tensor)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def _laid_out_as(weight: Tensor, tensor: Tensor) -> Tensor:
    """A copy of an optimizer's tensor, in memory as its weight is (channels-last, mostly): a fused
    optimizer takes no other, and what was read from a file keeps that file open."""
    if tensor.shape != weight.shape:  # a count of steps
        return tensor.clone()
    return torch.empty_like(weight).copy_(tensor)
