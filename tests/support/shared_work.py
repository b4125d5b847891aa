"""What several processes share, on tiny networks: ``shared_work.py OUT`` writes the results into a
folder, and what this process did of it beside them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from drawing import cats, write_folder
from helpers import SMALL, small_autoencoder, small_denoiser
from studio_fixtures import save_tiny

from diffusion.cli.main import main
from diffusion.codec import LatentCodec
from diffusion.codecs import redrawing
from diffusion.codecs.redrawing import redraw
from diffusion.data.dataset import load_images
from diffusion.data.latents import LATENTS_NAME, encode_images
from diffusion.distillation import trajectories
from diffusion.distillation.trajectories import draw_trajectories
from diffusion.evaluation import evaluate
from diffusion.evaluation.features import FEATURES
from diffusion.processes import join_processes
from diffusion.training import kept


class Means(torch.nn.Module):
    """Mean colours of the quarters of a picture: features [N, 12]."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 2).flatten(1)

    def is_cat(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, 0] > 0.5


def noted(function, done: list[int], size):
    """The function, which notes how much it was given."""

    def noting(*args, **options):
        done.append(size(*args))
        return function(*args, **options)

    return noting


def work(out: Path) -> dict[str, list[int]]:
    """Evaluate, encode, redraw and draw trajectories, these in two goes; how much was done in each
    call."""
    drawn: list[int] = []
    encoded: list[int] = []
    states: list[int] = []
    redrawn: list[int] = []
    evaluate.generate = noted(evaluate.generate, drawn, lambda _, seeds, *__: len(seeds))
    trajectories._draw = noted(trajectories._draw, states, lambda _, seeds, __: len(seeds))
    redrawing._redrawn = noted(redrawing._redrawn, redrawn, lambda _, __, rows: len(rows))
    trajectories.PER_FILE, kept.PER_FILE = 8, 16
    FEATURES["effnet-lite0"] = Means
    pictures = str(out.parent / "cats")
    wanted = ["evaluate", "--checkpoint", str(out.parent / "tiny.safetensors"), "--steps", "2"]
    wanted += ["--data", pictures, "--samples", "72", "--out", str(out / "report.json")]
    assert main(wanted) == 0
    codec = LatentCodec(small_autoencoder(), 4, sigma_data=0.5)
    codec.encode = noted(codec.encode, encoded, len)  # type: ignore[method-assign]
    images = load_images(pictures, image_size=16)
    encode_images(images, codec, out / LATENTS_NAME)
    redraw(small_denoiser(SMALL), images, out / "redrawn", model_hash="m")
    for count in (12, 20):
        made = draw_trajectories(
            small_denoiser(SMALL), out / "trajectories", steps=2, count=count, teacher_hash="t"
        )
    done = {"drawn": drawn, "encoded": encoded, "redrawn": redrawn, "states": states}
    return {**done, "all": list(made.states.shape)}


def prepare(folder: Path) -> None:
    """The pictures and the model that all the work is done with."""
    write_folder(folder / "cats", cats(60, 16))
    save_tiny(folder / "tiny.safetensors")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    done = work(out)
    number = join_processes().process_index
    (out / f"done-{number}.json").write_text(json.dumps(done))
