"""Frames that follow a finger: how a model draws when it has no time."""

from __future__ import annotations

import dataclasses

from diffusion import SampleConfig

MAX_LIVE_STEPS = 4  # the fewest that the fitted sampler takes
MAX_LIVE_BATCH = 2  # frames drawn at once: an ordinary cat, which may wait for them, takes longer


def live_sampling(usual: SampleConfig) -> SampleConfig:
    """The settings of live frames for a model with ``usual`` ones (``info.sampling``): the same,
    where it was taught to need few steps."""
    if usual.num_steps <= MAX_LIVE_STEPS:
        return usual
    return dataclasses.replace(usual, sampler="fitted", num_steps=MAX_LIVE_STEPS)
