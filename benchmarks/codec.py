"""What a codec loses: held-out pictures beside what it gives back, and how long both ways take.

python -m benchmarks.codec --data cat-heads-256.zip --codec FILE [--grid FILE.png]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.checkpoint import find_checkpoint
from diffusion.codec import LatentCodec
from diffusion.codec_file import load_autoencoder
from diffusion.codecs.codec_training import SETTINGS
from diffusion.data.dataset import load_images
from diffusion.device import choose_device
from diffusion.evaluation.features import BATCH_SIZE, FEATURES, extract_features
from diffusion.evaluation.metrics import kernel_distance
from diffusion.output.pictures import save_grid

from .yardstick import with_spread

SHOWN = 8
SPEED_LOOKS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder or zip of pictures")
    parser.add_argument("--codec", required=True, help="a codec, or a model with one")
    parser.add_argument("--size", type=int, default=256, metavar="PIXELS")
    parser.add_argument("--grid", metavar="FILE.png", help="originals above what comes back")
    options = parser.parse_args()
    codec = LatentCodec(load_autoencoder(find_checkpoint(options.codec)), 32, sigma_data=0.5)
    images = load_images(options.data, image_size=options.size, photos=False)
    held = images.split(SETTINGS["holdout"])[1]  # what ``train-codec`` holds out by default
    pictures, _ = held.get(torch.arange(len(held)))
    back = torch.cat([codec.decode(codec.encode(part)) for part in pictures.split(8)])
    network = FEATURES["effnet-lite0"]().to(choose_device())
    ours, theirs = (
        extract_features(network, part.split(BATCH_SIZE), device=choose_device())
        for part in (back, pictures)
    )
    x0 = codec.encode(pictures[:16])
    print(f"{len(pictures)} held-out pictures of {images.image_size} pixels")
    print(f"  PSNR           {psnr(pictures, back).mean():.1f} dB")
    print(f"  KID x 1000     {with_spread(kernel_distance(ours, theirs))} from the originals")
    print(f"  encode, one    {milliseconds(lambda: codec.encode(pictures[:1])):.0f} ms")
    print(f"  decode, one    {milliseconds(lambda: codec.decode(x0[:1])):.0f} ms")
    print(f"  decode, of 16  {milliseconds(lambda: codec.decode(x0)) / 16:.0f} ms each")
    if options.grid:
        save_grid(torch.cat([pictures[:SHOWN], back[:SHOWN]]), options.grid, columns=SHOWN)


def psnr(pictures: Tensor, back: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB: uint8 [N, 3, S, S] twice -> [N]."""
    error = (pictures.float() - back.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / error)


def milliseconds(work: Callable[[], object]) -> float:
    """The fastest of some looks, after one to warm up."""
    work()
    looks = []
    for _ in range(SPEED_LOOKS):
        started = time.monotonic()
        work()
        looks.append(time.monotonic() - started)
    return 1000 * min(looks)


if __name__ == "__main__":
    main()
