"""What a network was trained to predict, as coefficients (Karras et al. 2022, Eq. 7)

D(x; sigma) = c_skip * x + c_out * F(c_in * x, c_noise)
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .config import ModelConfig
from .schedules import cosine_alpha_bar, linear_alpha_bar, lognormal_sigma, sigmas_from_alpha_bar


class Coefficients(NamedTuple):
    """Preconditioning at some noise levels, each the shape of ``sigma``."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Parameterization(Protocol):
    """What a network predicts."""

    def coefficients(self, sigma: Tensor) -> Coefficients: ...


class EDM:
    """Preconditioning of Karras et al. 2022, Table 1."""

    def __init__(self, *, sigma_data: float = 0.5) -> None:
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        variance = sigma**2 + self.sigma_data**2
        return Coefficients(
            c_skip=self.sigma_data**2 / variance,
            c_out=sigma * self.sigma_data / variance.sqrt(),
            c_in=variance.rsqrt(),
            c_noise=sigma.log() / 4,
        )


class Discrete:
    """A network that was trained at the T noise levels of a variance-preserving schedule."""

    def __init__(self, alpha_bar: Tensor) -> None:
        self.sigmas = sigmas_from_alpha_bar(alpha_bar)  # rising with t

    def c_noise(self, sigma: Tensor) -> Tensor:
        """t / T: what the network is told of the noise level."""
        return self.timestep(sigma) / len(self.sigmas)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Fractional t in [0, T-1] with sigma_t = sigma, linear in ln(sigma) between the levels."""
        levels = self.sigmas.log().to(sigma.device)
        log_sigma = sigma.double().log().clamp(levels[0], levels[-1])
        above = torch.searchsorted(levels, log_sigma).clamp(1, len(levels) - 1)
        low, high = levels[above - 1], levels[above]
        return (above - 1 + (log_sigma - low) / (high - low)).to(sigma.dtype)


class Epsilon(Discrete):
    """Noise prediction on the linear DDPM schedule (Ho et al. 2020, Eq. 14): F is the noise."""

    def __init__(self) -> None:
        super().__init__(linear_alpha_bar())

    def coefficients(self, sigma: Tensor) -> Coefficients:
        c_in = (1 + sigma**2).rsqrt()
        return Coefficients(torch.ones_like(sigma), -sigma, c_in, self.c_noise(sigma))


class Velocity(Discrete):
    """v-prediction on the cosine schedule (Salimans & Ho 2022, App. D).

    With alpha = 1/sqrt(1 + sigma^2) and s = sigma * alpha: F is v = alpha * noise - s * x0.
    """

    def __init__(self) -> None:
        super().__init__(cosine_alpha_bar())

    def coefficients(self, sigma: Tensor) -> Coefficients:
        alpha = (1 + sigma**2).rsqrt()
        return Coefficients(alpha**2, -sigma * alpha, alpha, self.c_noise(sigma))


def build_parameterization(config: ModelConfig) -> Parameterization:
    """The parameterization that ``config.parameterization`` names."""
    if config.parameterization == "edm":
        return EDM(sigma_data=config.sigma_data)
    discrete: dict[str, type[Epsilon] | type[Velocity]]
    discrete = {"epsilon": Epsilon, "velocity": Velocity}
    return discrete[config.parameterization]()


def training_sigma(
    parameterization: Parameterization,
    num: int,
    *,
    P_mean: float = -1.2,
    P_std: float = 1.2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise levels [num] to train a network at: log-normal as in Karras et al. 2022, Table 1; for
    the networks of discrete levels each of these equally often (Ho et al. 2020)."""
    if isinstance(parameterization, Discrete):
        device = generator.device if generator is not None else None
        levels = parameterization.sigmas
        t = torch.randint(len(levels), (num,), generator=generator, device=device)
        return levels.to(t.device)[t].float()
    return lognormal_sigma(num, P_mean=P_mean, P_std=P_std, generator=generator)
