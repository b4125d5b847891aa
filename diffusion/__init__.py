"""Cat Diffusion: a small, complete diffusion library.

from diffusion import Denoiser, generate

denoiser = Denoiser.load_for_sampling("checkpoints/cat-heads-256.safetensors")
pictures = generate(denoiser, seeds=[42])  # uint8 [1, 3, 256, 256]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ModelConfig, SampleConfig, TrainConfig
    from .denoiser import Denoiser
    from .guidance import Guided
    from .presets import PRESETS
    from .samplers import SAMPLERS, SeededNoise, Step
    from .sampling import generate
    from .schedules import karras_sigmas

__version__ = "0.8.0"

__all__ = [
    "PRESETS",
    "SAMPLERS",
    "Denoiser",
    "Guided",
    "ModelConfig",
    "SampleConfig",
    "SeededNoise",
    "Step",
    "TrainConfig",
    "generate",
    "karras_sigmas",
]

# Imported when they are asked for: torch takes seconds, in which ``__main__`` would not yet be
# there to take Ctrl-C for an answer.
_MODULES = {
    **dict.fromkeys(("ModelConfig", "SampleConfig", "TrainConfig"), "config"),
    **dict.fromkeys(("SAMPLERS", "SeededNoise", "Step"), "samplers"),
    "Denoiser": "denoiser",
    "Guided": "guidance",
    "PRESETS": "presets",
    "generate": "sampling",
    "karras_sigmas": "schedules",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'diffusion' has no attribute '{name}'")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
