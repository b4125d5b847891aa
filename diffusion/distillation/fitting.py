"""Fit the sampler of few steps to how a model draws in twelve (see ``fitted``)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..files import atomic_path
from ..fitted import Fitted, step, terms
from ..samplers import Denoise, Step
from ..sampling import draw_x0, from_seeds, guided, sampling_sigmas
from .trajectories import FIRST_SEED

GRID = 12  # steps of the sampler that is fitted to
# Where the steps end, by their number: indices of that grid.
ENDS = {
    4: (4, 7, 9, 12),
    5: (4, 7, 9, 10, 12),
    6: (4, 6, 8, 9, 10, 12),
    7: (3, 5, 7, 8, 9, 10, 12),
    8: (3, 5, 6, 7, 8, 9, 10, 12),
}
RIDGE = 1e-4  # keeps weights small that the states say little about
BATCH = 16


@torch.inference_mode()
def fit_to(denoiser: Denoiser, *, count: int) -> list[Fitted]:
    """Weights for each number of steps in ``ENDS``, from ``count`` cats as the page draws them.
    Raises ValueError for no cats, and for a student, which has few steps already."""
    if count < 1:
        raise ValueError("Fitting needs at least one cat.")
    info = denoiser.info
    if info.teacher:
        raise ValueError("This model is a student. Fit the weights to its teacher.")
    config = dataclasses.replace(info.sampling, sampler="dpmpp_2m", num_steps=GRID)
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    labels = [info.label_index(info.any_label(seed)) for seed in seeds]
    starts = [
        from_seeds(denoiser, seeds[i : i + BATCH], labels[i : i + BATCH])
        for i in range(0, count, BATCH)
    ]
    sigmas = sampling_sigmas(config).tolist()
    states = [[start.noise * sigmas[0] for start in starts], *([] for _ in range(GRID))]

    def keep(step: Step) -> None:
        states[step.index].append(step.x.float().cpu())

    for start in starts:
        draw_x0(denoiser, start, config, callback=keep)
    device = next(denoiser.parameters()).device

    def denoise(x: Tensor, sigma: Tensor | float, _: Tensor | None = None) -> Tensor:
        estimates = [
            guided(denoiser, start, config)(part.to(device), sigma, start.labels.to(device))
            for part, start in zip(x.split(BATCH), starts, strict=True)
        ]
        return torch.cat(estimates).float().cpu()

    whole = [torch.cat(rows) for rows in states]
    return [fit(denoise, whole, sigmas, ends) for ends in ENDS.values()]


@torch.no_grad()
def fit(
    denoise: Denoise, states: Sequence[Tensor], sigmas: Sequence[float], ends: Sequence[int],
) -> Fitted:  # fmt: skip
    """The weights for steps that end at ``ends``, indices of a finer grid: ``states`` [N, C, H, W]
    are x at each of its noise levels ``sigmas``, as a good solver went through them."""
    x, estimates, rows = states[0], [], []
    for start, end in pairwise((0, *ends)):
        estimates.append(denoise(x, sigmas[start], None))
        used = terms(x, estimates, sigmas[start])
        if sigmas[end] == 0:  # no noise may be left
            used = used[:-1]
        plain = torch.lerp(estimates[-1], x, sigmas[end] / sigmas[start])
        row = _least_squares(used, states[end] - plain)
        rows.append((*row, 0.0) if sigmas[end] == 0 else row)
        x = step(x, estimates, sigmas[start], sigmas[end], rows[-1])
    return Fitted(tuple(round(sigmas[i], 6) for i in (0, *ends)), tuple(rows))


def _least_squares(terms: Sequence[Tensor], wanted: Tensor) -> tuple[float, ...]:
    """The weights whose sum of ``terms`` is nearest to what is wanted."""
    if not terms:
        return ()
    flat = torch.stack([term.flatten() for term in (*terms, wanted)]).double()
    products = flat @ flat.T / flat.shape[1]
    ridge = RIDGE * torch.eye(len(terms), dtype=products.dtype)
    solution = torch.linalg.solve(products[:-1, :-1] + ridge, products[:-1, -1])
    return tuple(round(value, 5) for value in solution.tolist())


def write_table(fitted: Sequence[Fitted], path: str | Path) -> None:
    """Write ``fitted.json``, atomically."""
    rows = [json.dumps({"sigmas": one.sigmas, "weights": one.weights}) for one in fitted]
    with atomic_path(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(rows) + "\n]\n")
