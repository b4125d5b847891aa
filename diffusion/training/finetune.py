"""Teach a trained network one more cat from a few pictures, and keep what it knew.

The new label gets an embedding of its own, which begins as that of the label that explains the
pictures best: a Siamese need not be learned from scratch by a network that knows Siamese. The
embedding learns much faster than the network, or the new cat would be learned by all labels alike.
So that the others survive, a share of every batch are pictures that the base model drew itself,
with the labels it drew them for (prior preservation: Ruiz et al. 2023, "DreamBooth", Sec. 3.3).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointInfo, read_checkpoint, taught_data
from ..config import (
    FINETUNE_CHECKPOINTS,
    LENGTHS,
    MAX_PICTURES,
    FinetuneConfig,
    ModelConfig,
    TrainConfig,
)
from ..data.dataset import ImageSet, load_images
from ..data.latents import as_latents
from ..denoiser import Denoiser
from ..device import autocast, choose_device, is_out_of_memory
from ..names import composed
from ..output.pictures import save_grid
from ..parameterizations import training_sigma
from ..sampling import generate
from .objectives import SAMPLE_COLUMNS, SAMPLE_SEEDS, Denoising, full_disk_as_sentence
from .replays import ExampleSet, Report, draw_replays, mix, replays_per_label
from .run_folder import (
    BASE_GRID,
    SAMPLES_NAME,
    STATE_NAME,
    RunProgress,
    RunState,
    is_finished,
)
from .trainer import Trainer

DRAW_BATCH = 16
SAMPLES = 8
ESTIMATE_STEPS = 6
LABEL_LOOKS = 64  # noise levels at which the pictures are tried with each label
HELDOUT_REPEATS = 16  # noise levels at which each held-out picture is looked at, or fewer where
HELDOUT_LOOKS = 256  # that comes to more looks than this: every checkpoint takes them
REPORT_SECONDS = 1.0


@torch.inference_mode()
def likeliest_label(
    denoiser: Denoiser, pictures: ExampleSet, config: TrainConfig, report: Report = lambda _: None
) -> int:
    """The class label, the null label among them, under which the pictures are denoised best, at
    the noise levels that ``config`` trains at.

    "Your diffusion model is secretly a zero-shot classifier" (Li et al. 2023), for all of the
    pictures together; noise levels and noise are the same for each label. ``report`` is given the
    share that is done.
    """
    classes = denoiser.info.model.num_classes
    if not classes:
        return 0
    device = next(denoiser.parameters()).device
    generator = torch.Generator().manual_seed(0)
    sigma = training_sigma(
        denoiser.parameterization, LABEL_LOOKS,
        P_mean=config.P_mean, P_std=config.P_std, generator=generator,
    )  # fmt: skip
    total = torch.zeros(classes + 1)
    for rows in torch.arange(LABEL_LOOKS).split(DRAW_BATCH):
        looked_at, _ = pictures.get(rows * len(pictures) // LABEL_LOOKS)
        x0 = pictures.x0(looked_at.to(device), generator, mirror=False)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        for label in range(classes + 1):
            labels = torch.full((len(rows),), label, device=device)
            loss = denoiser.loss(x0, sigma[rows].to(device), noise, labels)
            total[label] += loss.sum().cpu()
        report(float(rows[-1] + 1) / LABEL_LOOKS)
    return int(total.argmin())


def add_label(
    state: Mapping[str, Tensor], info: CheckpointInfo, label: str, *, like: int = -1
) -> tuple[dict[str, Tensor], CheckpointInfo]:
    """Weights and info of the same network with one more label, which begins as the class ``like``
    (-1: as the null label).

    Raises ValueError as ``CheckpointInfo.require_teachable``.
    """
    label = composed(label)
    info.require_teachable(label)
    model = info.model
    name = "class_embedding.weight"
    old = state.get(name)
    if old is None:  # unlabelled so far: an embedding that adds nothing
        old = torch.zeros(1, 4 * model.channels)
    # The null label stays the last row.
    state = {**state, name: torch.cat([old[:-1], old[like][None], old[-1:]])}
    values = {**model.to_dict(), "num_classes": model.num_classes + 1}
    counts = (*info.label_counts, 0) if info.label_counts else ()
    grown = replace(
        info,
        model=ModelConfig.from_dict(values),
        labels=(*info.labels, label),
        label_counts=counts,
    )
    return state, grown


def load_pictures(path: str | Path, info: CheckpointInfo, *, keep_copies: bool = False) -> ImageSet:
    """The owner's pictures, each with the newest label: centre squares, in memory.

    Raises ValueError for fewer than 8 or more than 2,000 usable ones.
    """
    images = load_images(
        path,
        image_size=info.training_size,
        labels=info.labels,
        photos=False,
        keep_copies=keep_copies,
    )
    if len(images) > MAX_PICTURES:
        raise ValueError(
            f"At most {MAX_PICTURES:,} pictures can be used, and there are {len(images):,}."
        )
    return replace(images, classes=torch.full((len(images),), len(info.labels) - 1))


def hold_out(images: ExampleSet) -> tuple[ExampleSet, ExampleSet]:
    """Training and held-out part; an eighth of the pictures, few of them to be looked at often."""
    training, heldout = images.split(max(1, len(images) // 8), at_most=0.125)
    repeats = max(1, min(HELDOUT_REPEATS, HELDOUT_LOOKS // len(heldout)))
    return training, heldout.subset(list(range(len(heldout))) * repeats)


def trainable(layers: str, model: ModelConfig) -> Callable[[str], bool]:
    """Whether a parameter, by its name, may change: all; all but the outermost level, which paints
    textures ("deep"); or the embeddings of the labels alone ("label")."""
    if layers == "all":
        return lambda name: True
    if layers == "label":
        return lambda name: name.startswith("class_embedding.")
    last = len(model.channel_mult) * model.num_blocks
    outermost = ["conv_in", "norm_out", "conv_out", "fine"]
    outermost += [f"down.{i}" for i in range(model.num_blocks)]
    outermost += [f"up.{last - i}" for i in range(model.num_blocks + 1)]
    frozen = tuple(f"{name}." for name in outermost)
    return lambda name: not name.startswith(frozen)


class Teaching(Denoising):
    """The denoising of the owner's pictures and of a share ``keep`` that the base model drew."""

    keep = 0.0

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "keep": self.keep}

    def is_same(self, identity: dict[str, Any]) -> bool:
        keep = identity.get("keep", self.keep)  # runs of before do not say
        if keep != self.keep:
            raise ValueError(f"This run was started with --keep {keep}. Use it, or another --out.")
        return super().is_same({k: v for k, v in identity.items() if k != "keep"})


