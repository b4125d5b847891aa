"""A network for larger pictures that begins with what another has learned: for twice the size, at
nearly the same cost, or for the latents of a codec."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from ..checkpoint import CheckpointInfo
from ..codec import LatentCodec
from ..denoiser import Denoiser, build_unet
from ..networks.autoencoder import Autoencoder
from ..networks.unet import UNet
from ..parameterizations import EDM
from ..presets import LATENT_SAMPLING, preset_of


def grow(denoiser: Denoiser) -> Denoiser:
    """The same U-Net over patches of twice the width, with a ``Refinement`` that is yet untrained.

    F answers any picture, enlarged, as the old F answers twice the mean of its 2x2 pixels at half
    the noise level: such a mean has half the noise of a pixel (Hoogeboom et al. 2023, "simple
    diffusion", on shifted noise schedules; the idea of growing: Karras et al. 2018). Where noise
    prevails, the denoiser thereby answers as the old one did; below, the scales of the two
    preconditionings differ, which training soon makes good. A guide, being of the old size, is left
    behind. Raises ValueError for a denoiser that is not EDM's, that would draw more than 1024
    pixels, or that has grown already (its refinement is for pixels that it has).
    """
    info = _growable(denoiser, of_latents="A model of latents cannot grow.")
    if info.model.fine_channels:
        raise ValueError("This model has already been grown, which works only once.")
    old, unet = info.model, cast(UNet, denoiser.model)
    model = replace(
        old,
        image_size=2 * old.image_size,
        patch_size=2 * old.patch_size,
        fine_channels=max(4, old.channels // 8 * 4),
    )
    info = info.without_guide()
    info = replace(
        info,
        model=model,
        preset=preset_of(model),
        sampling=replace(info.sampling, guided_below=2 * info.sampling.guided_below),
        history=(*info.history, f"grown from {old.image_size} to {model.image_size} pixels"),
    )
    network = build_unet(model)
    state = network.state_dict() | unet.state_dict()  # the refinement is new
    for name in ("conv_out.weight", "conv_out.bias"):
        state[name] = _double(state[name], old.image_channels)
    # Half the sum of 2x2 pixels, so that unit noise stays unit noise.
    by_input = state["conv_in.weight"].transpose(0, 1)
    state["conv_in.weight"] = _double(by_input, old.image_channels).transpose(0, 1) / 2
    to_embedding = state["noise_mlp.0.weight"]
    turn = _shift(unet.noise_embedding.frequencies(to_embedding.device), math.log(2) / 4)
    state["noise_mlp.0.weight"] = to_embedding @ turn
    network.load_state_dict(state)
    grown = Denoiser(network, denoiser.parameterization, info=info)
    return grown.to(to_embedding.device).eval().requires_grad_(False)


def grow_into_latents(denoiser: Denoiser, autoencoder: Autoencoder) -> Denoiser:
    """The same U-Net over the latents of a codec, one position in place of each patch of pixels.

    Its inner weights are taken over; the first and the last convolution are new, the last one 0.
    A guide and a refinement are left behind. Raises ValueError for a denoiser that is not EDM's, or
    that draws latents already.
    """
    info = _growable(denoiser, of_latents="This model draws latents already.")
    old = info.model
    model = replace(
        old,
        image_size=old.image_size // old.patch_size,
        image_channels=autoencoder.config.latent_channels,
        patch_size=1,
        fine_channels=0,
    )
    info = info.without_guide()
    info = replace(
        info,
        model=model,
        codec=autoencoder.config,
        preset=preset_of(model),
        sampling=LATENT_SAMPLING,
        history=(*info.history, f"grown from {old.image_size} pixels into latents"),
    )
    network = build_unet(model)
    outer = ("conv_in.", "conv_out.", "fine.")
    state = {k: v for k, v in denoiser.model.state_dict().items() if not k.startswith(outer)}
    network.load_state_dict(network.state_dict() | state)
    codec = LatentCodec(autoencoder, model.image_size, sigma_data=model.sigma_data)
    grown = Denoiser(network, EDM(sigma_data=model.sigma_data), info=info, codec=codec)
    return grown.eval().requires_grad_(False)


def _growable(denoiser: Denoiser, *, of_latents: str) -> CheckpointInfo:
    """What a denoiser that can grow says of itself. Raises ValueError for another, which is
    ``of_latents`` for one of latents."""
    info = denoiser.info
    if info is None or not isinstance(denoiser.parameterization, EDM):
        raise ValueError("Only a model with EDM preconditioning can grow.")
    if info.in_latents:
        raise ValueError(of_latents)
    if info.codec:
        raise ValueError("Only a model without an upscaler can grow.")
    if info.teacher:
        raise ValueError("A student cannot grow. Its teacher may.")
    return info


def _double(weights: Tensor, channels: int) -> Tensor:
    """[channels * patch^2, ...] -> [channels * (2 patch)^2, ...]: every pixel four times, in the
    order of pixel unshuffling."""
    patch = math.isqrt(len(weights) // channels)
    pixels = weights.unflatten(0, (channels, patch, patch))
    return pixels.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(0, 2)


def _shift(frequencies: Tensor, by: float) -> Tensor:
    """The matrix that turns the noise embedding of c into that of c - by."""
    cos, sin = (frequencies * by).cos().diag(), (frequencies * by).sin().diag()
    return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)])
