"""From seeds and settings to pictures: what the command line and the web page both call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import SampleConfig
from .denoiser import Denoiser
from .fitted import Fitted
from .guidance import Guided, Repaint
from .samplers import SAMPLERS, Callback, SeededNoise
from .schedules import ddpm_sigmas, karras_sigmas

FINE_STEPS = 1000  # of the grid between whose levels a strength is looked up
SEAM = 3  # pixels over which a repainted part fades into what is kept
MAX_SEED = 2**53 - 1  # the largest whole number that JSON and a web page hold exactly


def check_seed(seed: int) -> int:
    """The seed itself; raises ValueError for what is no whole number from 0 to MAX_SEED."""
    if not (hasattr(seed, "__index__") and 0 <= seed <= MAX_SEED):
        raise ValueError(
            f"A seed must be a whole number from 0 to {MAX_SEED}, not {str(seed)[:40]}."
        )
    return seed


def sampling_sigmas(config: SampleConfig) -> Tensor:
    """The sigma grid of ``config``: the DDPM timesteps for the DDPM sampler, what the fitted one
    was fitted for, else Karras's.

    A ``strength`` below 1 keeps the last part of the grid, which then begins at exactly the noise
    level of that strength (see ``noise_level``) rather than at the nearest one of the grid. Where
    the grid ends at much noise, as a student's does, that can be below all of it: one step is left.
    """
    sigmas = _grid(config, config.num_steps)[config.num_steps - config.steps_to_take :]
    place = (1 - config.strength) * (config.num_steps - 1)
    usual = config.num_steps > 1 and config.sigma_min <= SampleConfig.sigma_min
    on_grid = config.strength == 1 or (usual and abs(place - round(place)) < 1e-9)
    if not on_grid:
        sigmas[0] = noise_level(config)
        sigmas = torch.cat([sigmas[:1], sigmas[1:][sigmas[1:] < sigmas[0]]])
    return sigmas


def noise_level(config: SampleConfig) -> float:
    """The noise std from which sampling starts: the same at any number of steps.

    A ``strength`` of 0.3 is three tenths up a grid of 1,000 steps, from its smallest sigma, and
    from no larger one than usual: a strength means the same to a student and its teacher.
    """
    fine = replace(config, sigma_min=min(config.sigma_min, SampleConfig.sigma_min))
    sigmas = _grid(fine, FINE_STEPS)[:-1]
    place = (1 - config.strength) * (FINE_STEPS - 1)
    index = min(int(place), FINE_STEPS - 2)
    low, high = sigmas[index : index + 2].log().tolist()
    return math.exp(low + (place - index) * (high - low))


def _grid(config: SampleConfig, num_steps: int) -> Tensor:
    if config.sampler == "ddpm":
        return ddpm_sigmas(num_steps)
    if _solver(config) == "fitted":
        return torch.tensor(Fitted.of(num_steps).sigmas, dtype=torch.float64)
    return karras_sigmas(
        num_steps, sigma_min=config.sigma_min, sigma_max=config.sigma_max, rho=config.rho
    )


def _solver(config: SampleConfig) -> str:
    """The sampler that draws: one that was fitted to whole grids cannot begin amid one."""
    amid = config.sampler == "fitted" and config.strength < 1
    return "dpmpp_2m" if amid else config.sampler


@dataclass(frozen=True, eq=False)
class Start:
    """What sampling starts from: one row per picture, on the CPU. Rows of several can be joined.

    seeds: of the noise that stochastic samplers add; noise: [N, C, H, W] unit normal, the shape of
    x0; labels: [N, num_classes + 1] weights; picture: uint8 [N, 3, S, S], to start from (SDEdit,
    Meng et al. 2022) or None; keep: bool [N, 1, S, S], pixels that must stay, or None.
    """

    seeds: tuple[int, ...]
    noise: Tensor
    labels: Tensor
    picture: Tensor | None = None
    keep: Tensor | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def rows(self, rows: slice) -> Start:
        """Some of the pictures."""
        parts = (None if t is None else t[rows] for t in (self.picture, self.keep))
        return Start(self.seeds[rows], self.noise[rows], self.labels[rows], *parts)

    @staticmethod
    def join(starts: Sequence[Start]) -> Start:
        """All pictures of several starts; all or none have a picture, and a part to keep."""

        def cat(tensors: list[Tensor | None]) -> Tensor | None:
            return None if tensors[0] is None else torch.cat(cast(list[Tensor], tensors))

        return Start(
            sum((s.seeds for s in starts), ()),
            torch.cat([s.noise for s in starts]),
            torch.cat([s.labels for s in starts]),
            cat([s.picture for s in starts]),
            cat([s.keep for s in starts]),
        )


def label_weights(denoiser: Denoiser, class_labels: Sequence[int] | None, num: int) -> Tensor:
    """Class indices (None: all the null class) as weights [num, num_classes + 1].

    Raises ValueError unless there are ``num`` of them, each from 0 to num_classes.
    """
    classes = denoiser.info.model.num_classes
    labels = torch.full((num,), classes) if class_labels is None else torch.as_tensor(class_labels)
    if labels.shape != (num,) or ((labels < 0) | (labels > classes)).any():
        raise ValueError(f"{num} pictures need {num} class labels, each from 0 to {classes}.")
    return torch.nn.functional.one_hot(labels.long(), classes + 1).float()


def seed_noise(denoiser: Denoiser, seeds: Sequence[int]) -> Tensor:
    """The unit normal noise that each seed begins with: [N, C, H, W]. Raises ValueError for no
    seeds, and for any that is not a whole number from 0 to MAX_SEED."""
    if not len(seeds):
        raise ValueError("Give at least one seed.")
    return SeededNoise([check_seed(seed) for seed in seeds], denoiser.codec.shape)()


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Along the great circle from noise a (t 0) to noise b (t 1), keeping its length: [C, S, S]."""
    cosine = torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if angle < 1e-4:
        return torch.lerp(a, b, t)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def from_seeds(
    denoiser: Denoiser, seeds: Sequence[int], class_labels: Sequence[int] | None = None
) -> Start:
    """The plain start: each seed's own noise."""
    noise = seed_noise(denoiser, seeds)
    return Start(tuple(seeds), noise, label_weights(denoiser, class_labels, len(seeds)))


