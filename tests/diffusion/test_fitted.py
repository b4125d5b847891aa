"""Weights for few steps: what they are fitted to, where they are exact, and what they are for."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import pytest
import torch
from helpers import Gaussian, small_denoiser
from torch.testing import assert_close

from diffusion import SampleConfig, fitted
from diffusion.checkpoint import read_checkpoint, write_checkpoint
from diffusion.cli.main import main
from diffusion.distillation.fitting import ENDS, GRID, fit
from diffusion.fitted import FEWEST, MOST, Fitted, step
from diffusion.guidance import Repaint
from diffusion.samplers import sample_dpmpp_2m, sample_fitted
from diffusion.sampling import draw_x0, from_seeds, sampling_sigmas
from diffusion.schedules import karras_sigmas

GRIDS = range(FEWEST, MOST + 1)
F64 = torch.float64


def grid(num_steps: int) -> torch.Tensor:
    return torch.tensor(Fitted.of(num_steps).sigmas, dtype=F64)


class Curved(Gaussian):
    """Two sorts of pixels with solutions of their own: no step is exact by itself."""

    def __init__(self) -> None:
        super().__init__(mean=0.2, std=torch.tensor([0.2, 0.9], dtype=F64))


def states(sigmas: list[float]) -> list[torch.Tensor]:
    """The exact ones."""
    data = Curved()
    generator = torch.Generator().manual_seed(0)
    start = sigmas[0] * torch.randn(64, 1, 8, 2, dtype=F64, generator=generator)
    return [start, *(data.solution(start, sigmas[0], sigma) for sigma in sigmas[1:])]


@pytest.mark.parametrize("num_steps", GRIDS)
def test_the_table_has_falling_levels_of_the_usual_grid_and_a_weight_for_each_term(num_steps):
    found = Fitted.of(num_steps)
    assert len(found.weights) == num_steps
    assert [len(row) for row in found.weights] == list(range(1, num_steps + 1))
    usual = sampling_sigmas(SampleConfig(num_steps=GRID))
    for sigma in found.sigmas:
        assert (usual - sigma).abs().min() < 1e-5
    assert all(a > b for a, b in pairwise(found.sigmas))
    assert found.sigmas[-1] == 0 == found.weights[-1][-1]


@pytest.mark.parametrize("num_steps", GRIDS)
def test_a_picture_that_is_known_comes_out_exactly(num_steps):
    picture = torch.rand(2, 3, 4, 4, dtype=F64) * 2 - 1
    sigmas = grid(num_steps)
    x = picture + sigmas[0] * torch.randn(2, 3, 4, 4, dtype=F64)
    assert_close(sample_fitted(lambda *_: picture, x, sigmas), picture, rtol=0, atol=1e-12)


def test_the_kept_part_of_a_picture_stays_as_it_is():
    picture, keep = torch.rand(1, 3, 4, 4, dtype=F64), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    keep[..., :2] = True
    sigmas = grid(6)
    x = picture + sigmas[0] * torch.randn(1, 3, 4, 4, dtype=F64)
    drawn = sample_fitted(Repaint(Gaussian(), picture, keep), x, sigmas)
    kept = keep.expand_as(picture)
    assert_close(drawn[kept], picture[kept], rtol=0, atol=1e-12)
    assert (drawn[~kept] - picture[~kept]).abs().max() > 0.05


@pytest.mark.parametrize("num_steps", GRIDS)
def test_what_is_fitted_to_a_solution_comes_nearer_to_it_than_a_solver_that_knows_it_not(num_steps):
    sigmas = karras_sigmas(GRID).tolist()
    exact, ends = states(sigmas), ENDS[num_steps]
    assert len(ends) == num_steps
    found = fit(Curved(), exact, sigmas, ends)
    x, estimates = exact[0], []
    for (sigma, after), weights in zip(pairwise(found.sigmas), found.weights, strict=True):
        estimates.append(Curved()(x, sigma))
        x = step(x, estimates, sigma, after, weights)
    error = (x - exact[-1]).abs().mean()
    plain = sample_dpmpp_2m(Curved(), exact[0], torch.tensor(found.sigmas, dtype=F64))
    assert error < 0.2 * (plain - exact[-1]).abs().mean()


def test_a_step_is_the_least_squares_one():
    """No other weights come nearer: the gradient of the squared error vanishes."""
    sigmas = karras_sigmas(GRID).tolist()
    exact = states(sigmas)
    found = fit(Curved(), exact, sigmas, (4, 12))
    first = torch.tensor(found.weights[0], dtype=F64, requires_grad=True)
    x, data = exact[0], Curved()
    estimate = data(x, sigmas[0])
    after = torch.lerp(estimate, x, sigmas[4] / sigmas[0])
    after = after + first[0] * (x - estimate) / sigmas[0]
    (after - exact[4]).square().mean().backward()
    assert abs(float(first.grad)) < 1e-3  # the ridge, and five decimals


@pytest.mark.parametrize("num_steps", [1, 3, 9, 12])
def test_other_numbers_of_steps_are_a_sentence(num_steps):
    denoiser = small_denoiser()
    config = SampleConfig(sampler="fitted", num_steps=num_steps)
    with pytest.raises(ValueError, match=f"takes 4 to 8 steps, not {num_steps}"):
        draw_x0(denoiser, from_seeds(denoiser, [1]), config)


def test_other_noise_levels_are_a_sentence():
    with pytest.raises(ValueError, match="noise levels of its own"):
        sample_fitted(Gaussian(), torch.zeros(1, 1, 2, 2), karras_sigmas(6))


def test_amid_the_grid_the_usual_solver_draws():
    denoiser = small_denoiser()
    start = from_seeds(denoiser, [1, 2])
    start = dataclasses.replace(start, picture=torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    drawn = [
        draw_x0(denoiser, start, SampleConfig(sampler=sampler, num_steps=6, strength=0.5))
        for sampler in ("fitted", "dpmpp_2m")
    ]
    assert torch.equal(*drawn)


def test_the_command_writes_a_table_that_draws(tmp_path, monkeypatch):
    small_denoiser().save(tmp_path / "model.safetensors")
    out = tmp_path / "fitted.json"
    options = ["--checkpoint", str(tmp_path / "model.safetensors"), "--out", str(out)]
    assert main(["fit", *options, "--seeds", "20"]) == 0
    assert [len(row["weights"]) for row in json.loads(out.read_text())] == list(GRIDS)
    monkeypatch.setattr(fitted, "TABLE", out)
    fitted._table.cache_clear()
    try:
        denoiser = small_denoiser()
        start = from_seeds(denoiser, range(8))
        usual, few, plain = (
            draw_x0(denoiser, start, SampleConfig(sampler=sampler, num_steps=steps))
            for sampler, steps in (("dpmpp_2m", 12), ("fitted", 5), ("dpmpp_2m", 5))
        )
        assert (few - usual).abs().mean() < 0.7 * (plain - usual).abs().mean()
    finally:
        fitted._table.cache_clear()


@pytest.mark.parametrize(
    ("options", "teacher", "sentence"),
    [
        (["--seeds", "0"], "", "at least one cat"),
        (["--out", "table.txt"], "", "must end in .json"),
        ([], "a" * 12, "is a student"),
    ],
)
def test_what_cannot_be_fitted_is_a_sentence(tmp_path, options, teacher, sentence, capsys):
    model, out = tmp_path / "model.safetensors", ["--out", str(tmp_path / "table.json")]
    small_denoiser().save(model)
    state, info = read_checkpoint(model)
    write_checkpoint(model, state, dataclasses.replace(info, teacher=teacher))
    assert main(["fit", "--checkpoint", str(model), *out, *options]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Error: ")
    assert sentence in told
