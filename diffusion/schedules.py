"""Noise schedules: sigma grids for sampling, sigma densities for training, and the DDPM schedule.

``sigma`` is the standard deviation of the noise in ``x = x0 + sigma * noise``. The images of a
variance-preserving schedule with cumulative products ``alpha_bar``, divided by ``sqrt(alpha_bar)``,
have ``sigma = sqrt((1 - alpha_bar) / alpha_bar)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def karras_sigmas(
    num_steps: int,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    """Sampling grid of Karras et al. 2022, Eq. 5: ``num_steps + 1`` float64 values, the last 0.

    Raises ValueError if ``num_steps`` is below 1 or the range is empty.
    """
    if num_steps < 1:
        raise ValueError(f"The number of steps must be at least 1, not {num_steps}.")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min {sigma_min} must be positive and below sigma_max {sigma_max}.")
    ramp = torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def linear_alpha_bar(
    num_timesteps: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02
) -> Tensor:
    """Cumulative products of ``1 - beta``, linear schedule of Ho et al. 2020: [T] float64."""
    # Numbers, not weights: they are on the CPU even where networks are built without memory.
    betas = torch.linspace(beta_1, beta_T, num_timesteps, dtype=torch.float64, device="cpu")
    return torch.cumprod(1 - betas, dim=0)


def cosine_alpha_bar(num_timesteps: int = 1000, offset: float = 0.008) -> Tensor:
    """Cosine schedule of Nichol & Dhariwal 2021, Eq. 17, betas capped at 0.999: [T] float64."""
    t = torch.arange(num_timesteps + 1, dtype=torch.float64, device="cpu") / num_timesteps
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - betas, dim=0)


def sigmas_from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """Noise std of a variance-preserving schedule, rising with t: same shape as ``alpha_bar``."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def ddpm_sigmas(num_steps: int, alpha_bar: Tensor | None = None) -> Tensor:
    """Sampling grid along the DDPM schedule: ``num_steps + 1`` float64 values, the last 0.

    The steps are spread evenly over the T timesteps, from T-1 down to 0; ``num_steps = T`` visits
    every one of them, as Ho et al. 2020 did. Raises ValueError outside 1 to T.
    """
    sigmas = sigmas_from_alpha_bar(linear_alpha_bar() if alpha_bar is None else alpha_bar)
    if not 1 <= num_steps <= len(sigmas):
        raise ValueError(
            f"The number of steps must be between 1 and {len(sigmas)}, not {num_steps}."
        )
    t = torch.linspace(len(sigmas) - 1, 0, num_steps, dtype=torch.float64).round().long()
    return torch.cat([sigmas[t], sigmas.new_zeros(1)])


def lognormal_sigma(
    num: int, *, P_mean: float = -1.2, P_std: float = 1.2, generator: torch.Generator | None = None
) -> Tensor:
    """Training density of Karras et al. 2022, Table 1: ln(sigma) ~ N(P_mean, P_std^2).

    Returns [num] float32. The draws are stratified (one per equal slice of probability, in random
    order), which keeps the density and lowers the variance of the loss from batch to batch.
    """
    device = generator.device if generator is not None else None
    jitter = torch.rand(num, generator=generator, device=device)
    order = torch.randperm(num, generator=generator, device=device)
    quantile = ((order + jitter) / num).clamp(1e-6, 1 - 1e-6)
    normal = math.sqrt(2) * torch.erfinv(2 * quantile - 1)
    return (P_mean + P_std * normal).exp()
