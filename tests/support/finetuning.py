"""Short fine-tunings, and what they tell of themselves."""

import json
from pathlib import Path

from diffusion.config import FinetuneConfig
from diffusion.run_folder import PROGRESS_NAME


def config(**changes) -> FinetuneConfig:
    return FinetuneConfig(**{"label": "Mia", "images": 64, "batch_size": 4, **changes})


def progress(out: Path) -> dict:
    return json.loads((out / PROGRESS_NAME).read_text())