class ProgressFile:
    """Tells whoever looks how far it is: ``progress.json``, replaced at most once a second."""

    def __init__(self, out: Path) -> None:
        self.out, self._last = out, 0.0
        self.progress = RunProgress.left_by(out)  # a run that goes on is as far as it was

    def prepared(self, share: float, message: str) -> None:
        """Tell that so much of the preparations is done, and what is being done."""
        self.write(state=RunState.PREPARING, prepared=round(share, 3), message=message)

    def write(self, **changes: Any) -> None:
        """Change some values and write all of them."""
        self._last = time.monotonic()
        self.progress = replace(self.progress, **changes, updated=time.time())
        self.progress.write(self.out)

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= REPORT_SECONDS


def finetune(
    base: str | Path,
    data: str | Path,
    out: str | Path,
    config: FinetuneConfig,
    *,
    keep_copies: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Fine-tune the checkpoint file ``base`` on the pictures in ``data``; the folder ``out`` gets
    the latest weights whose held-out loss had not risen, earlier ones, samples, metrics and
    progress. Run again, it goes on. ``keep_copies`` keeps pictures that repeat each other.

    Returns True when finished, False when ``stop()``. Raises ValueError with a sentence, which
    stands in ``progress.json`` as well.
    """
    progress = ProgressFile(Path(out))
    done = is_finished(Path(out))  # then it stays so, whatever is wrong with what is asked now
    try:
        with full_disk_as_sentence():
            if not done:
                progress.write()
            prepared = (lambda *_: None) if done else progress.prepared
            trainer = _prepare(
                base, data, Path(out), config, prepared=prepared, keep_copies=keep_copies
            )
            done = trainer.finished
            report = lambda loss: _report(progress, trainer, loss)  # noqa: E731
            finished = trainer.train(stop=stop, report=report)
    except (ValueError, OSError) as error:
        if not done:
            with suppress(OSError):  # the disk may be full
                progress.write(state=RunState.FAILED, message=str(error))
        raise
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if is_out_of_memory(error):
            progress.write(state=RunState.FAILED, message="There is not enough memory.")
        raise
    earlier = trainer.progress.risen_images > 0  # whether it ended early or not
    message = (
        ("The held-out loss was rising, so the weights from before that are kept.")
        if earlier
        else ""
    )
    progress.write(
        **_standing(trainer),
        state=RunState.FINISHED if finished else RunState.STOPPED,
        message=message if finished else "",
    )
    return finished


def _prepare(
    base: str | Path,
    data: str | Path,
    out: Path,
    config: FinetuneConfig,
    *,
    prepared: Callable[[float, str], None] = lambda share, message: None,
    keep_copies: bool = False,
) -> Trainer:
    """A trainer ready to begin, or to go on where it was stopped.

    ``prepared`` is given the share of the preparations that is done, by the time that they take,
    and a sentence.
    """
    prepared(0.0, "Reading the photos.")
    state, known = read_checkpoint(base)
    _, info = add_label(state, known, config.label)
    pictures = load_pictures(data, info, keep_copies=keep_copies)
    print(pictures.summary(), file=sys.stderr)
    examples: Any = as_latents(pictures, Path(base), out) if info.in_latents else pictures
    training, heldout = hold_out(examples)
    denoiser = Denoiser.load_for_sampling(base)
    begun = (out / STATE_NAME).exists()  # then its own state takes the place of the start
    finding = lambda share: prepared(0.1 + 0.2 * share, "Finding a coat to begin from.")  # noqa: E731
    like = -1 if begun else likeliest_label(denoiser, training, config.training(), finding)
    grown, _ = add_label(state, known, config.label, like=like)
    if not (out / SAMPLES_NAME / BASE_GRID).exists():
        drawn = generate(denoiser, SAMPLE_SEEDS[:SAMPLES])
        save_grid(drawn, out / SAMPLES_NAME / BASE_GRID, columns=SAMPLE_COLUMNS)
    if config.keep:
        drawing = lambda share: prepared(0.35 + 0.65 * share, "Drawing cats to remember.")  # noqa: E731
        training = mix(training, draw_replays(denoiser, training, drawing), config.keep)
    new = len(info.labels) - 1
    objective = Teaching(
        config.training(),
        replace(info, data=taught_data(config.label)),
        training,
        init=grown,
        heldout=heldout,
        sample_labels=[new] * SAMPLES,
    )
    objective.keep = config.keep
    return Trainer(
        config.training(), objective, out, trainable=trainable(config.layers, info.model)
    )


def _standing(trainer: Trainer) -> dict[str, Any]:
    """How far a trainer is, for ``progress.json``."""
    progress, config = trainer.progress, trainer.config
    speed = progress.images / max(progress.seconds, 1e-9)
    if config.images is None:
        assert config.minutes is not None  # the budget is one or the other
        left = 60 * config.minutes - progress.seconds
    else:
        left = (config.images - progress.images) / max(speed, 1e-9)
    return {
        "images": progress.images,
        "fraction": progress.fraction(config),
        "seconds": round(progress.seconds, 1),
        "seconds_left": round(max(0.0, left), 1),
        "images_per_second": round(speed, 2),
        "heldout_loss": progress.last_loss,
        "best_images": progress.best_images,
        "best_heldout_loss": progress.best_loss,
    }


def _report(file: ProgressFile, trainer: Trainer, loss: Tensor) -> None:
    """Once a second, and before the last checkpoint, which takes a while."""
    if file.due or trainer.finished:
        file.write(
            **_standing(trainer), state=RunState.TRAINING, message="", prepared=1.0,
            loss=float(loss),
        )  # fmt: skip


def estimate(base: str | Path) -> dict[str, float]:
    """Images per second that fine-tuning ``base`` reaches here, and the minutes that each of
    ``LENGTHS`` takes, measured on a few steps."""
    device = choose_device()
    denoiser = Denoiser.load(base, device=device)
    started = time.monotonic()
    labels = [0] * SAMPLES if denoiser.info.model.num_classes else None  # guidance by a label costs
    generate(denoiser, SAMPLE_SEEDS[:SAMPLES], class_labels=labels)
    drawing = time.monotonic() - started
    network = denoiser.model.train().requires_grad_(True)
    batch, model = FinetuneConfig.batch_size, denoiser.info.model
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    noise = torch.randn(batch, *denoiser.codec.shape).to(device)
    seconds = []
    for _ in range(ESTIMATE_STEPS):
        started = time.monotonic()
        with autocast(device):
            denoiser.loss(0.5 * noise, torch.ones(batch, device=device), noise).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.monotonic() - started)
    speed = batch / statistics.median(seconds)
    # In pictures: the tries of each label, and replays, which are drawn no slower than samples.
    each = LABEL_LOOKS / denoiser.info.sampling.num_steps + replays_per_label(model)
    pictures = each * (model.num_classes + 1)
    minutes = {}
    for name, images in LENGTHS.items():
        training = images / speed / 60
        checkpoints = max(FINETUNE_CHECKPOINTS, training)  # one a minute at least
        aside = drawing / 60 * (pictures / SAMPLES + 1.5 * checkpoints)  # draws and measures
        minutes[name] = round(training + aside, 2)
    return {"images_per_second": round(speed, 1), **minutes}
