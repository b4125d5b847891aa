"""Samplers: pure functions from noise to an image, ``(denoiser, x, sigmas, ...) -> x0``.

x: [N, C, H, W], noise of standard deviation ``sigmas[0]`` (plus, for image-to-image, a picture);
sigmas: N+1 falling values, the last 0. After every step the callback is given a ``Step``; if it
returns True, sampling stops there and the current estimate of x0 is returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .fitted import Fitted, step


class Step(NamedTuple):
    """What a callback sees: step ``index`` of ``total`` has just been taken."""

    index: int  # type: ignore[assignment]  # 1 to total; hides tuple.index
    total: int
    sigma: float  # noise std of ``x``
    x: Tensor  # [N, C, H, W] the noisy image after the step
    denoised: Tensor  # [N, C, H, W] the x0 estimate that the step used


Denoise = Callable[[Tensor, Tensor | float, Tensor | None], Tensor]
Callback = Callable[[Step], bool | None]
NoiseSource = Callable[[], Tensor]


class Sampler(Protocol):
    """The signature that every sampler shares."""

    def __call__(
        self,
        denoiser: Denoise,
        x: Tensor,
        sigmas: Tensor,
        *,
        class_labels: Tensor | None = None,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
    ) -> Tensor: ...


class SeededNoise:
    """Unit normal noise [N, *shape] with one CPU generator per image, seeded by that image's seed.

    The k-th call returns the k-th noise of every image, so that a seed gives the same noise at any
    batch size, at any place in the batch and on any device.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], *, device: str | torch.device = "cpu"
    ) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape, self.device = tuple(shape), device

    def __call__(self) -> Tensor:
        noise = [torch.randn(self.shape, generator=g) for g in self.generators]
        return torch.stack(noise).to(self.device)


def _report(
    callback: Callback | None, index: int, sigmas: Tensor, x: Tensor, denoised: Tensor
) -> bool:
    """Tell the callback about the step to ``sigmas[index]``; True means stop."""
    if callback is None:
        return False
    return bool(callback(Step(index, len(sigmas) - 1, float(sigmas[index]), x, denoised)))


def _fresh_noise(x: Tensor, noise: NoiseSource | None) -> Tensor:
    return torch.randn_like(x) if noise is None else noise().to(x)


@torch.no_grad()
def sample_euler(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    class_labels: Tensor | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Euler's method on the probability flow ODE, dx/dsigma = (x - D) / sigma. First order.

    In these coordinates it is the same as deterministic DDIM (Karras et al. 2022, Sec. 3), so
    "euler" and "ddim" draw the same pictures, but for rounding.
    """
    for i, (sigma, sigma_next) in enumerate(_pairs(sigmas), start=1):
        denoised = denoiser(x, sigma, class_labels)
        x = torch.lerp(denoised, x, sigma_next / sigma)
        if _report(callback, i, sigmas, x, denoised):
            return denoised
    return x


@torch.no_grad()
def sample_heun(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    class_labels: Tensor | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Heun's method, Karras et al. 2022, Alg. 1. Second order.

    Two evaluations a step, but one in the step to sigma 0.
    """
    for i, (sigma, sigma_next) in enumerate(_pairs(sigmas), start=1):
        denoised = denoiser(x, sigma, class_labels)
        slope = (x - denoised) / sigma
        x_next = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope_next = (x_next - denoiser(x_next, sigma_next, class_labels)) / sigma_next
            x_next = x + (sigma_next - sigma) * (slope + slope_next) / 2
        x = x_next
        if _report(callback, i, sigmas, x, denoised):
            return denoised
    return x


@torch.no_grad()
def sample_dpmpp_2m(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    class_labels: Tensor | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022b, Alg. 2: second order with one evaluation a step.

    The first step and the step to sigma 0 are of first order (there D is the solution).
    """
    previous: Tensor | None = None
    h_previous = 0.0
    for i, (sigma, sigma_next) in enumerate(_pairs(sigmas), start=1):
        denoised = denoiser(x, sigma, class_labels)
        estimate = denoised
        if sigma_next > 0:
            h = math.log(sigma / sigma_next)  # step in lambda = -ln(sigma)
            if previous is not None:
                estimate = torch.lerp(previous, denoised, 1 + h / (2 * h_previous))
            h_previous = h
        x = torch.lerp(estimate, x, sigma_next / sigma)
        previous = denoised
        if _report(callback, i, sigmas, x, denoised):
            return denoised
    return x


@torch.no_grad()
def sample_ddim(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    class_labels: Tensor | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
    eta: float = 0.0,
) -> Tensor:
    """DDIM, Song et al. 2021a, Eq. 12 and 16: from deterministic (eta 0) to ancestral (eta 1).

    In sigma (x divided by sqrt(alpha_bar)), of the variance sigma_next^2 left after the step, the
    part ``(eta * sigma_next)^2 (1 - sigma_next^2 / sigma^2)`` is fresh noise. With eta 0 the steps
    are those of ``sample_euler``; "ddim" stays in ``SAMPLERS`` for the recipes that name it.
    """
    for i, (sigma, sigma_next) in enumerate(_pairs(sigmas), start=1):
        denoised = denoiser(x, sigma, class_labels)
        fresh = eta * sigma_next * max(0.0, 1 - (sigma_next / sigma) ** 2) ** 0.5
        kept = max(0.0, sigma_next**2 - fresh**2) ** 0.5
        x = torch.lerp(denoised, x, kept / sigma)
        if fresh > 0:
            x = x + fresh * _fresh_noise(x, noise)
        if _report(callback, i, sigmas, x, denoised):
            return denoised
    return x


@torch.no_grad()
def sample_ddpm(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    class_labels: Tensor | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling, Ho et al. 2020, Alg. 2 with the posterior variance beta-tilde (Eq. 7).

    It is DDIM with eta 1; ``ddpm_sigmas(1000)`` visits the original thousand timesteps.
    """
    return sample_ddim(
        denoiser, x, sigmas, class_labels=class_labels, noise=noise, callback=callback, eta=1.0
    )


@torch.no_grad()
def sample_fitted(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    class_labels: Tensor | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """As few steps as can be, by weights that were fitted for just these noise levels (``Fitted``).

    Raises ValueError for other noise levels.
    """
    fitted = Fitted.of(len(sigmas) - 1)
    if not torch.allclose(sigmas, torch.tensor(fitted.sigmas).to(sigmas), rtol=1e-4):
        raise ValueError("The fitted sampler has noise levels of its own.")
    estimates: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(_pairs(sigmas), start=1):
        estimates.append(denoiser(x, sigma, class_labels))
        x = step(x, estimates, sigma, sigma_next, fitted.weights[i - 1])
        if _report(callback, i, sigmas, x, estimates[-1]):
            return estimates[-1]
    return x


SAMPLERS: dict[str, Sampler] = {
    "dpmpp_2m": sample_dpmpp_2m,
    "fitted": sample_fitted,
    "euler": sample_euler,
    "heun": sample_heun,
    "ddim": sample_ddim,
    "ddpm": sample_ddpm,
}


def _pairs(sigmas: Tensor) -> list[tuple[float, float]]:
    values = sigmas.tolist()
    return list(pairwise(values))