def draw(
    denoiser: Denoiser,
    start: Start,
    config: SampleConfig,
    *,
    callback: Callback | None = None,
    preview: bool = False,
) -> Tensor:
    """Sample from ``start``, with settings such as ``denoiser.info.sampling``: pictures uint8
    [N, 3, S, S] on the CPU. With ``preview`` they are those of ``Codec.preview``, soft and soon.
    Raises ValueError for an unknown sampler."""
    x0 = draw_x0(denoiser, start, config, callback=callback)
    codec = denoiser.codec
    pictures = (codec.preview(x0) if preview else codec.decode(x0)).cpu()
    if start.picture is None or start.keep is None or denoiser.codec.exact:
        return pictures
    return paste_kept(pictures, start.picture, start.keep)


def draw_x0(
    denoiser: Denoiser, start: Start, config: SampleConfig, *, callback: Callback | None = None
) -> Tensor:
    """As ``draw``, but x0 before it becomes pictures: [N, C, H, W] on the denoiser's device.

    If the callback stops it, x0 is the estimate of that moment.
    """
    if config.sampler not in SAMPLERS:
        raise ValueError(
            f"There is no sampler '{config.sampler}'; there are {', '.join(SAMPLERS)}."
        )
    device = next(denoiser.parameters()).device
    sigmas = sampling_sigmas(config)
    noise = SeededNoise(start.seeds, start.noise.shape[1:], device=device)
    noise()  # the first draw of each seed is its start
    x = start.noise.to(device) * sigmas[0].item()
    estimate: nn.Module = guided(denoiser, start, config)
    if start.picture is not None:
        picture = denoiser.codec.encode(start.picture.to(device))
        x = x + picture
        if start.keep is not None:
            estimate = Repaint(estimate, picture, denoiser.codec.keep_mask(start.keep.to(device)))
    labels = start.labels.to(device) if denoiser.info.model.num_classes else None
    sampler = SAMPLERS[_solver(config)]
    return sampler(estimate, x, sigmas, class_labels=labels, noise=noise, callback=callback)


def guided(denoiser: Denoiser, start: Start, config: SampleConfig) -> Guided:
    """The denoiser with the guidance of ``config``; none where that would change nothing."""
    null = denoiser.info.model.num_classes
    aimless = denoiser.guide is None and bool((start.labels[:, null] == 1).all())
    guidance = 1.0 if aimless else config.guidance  # from the null label to itself: half the work
    return Guided(
        denoiser,
        guidance,
        null_label=null,
        guide=denoiser.guide,
        below=config.guided_below,
        texture_below=config.texture_below,
        texture_share=config.texture_share,
    )


def paste_kept(drawn: Tensor, picture: Tensor, keep: Tensor) -> Tensor:
    """``picture`` where ``keep``, else what was drawn: uint8 [N, 3, S, S].

    For codecs that lose something, which would change the part that must stay. Inside the drawn
    part, the pixels nearest to the kept ones fade into the picture, so that no seam shows.
    """
    near = F.pad(keep.float(), (SEAM,) * 4, mode="replicate")
    share = F.avg_pool2d(near, 2 * SEAM + 1, stride=1)  # of kept pixels around each
    blended = torch.lerp(drawn.float(), picture.float(), share).round().to(torch.uint8)
    return torch.where(keep, picture, blended)


def generate(
    denoiser: Denoiser,
    seeds: Sequence[int],
    config: SampleConfig | None = None,
    *,
    class_labels: Sequence[int] | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Draw one picture per seed: uint8 [N, 3, S, S] on the CPU.

    ``config`` is by default what the checkpoint recommends, ``denoiser.info.sampling``; to change
    some of it, use ``dataclasses.replace``. ``class_labels`` gives each picture its class index
    (None: all unlabelled). The same seed, label and settings give the same picture at any batch
    size, but for the last bit of a float. Raises ValueError for an unknown sampler, labels that do
    not fit, and for what is no seed.
    """
    start = from_seeds(denoiser, seeds, class_labels)
    return draw(denoiser, start, config or denoiser.info.sampling, callback=callback)
