"""A perceptual distance to train by: early VGG features, weighed by what people see.

LPIPS (Zhang et al. 2018, Eq. 1) with shift-tolerant pooling (Ghildyal & Liu 2022). The weights are
those that the package ``stlpips-pytorch`` ships; only its data file is read. It is needed for
training codecs, upscalers and students. Quality is measured with another network (``features``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Convolutions of each stage, by their index in VGG16; between stages the size is halved.
STAGES = ((0, 2), (6, 8), (12, 14, 16))
DEEPER = ((20, 22, 24), (28, 30, 32))
WEIGHTS = "weights/vST0.0/vgg_shift_tolerant.pth"


class PerceptualDistance(nn.Module):
    """Distance of pictures [N, 3, H, W] in [-1, 1], each pair a number: [N]; 0 for equal ones."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            self.register_buffer(name.replace(".", "_"), tensor)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls) -> PerceptualDistance:
        """With the weights of ``stlpips-pytorch``. Raises ValueError where it is not installed."""
        package = find_spec("stlpips_pytorch")
        if package is None or package.origin is None:
            raise ValueError(
                "The perceptual loss needs a package: pip install --no-deps stlpips-pytorch"
            )
        path = Path(package.origin).parent / WEIGHTS
        return cls(torch.load(path, map_location="cpu", weights_only=True))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """One map a stage, each position a unit vector."""
        return [F.normalize(x, dim=1, eps=1e-6) for x in self.maps(pictures)]

    def maps(
        self, pictures: Tensor, *, stages: Sequence[Sequence[int]] = STAGES
    ) -> Iterator[Tensor]:
        """What comes out of each stage, at least 0."""
        x = (pictures - self._get("scaling_layer.shift")) / self._get("scaling_layer.scale")
        for stage, indices in enumerate(stages):
            name = f"net.slice{stage + 1}"
            if stage:
                blur = self._get(f"{name}.{indices[0] - 1}.filt")
                x = F.pad(F.max_pool2d(x, 2, stride=1), (1, 1, 1, 1), mode="reflect")
                x = F.conv2d(x, blur, stride=2, groups=x.shape[1])
            for index in indices:
                weight, bias = (self._get(f"{name}.{index}.{part}") for part in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            yield x

    def forward(self, pictures: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.features(targets)
        total = torch.zeros(len(pictures), device=pictures.device)
        for stage, (one, other) in enumerate(zip(self.features(pictures), wanted, strict=True)):
            weight = self._get(f"lin{stage}.model.1.weight")
            total = total + F.conv2d((one - other).square(), weight).mean(dim=(1, 2, 3))
        return total

    def _get(self, name: str) -> Tensor:
        return self.get_buffer(name.replace(".", "_"))
