"""The mean of several checkpoints of one run, which is better than any of them.

"Averaging weights leads to wider optima" (Izmailov et al. 2018). It reaches further back than the
average that training keeps, costs nothing, and guidance, which makes much of a network's small
mistakes, shows the difference (Karras et al. 2024, "Analyzing and improving the training dynamics
of diffusion models", Sec. 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .checkpoint import CheckpointInfo


def average(
    checkpoints: Sequence[tuple[Mapping[str, Tensor], CheckpointInfo]],
) -> tuple[dict[str, Tensor], CheckpointInfo]:
    """Mean weights (in the type of the first), and what the last says of itself.

    Raises ValueError for fewer than two checkpoints, or for networks of different shapes or labels.
    """
    if len(checkpoints) < 2:
        raise ValueError("An average needs at least two checkpoints.")
    states, infos = zip(*checkpoints, strict=True)
    if len({(info.model, info.labels, info.guide) for info in infos}) > 1:
        raise ValueError(
            "Only checkpoints with the same network and the same labels can be averaged."
        )
    if len({tuple((name, *state[name].shape) for name in sorted(state)) for state in states}) > 1:
        raise ValueError("The weights of these checkpoints have different names or shapes.")
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }
    line = f"average of {len(states)} checkpoints"
    return mean, replace(infos[-1], history=(*infos[-1].history, line))
