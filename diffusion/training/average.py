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

from ..checkpoint import CheckpointInfo, below


def average(
    checkpoints: Sequence[tuple[Mapping[str, Tensor], CheckpointInfo]],
    *,
    weights: Sequence[float] | None = None,
) -> tuple[dict[str, Tensor], CheckpointInfo]:
    """Mean weights (in the type of the first), and what the last says of itself.

    ``weights`` say how much each counts; without them, all count the same. Raises ValueError for
    fewer than two checkpoints, for networks of different shapes, labels, steps or latents, and for
    weights that are not one positive number each.
    """
    if len(checkpoints) < 2:
        raise ValueError("An average needs at least two checkpoints.")
    share = torch.tensor(weights or [1.0] * len(checkpoints), dtype=torch.float64)
    if len(share) != len(checkpoints) or not ((share > 0) & share.isfinite()).all():
        raise ValueError("Give each checkpoint one weight, a number above 0.")
    share /= share.sum()
    states, infos = zip(*checkpoints, strict=True)
    if len({(info.model, info.labels, info.guide, info.codec) for info in infos}) > 1:
        raise ValueError(
            "Only checkpoints with the same network and the same labels can be averaged."
        )
    if len({info.sampling if info.teacher else None for info in infos}) > 1:
        raise ValueError("Students can be averaged only with students of the same steps.")
    if len({tuple((name, *state[name].shape) for name in sorted(state)) for state in states}) > 1:
        raise ValueError("The weights of these checkpoints have different names or shapes.")
    encoders = [below(state, "codec.encoder.") for state in states]
    if any(not torch.equal(own[name], encoders[0][name]) for own in encoders for name in own):
        raise ValueError("These models know the latents of different encoders.")
    mean = {
        name: torch.tensordot(
            share, torch.stack([state[name].double() for state in states]), dims=1
        ).to(first.dtype)
        for name, first in states[0].items()
    }
    line = f"average of {len(states)} checkpoints"
    if weights:
        line += f" ({' to '.join(f'{part:.2g}' for part in share.tolist())})"
    return mean, replace(infos[-1], history=(*infos[-1].history, line))
