"""``python -m diffusion`` with one more preset, "tiny", and shards of 32 pictures, for the tests
that need a real process."""

from __future__ import annotations

from dataclasses import replace

from helpers import SMALL

from diffusion.cli.main import main
from diffusion.output import bulk
from diffusion.presets import PRESETS, Preset

TINY = Preset(
    replace(SMALL, image_size=16, channels=8, augment_channels=6, dropout=0.1),
    {
        "batch_size": 4,
        "lr": 2e-3,
        "augment": 0.3,
        "warmup_images": 8,
        "ema_halflife_images": 100,
        "precision": "fp32",
    },
)

if __name__ == "__main__":
    PRESETS["tiny"] = TINY
    bulk.SHARD, bulk.CPU_BATCH = 32, 16
    raise SystemExit(main())
