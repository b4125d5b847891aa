"""From seeds and settings to pictures: what the command line and the web page both call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .config import SampleConfig
from .data import to_uint8
from .denoiser import Denoiser, Guided
from .samplers import SAMPLERS, Callback, SeededNoise
from .schedules import ddpm_sigmas, karras_sigmas


def sampling_sigmas(config: SampleConfig) -> Tensor:
    """The sigma grid of ``config``: the DDPM timesteps for the DDPM sampler, else Karras's."""
    if config.sampler == "ddpm":
        return ddpm_sigmas(config.num_steps)
    return karras_sigmas(
        config.num_steps, sigma_min=config.sigma_min, sigma_max=config.sigma_max, rho=config.rho
    )


def generate(
    denoiser: Denoiser,
    seeds: Sequence[int],
    config: SampleConfig | None = None,
    *,
    class_labels: Sequence[int] | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Draw one picture per seed: uint8 [N, 3, S, S] on the CPU.

    ``class_labels`` gives each picture its class index (None: all unlabelled). The same seed, label
    and settings give the same picture at any batch size. Raises ValueError for an unknown sampler
    or a seed outside 0 to 2^63 - 1.
    """
    config = config or SampleConfig()
    if config.sampler not in SAMPLERS:
        raise ValueError(
            f"There is no sampler '{config.sampler}'; there are {', '.join(SAMPLERS)}."
        )
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"A seed must be a whole number from 0 to 2^63 - 1, not {seed}.")
    model = denoiser.info.model
    device = next(denoiser.parameters()).device
    shape = (model.image_channels, model.image_size, model.image_size)
    noise = SeededNoise(seeds, shape, device=device)
    sigmas = sampling_sigmas(config)
    labels = None if class_labels is None else torch.as_tensor(class_labels, device=device)
    guided = Guided(denoiser, config.guidance, null_label=model.num_classes)
    x = noise() * sigmas[0].float()
    x0 = SAMPLERS[config.sampler](
        guided, x, sigmas, class_labels=labels, noise=noise, callback=callback
    )
    return to_uint8(x0).cpu()
