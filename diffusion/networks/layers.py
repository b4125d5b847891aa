"""Layers that networks are made of, and what is tuned in them for a CPU."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Private operators of PyTorch that packing stands on; they may go with any version.
PACKING = ("_reorder_convolution_weight", "_convolution_pointwise", "_is_mkldnn_bf16_supported")


def zero_(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Conv2d(nn.Conv2d):
    """A convolution that can keep its weights in oneDNN's own order, to draw one picture on a CPU.

    PyTorch puts them into that order at every call: a fifth (in bfloat16) to a third (float32) of
    the time of one picture, and little of several. The order depends on the shape of the input.
    """

    packs = False  # see ``pack_weights_``
    _packed: tuple[torch.Size, Tensor] | None = None  # for inputs of this shape

    def forward(self, x: Tensor) -> Tensor:
        if not self.packs or len(x) != 1 or torch.is_grad_enabled():
            return super().forward(x)
        geometry = self.padding, self.stride, self.dilation, self.groups
        if self._packed is None or self._packed[0] != x.shape:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = x.shape, pack(self.weight, *geometry, x.shape)
        convolve = torch.ops.mkldnn._convolution_pointwise
        return convolve(x, self._packed[1], self.bias, *geometry, "none", [], "")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        self.packs, self._packed = False, None  # in another type, or on another device
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # which can be neither copied nor pickled


class GroupNorm(nn.GroupNorm):
    """Group normalisation in groups of 4 channels or more, at most 32 of them.

    On a GPU, and on small maps, in float32: below 32 x 32 positions PyTorch's CPU kernel for
    bfloat16 takes up to 9 times as long as the one for float32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels // 4), channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] >= 32 * 32 and not x.is_cuda:
            return super().forward(x)
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of [N, heads, positions, d] each.

    Written out for bfloat16 on a CPU, where PyTorch's fused kernel takes twice as long for so few
    positions.
    """
    if q.is_cuda or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


class NoiseEmbedding(nn.Module):
    """c_noise [N], of order 1 -> sines and cosines at geometric frequencies [N, channels]."""

    def __init__(self, channels: int, *, lowest: float = 0.1, highest: float = 100.0) -> None:
        super().__init__()
        self.exponents = math.log10(lowest), math.log10(highest), channels // 2

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        """[channels / 2]. No buffer: one would be rounded where the weights are, and with it the
        noise level."""
        return torch.logspace(*self.exponents, device=device)

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise.float()[:, None] * self.frequencies(c_noise.device)[None]
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def cast_weights_(network: nn.Module, dtype: torch.dtype) -> None:
    """Convolutions, linear layers and embeddings in another type; what normalises stays in float32:
    rounding that takes a third of the accuracy and wins no time."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            module.to(dtype)


def can_pack_weights(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions can keep their weights in oneDNN's own order (see ``Conv2d``)."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")  # where it has been measured
    if device.type != "cpu" or not x86 or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in PACKING):
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def pack_weights_(network: nn.Module) -> None:
    """Have the convolutions keep packed weights beside their own from the first picture that is
    drawn alone, where they can; none may change from then on."""
    for module in network.modules():
        if isinstance(module, Conv2d):
            module.packs = can_pack_weights(module.weight.device, module.weight.dtype)
