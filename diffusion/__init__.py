"""Cat Diffusion: a small, complete diffusion library.

from diffusion import Denoiser, generate

denoiser = Denoiser.load_for_sampling("checkpoints/cat-heads-128.safetensors")
pictures = generate(denoiser, seeds=[42])  # uint8 [1, 3, 128, 128]
"""

from .config import PRESETS, ModelConfig, SampleConfig, TrainConfig
from .denoiser import Denoiser
from .guidance import Guided
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
