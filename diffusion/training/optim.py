"""Optimizers: AdamW, or Muon for the inner convolutions with AdamW for everything else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

# First and last convolutions: of a network, of its refinement, of an autoencoder's two halves.
OUTERMOST = re.compile(r"((fine|encoder|decoder)\.)?conv_(in|out)\b")


def orthogonalize(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix, roughly: all singular values moved to about 1.

    Quintic Newton-Schulz iteration with the coefficients of Jordan et al. 2024 (Muon),
    X <- (a + b XX^T + c (XX^T)^2) X. Every step is a polynomial in the Gram matrix of the first X,
    so they are taken on that small one and X is multiplied once: half the time in float32 (bfloat16
    would not bear it).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    transposed = x.shape[0] > x.shape[1]
    if transposed:
        x = x.T
    gram = x @ x.T
    product = None
    for step in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ gram @ factor
    x = product @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized per weight matrix (Jordan et al. 2024).

    Convolutions count as matrices [out, in * kh * kw]. The update is scaled to an RMS of about 0.2,
    the usual one of AdamW, so that the learning rates are alike (Liu et al. 2025, Eq. 4).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(param)
                momentum = state["momentum"]
                momentum.lerp_(param.grad, 1 - group["momentum"])
                nesterov = param.grad.lerp(momentum, group["momentum"])
                matrix = nesterov.reshape(len(param), -1)
                update = orthogonalize(matrix).reshape(param.shape)
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)


def build_optimizers(
    model: nn.Module,
    *,
    name: str,
    lr: float,
    muon_lr: float,
    label_lr: float = 0.0,
    weight_decay: float,
    fused: bool,
) -> list[torch.optim.Optimizer]:
    """The optimizers of a U-Net or an autoencoder. Their first and last convolutions and all
    embeddings stay with AdamW,
    that of the labels with a rate of its own unless ``label_lr`` is 0."""
    matrices: list[Tensor] = []
    labels: list[Tensor] = []
    others: list[Tensor] = []
    for key, param in model.named_parameters():
        if not param.requires_grad:
            continue
        inner = param.ndim == 4 and not OUTERMOST.match(key)
        if label_lr and key.startswith("class_embedding."):
            labels.append(param)
        else:
            (matrices if inner and name == "muon" else others).append(param)
    adamw = partial(torch.optim.AdamW, betas=(0.9, 0.99), weight_decay=weight_decay, fused=fused)
    optimizers: list[torch.optim.Optimizer] = [
        adamw(params, lr=rate) for params, rate in ((others, lr), (labels, label_lr)) if params
    ]
    if matrices:
        optimizers.append(Muon(matrices, lr=muon_lr, weight_decay=weight_decay))
    return optimizers
