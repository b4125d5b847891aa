"""The one boundary of this package: ``denoiser(x, sigma, class_labels) -> x0``.

Whatever a network was trained to predict, it is wrapped here once, and every sampler works with it.
Each parameterization is a set of coefficients (Karras et al. 2022, Eq. 7)

    D(x; sigma) = c_skip * x + c_out * F(c_in * x, c_noise)

and the loss is the plain mean square error of what the network has to output,
``(x0 - c_skip x) / c_out``, which is the x0 error weighted by ``1 / c_out^2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from torch import Tensor, nn

from .checkpoint import (
    WEIGHTS_NAME,
    CheckpointInfo,
    join_parts,
    read_checkpoint,
    split_parts,
    write_checkpoint,
)
from .codec import Codec, build_codec, codec_of
from .codec_file import weights_hash
from .config import ModelConfig
from .device import choose_device, sampling_dtype
from .networks.autoencoder import Autoencoder
from .networks.layers import cast_weights_, pack_weights_
from .networks.unet import UNet
from .networks.upscaler import Upscaler
from .parameterizations import EDM, Parameterization, build_parameterization

HUB_LIBRARY = "cat-diffusion"  # what the Hugging Face Hub calls the library of a model


def build_unet(config: ModelConfig) -> UNet:
    """An untrained network of this shape."""
    shape = config.to_dict()
    del shape["parameterization"], shape["sigma_data"]
    return UNet(**shape)


class Denoiser(
    nn.Module,
    ModelHubMixin,
    library_name=HUB_LIBRARY,
    tags=["diffusion", "unconditional-image-generation", "cats"],
):
    """D(x; sigma, class_labels) -> x0: a raw network under its preconditioning.

    x: [N, C, H, W] float, x0 + sigma * noise, x0 in [-1, 1]; sigma: [N] or scalar, noise std;
    class_labels: as in ``UNet``, or None (the null class). Returns the estimate of x0, shape of x.
    ``guide`` is a weaker denoiser that knows no labels, for ``Guided`` to lead away from; None
    where there is none. ``codec`` turns x0 into pictures and back; by default that of pixels.
    """

    def __init__(
        self,
        model: nn.Module,
        parameterization: Parameterization | None = None,
        *,
        info: CheckpointInfo | None = None,
        guide: Denoiser | None = None,
        codec: Codec | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.parameterization = parameterization or EDM()
        # Only one made by hand may lack these two, and whoever made it asks nothing of them.
        self.info: CheckpointInfo = info  # type: ignore[assignment]
        self.guide = guide
        if codec is None and info is not None and info.codec is None:
            codec = build_codec(info.model, None)
        self.codec: Codec = codec  # type: ignore[assignment]

    @classmethod
    def from_config(cls, config: ModelConfig, *, info: CheckpointInfo | None = None) -> Denoiser:
        """An untrained denoiser of this shape, with the guide and the codec that ``info`` names."""
        guide = None
        if info and info.guide:
            guide = cls.from_config(info.guide).eval().requires_grad_(False)
        codec = build_codec(config, info.codec if info else None).eval().requires_grad_(False)
        network, parameterization = build_unet(config), build_parameterization(config)
        return cls(network, parameterization, info=info, guide=guide, codec=codec)

    def forward(
        self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None
    ) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[0])
        c_skip, c_out, c_in, c_noise = self.parameterization.coefficients(sigma)
        output = self.model(_per_image(c_in) * x, c_noise, class_labels).to(x.dtype)
        return torch.addcmul(_per_image(c_skip) * x, _per_image(c_out), output)

    def loss(
        self,
        x0: Tensor,
        sigma: Tensor,
        noise: Tensor,
        class_labels: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """Weighted denoising error of each image: [N]. Eq. 8 with weight 1 / c_out^2.

        x0, noise: [N, C, H, W]; sigma: [N]. Expected value 1 at each sigma for the zero network
        under EDM preconditioning, if x0 has mean 0 and standard deviation sigma_data.
        """
        c_skip, c_out, c_in, c_noise = map(_per_image, self.parameterization.coefficients(sigma))
        x = torch.addcmul(x0, _per_image(sigma), noise)
        target = (x0 - c_skip * x) / c_out
        extra = () if augment is None else (augment,)
        output = self.model(c_in * x, c_noise.flatten(), class_labels, *extra)
        return (output.float() - target).square().mean(dim=(1, 2, 3))

    # -- saving and loading -------------------------------------------------------------------

    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by what the names of its tensors begin with (see ``PARTS``)."""
        parts = {"": self.model}
        if self.guide is not None:
            parts["guide."] = self.guide.model
        if self.codec is not None and self.codec.network is not None:
            parts["codec."] = self.codec.network
        return parts

    def load_weights(self, state: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Take over the weights of a checkpoint, all parts of it; with ``assign`` the tensors
        themselves. Raises RuntimeError if they are of other parts or shapes."""
        own, given = self.parts(), split_parts(state)
        if own.keys() != given.keys():
            raise RuntimeError(f"The weights have the parts {set(given)}, not {set(own)}.")
        for prefix, module in own.items():
            module.load_state_dict(given[prefix], assign=assign)

    def guided_by(self, guide: Denoiser) -> Denoiser:
        """The same network with another guide. Raises ValueError for one that does not fit."""
        if self.info is None or guide.info is None:
            raise ValueError("A denoiser without CheckpointInfo can neither guide nor be guided.")
        line = f"guide: {guide.info.images_seen:,} images of {guide.info.data or 'unnamed data'}"
        info = self.info.without_guide()
        info = replace(info, guide=guide.info.model, history=(*info.history, line))
        if _encoder_hash(self) != _encoder_hash(guide):
            raise ValueError("This guide knows the latents of another encoder.")
        return Denoiser(self.model, self.parameterization, info=info, guide=guide, codec=self.codec)

    def decoded_by(self, network: Autoencoder | Upscaler) -> Denoiser:
        """The same network with another decoder behind it. Raises ValueError for one that does not
        fit."""
        if self.info is None:
            raise ValueError("A denoiser without CheckpointInfo can take no codec.")
        own = self.codec.network
        if isinstance(network, Upscaler) and self.info.in_latents:
            raise ValueError("This model draws latents, which an upscaler cannot enlarge.")
        if isinstance(network, Autoencoder):
            if not isinstance(own, Autoencoder):
                raise ValueError("This model draws pictures, which no autoencoder can decode.")
            if _encoder_hash(self) != weights_hash(network.encoder):
                raise ValueError(
                    "This codec has another encoder, whose latents the model does not know."
                )
        info = replace(self.info, codec=network.config)
        codec = codec_of(info.model, network)
        return Denoiser(self.model, self.parameterization, info=info, guide=self.guide, codec=codec)

    def save(self, path: str | Path) -> None:
        """Write weights (half precision) and ``info`` to one safetensors file, atomically."""
        if self.info is None:
            raise ValueError("This denoiser has no CheckpointInfo to save with it.")
        parts = {prefix: module.state_dict() for prefix, module in self.parts().items()}
        write_checkpoint(path, join_parts(parts), self.info)

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> Denoiser:
        """Read a checkpoint file. Raises ValueError with a plain sentence if it cannot be one."""
        state, info = read_checkpoint(path)
        try:
            with torch.device("meta"):  # shapes alone: a config is a stranger's claim
                denoiser = cls.from_config(info.model, info=info)
            denoiser.load_weights(state, assign=True)
        except (RuntimeError, TypeError, OverflowError):
            raise ValueError(
                f"The weights in {Path(path).name} do not fit its own config."
            ) from None
        # The stubs of torch lack this pair.
        denoiser.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return denoiser.eval().requires_grad_(False)

    @classmethod
    def load_for_sampling(cls, path: str | Path) -> Denoiser:
        """As ``load``, on the device at hand and with weights of the type that it draws fastest in:
        not to be trained or saved, which takes the exact ones."""
        device = choose_device()
        denoiser = cls.load(path, device=device)
        cast_weights_(denoiser, sampling_dtype(device))
        pack_weights_(denoiser)
        return denoiser

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory / WEIGHTS_NAME)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        **_: Any,
    ) -> Denoiser:
        local = Path(model_id)
        if local.is_dir():
            path: str | Path = local / WEIGHTS_NAME
        else:
            path = hf_hub_download(
                model_id,
                WEIGHTS_NAME,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        return cls.load(path, device=map_location)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _encoder_hash(denoiser: Denoiser) -> str:
    """Says what latents a denoiser draws; "" for one of pictures."""
    network = denoiser.codec.network
    return weights_hash(network.encoder) if isinstance(network, Autoencoder) else ""
