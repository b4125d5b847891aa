"""Few steps: a multistep solver whose weights were fitted to what many steps draw.

Between two noise levels the solution is a sum over the estimates of x0 on the way. Solvers derive
the weights from polynomials, which are good for small steps only. Here, for a fixed grid of few
levels, they are those with which a model's own states come nearest to the states of a finer grid:
a non-stationary solver (Shaul et al. 2024, "Bespoke non-stationary solvers for fast sampling"), but
fitted one step after the other, which makes each a linear least squares problem: seconds in place
of a training. What ``fitted.json`` holds was fitted to one model, and serves the others as well.

Each step is exact where the estimate of x0 does not change, as it does not for a known picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

TABLE = Path(__file__).with_name("fitted.json")
FEWEST, MOST = 4, 8  # steps that it has weights for


@dataclass(frozen=True)
class Fitted:
    """``sigmas``: N + 1 falling noise levels, the last 0. ``weights``: of the i-th step i numbers,
    for what each earlier estimate of x0 has beyond the newest, and one for the noise."""

    sigmas: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, num_steps: int) -> Fitted:
        """Raises ValueError for a number of steps that nothing was fitted for."""
        if not FEWEST <= num_steps <= MOST:
            raise ValueError(f"The fitted sampler takes {FEWEST} to {MOST} steps, not {num_steps}.")
        return _table()[num_steps]


def step(
    x: Tensor,
    estimates: Sequence[Tensor],
    sigma: float,
    sigma_next: float,
    weights: Sequence[float],
) -> Tensor:
    """x at ``sigma_next`` from x at ``sigma`` and all estimates of x0 so far, the newest last."""
    x_next = torch.lerp(estimates[-1], x, sigma_next / sigma)
    for weight, term in zip(weights, terms(x, estimates, sigma), strict=True):
        if weight:
            x_next = x_next.add(term, alpha=weight)
    return x_next


def terms(x: Tensor, estimates: Sequence[Tensor], sigma: float) -> list[Tensor]:
    """What the weights of a step are of."""
    newest = estimates[-1]
    return [*(earlier - newest for earlier in estimates[:-1]), (x - newest) / sigma]


@cache
def _table() -> dict[int, Fitted]:
    """What was fitted, by its number of steps."""
    rows = json.loads(TABLE.read_text())
    fitted = [Fitted(tuple(r["sigmas"]), tuple(map(tuple, r["weights"]))) for r in rows]
    return {len(one.weights): one for one in fitted}
