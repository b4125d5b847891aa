"""The raw network F(x_in, c_noise, class_labels): a U-Net over pixel patches.

Residual blocks with scale-shift time embedding (Dhariwal & Nichol 2021), self-attention at low
resolutions, optional patches (pixel unshuffle), and zero-initialised last layers, so that an
untrained network outputs exactly 0 and every block starts as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Conv2d, GroupNorm, NoiseEmbedding, attention, zero_


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the embedding scales and shifts the features between them."""

    def __init__(self, in_channels: int, channels: int, emb_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = GroupNorm(in_channels)
        self.conv_in = Conv2d(in_channels, channels, 3, padding=1)
        self.modulation = nn.Linear(emb_channels, 2 * channels)
        self.norm_out = GroupNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_(Conv2d(channels, channels, 3, padding=1))
        same = in_channels == channels
        self.skip = nn.Identity() if same else Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.modulation(emb)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm_out(h), scale + 1))
        return self.skip(x) + self.conv_out(self.dropout(h))


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions of a feature map, as a residual."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.num_heads = max(1, channels // head_channels)
        self.norm = GroupNorm(channels)
        self.qkv = Conv2d(channels, 3 * channels, 1)
        self.out = zero_(Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1)  # a view when x is channels-last
        qkv = qkv.reshape(n, height * width, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [N, heads, positions, head_channels]
        h = attention(q, k, v)
        h = h.transpose(1, 2).reshape(n, height, width, c).permute(0, 3, 1, 2)
        return x + self.out(h)


class BlockWithAttention(nn.Module):
    """A residual block, followed by self-attention where the resolution asks for it."""

    def __init__(
        self, in_channels: int, channels: int, emb_channels: int, dropout: float, head_channels: int
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(in_channels, channels, emb_channels, dropout)
        self.attention = SelfAttention(channels, head_channels) if head_channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.attention(self.block(x, emb))


class Refinement(nn.Module):
    """What is finer than the U-Net's patches: a residual block at twice their resolution.

    It sees the picture in patches of half the width, and the last features of the U-Net, to whose
    output it adds. Wide patches alone lose the noise of single pixels, and leave it in the picture.
    """

    def __init__(
        self, patch_channels: int, feature_channels: int, channels: int, emb_channels: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv_in = Conv2d(patch_channels, channels, 3, padding=1)
        self.conv_features = Conv2d(feature_channels, 4 * channels, 1)
        self.block = ResidualBlock(channels, channels, emb_channels, dropout)
        self.norm_out = GroupNorm(channels)
        self.conv_out = zero_(Conv2d(channels, patch_channels, 3, padding=1))

    def forward(self, x: Tensor, features: Tensor, emb: Tensor) -> Tensor:
        h = self.conv_in(x) + F.pixel_shuffle(self.conv_features(features), 2)
        return self.conv_out(F.silu(self.norm_out(self.block(h, emb))))


class UNet(nn.Module):
    """F(x_in, c_noise, class_labels) -> [N, C, H, W], the shape of x_in.

    H and W may be any multiple of ``patch_size * 2 ** (levels - 1)``. ``attention_resolutions`` are
    feature resolutions at the nominal ``image_size``; ``fine_channels`` are those of a
    ``Refinement``, 0 for none. Labels are [N] int64, or weights [N, num_classes + 1] float for a
    mixture; index ``num_classes`` is the null class, which is also what ``class_labels=None``
    means. It computes, and answers, in the type of its convolutions.
    """

    def __init__(
        self,
        *,
        image_size: int,
        image_channels: int,
        patch_size: int,
        channels: int,
        channel_mult: Sequence[int],
        num_blocks: int,
        attention_resolutions: Sequence[int],
        attention_head_channels: int,
        fine_channels: int,
        num_classes: int,
        augment_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.patch_size, self.num_classes = patch_size, num_classes
        emb_channels = 4 * channels
        patch_channels = image_channels * patch_size**2
        widths = [channels * mult for mult in channel_mult]
        resolution = image_size // patch_size

        self.noise_embedding = NoiseEmbedding(channels)
        self.noise_mlp = nn.Sequential(
            nn.Linear(channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        self.class_embedding = nn.Embedding(num_classes + 1, emb_channels) if num_classes else None
        self.augment_embedding = (
            zero_(nn.Linear(augment_channels, emb_channels, bias=False))
            if augment_channels
            else None
        )

        def block(in_width: int, width: int, at: int | None) -> BlockWithAttention:
            head_channels = attention_head_channels if at in attention_resolutions else 0
            return BlockWithAttention(in_width, width, emb_channels, dropout, head_channels)

        self.conv_in = Conv2d(patch_channels, channels, 3, padding=1)
        self.down, skip_widths, width = nn.ModuleList(), [channels], channels
        for depth, out_width in enumerate(widths):
            for _ in range(num_blocks):
                self.down.append(block(width, out_width, resolution >> depth))
                width = out_width
                skip_widths.append(width)
        bottom = resolution >> (len(widths) - 1)
        self.middle = nn.ModuleList([block(width, width, bottom), block(width, width, None)])
        self.up = nn.ModuleList()
        for depth, out_width in reversed(list(enumerate(widths))):
            for _ in range(num_blocks + (depth == 0)):
                self.up.append(block(width + skip_widths.pop(), out_width, resolution >> depth))
                width = out_width
        self.num_blocks = num_blocks
        self.norm_out = GroupNorm(width)
        self.conv_out = zero_(Conv2d(width, patch_channels, 3, padding=1))
        self.fine = (
            Refinement(patch_channels // 4, width, fine_channels, emb_channels, dropout)
            if fine_channels
            else None
        )
        self.to(memory_format=torch.channels_last)

    def embed(self, c_noise: Tensor, class_labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """Noise level, label and augmentation parameters as one vector: [N, 4 * channels]."""
        emb = self.noise_mlp(self.noise_embedding(c_noise).to(self.conv_in.weight.dtype))
        if self.class_embedding is not None:
            if class_labels is None:
                class_labels = torch.full_like(c_noise, self.num_classes, dtype=torch.long)
            if class_labels.is_floating_point():
                emb = emb + class_labels.to(emb.dtype) @ self.class_embedding.weight
            else:
                emb = emb + self.class_embedding(class_labels)
        if self.augment_embedding is not None and augment is not None:
            emb = emb + self.augment_embedding(augment.to(emb.dtype))
        return F.silu(emb)

    def forward(
        self,
        x_in: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        emb = self.embed(c_noise, class_labels, augment)
        x_in = x_in.to(self.conv_in.weight.dtype)
        x = self.conv_in(_patches(x_in, self.patch_size))
        skips = [x]
        for i, block in enumerate(self.down):
            if i and i % self.num_blocks == 0:
                x = F.avg_pool2d(x, 2)
            x = block(x, emb)
            skips.append(x)
        for block in self.middle:
            x = block(x, emb)
        for block in self.up:
            if x.shape[-1] != skips[-1].shape[-1]:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, skips.pop()], dim=1), emb)
        x = F.silu(self.norm_out(x))
        output = F.pixel_shuffle(self.conv_out(x), self.patch_size)
        if self.fine is None:
            return output
        finer = self.patch_size // 2
        return output + F.pixel_shuffle(self.fine(_patches(x_in, finer), x, emb), finer)


def _patches(x: Tensor, size: int) -> Tensor:
    """[N, C, H, W] -> [N, C * size^2, H / size, W / size], channels-last."""
    return F.pixel_unshuffle(x, size).contiguous(memory_format=torch.channels_last)
