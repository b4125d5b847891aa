"""What the commands of ``python -m diffusion`` do, given their options."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from .animate import FORMATS as ANIMATION_FORMATS
from .animate import MAX_FILM_PICTURES, Recorder, film_frames, write_animation
from .average import average
from .checkpoint import (
    PARTS,
    CheckpointInfo,
    find_checkpoint,
    read_checkpoint,
    shipped_checkpoints,
    split_parts,
    write_checkpoint,
)
from .codec_file import load_codec
from .config import LENGTHS, MAX_SIZE, AutoencoderConfig, SampleConfig, TrainConfig
from .data import ImageSet, load_images
from .denoiser import Denoiser
from .device import choose_device
from .evaluate import DISTANCES, evaluate, load_real
from .features import FEATURES
from .files import atomic_path
from .grow import grow, grow_into_latents
from .latents import as_latents
from .pictures import save_grid, save_picture
from .presets import PRESETS, get_preset
from .run_folder import STATE_NAME
from .sampling import generate
from .sources import join_labels

if TYPE_CHECKING:
    from .trainer import Trainer

GRID_FORMATS = (".png", ".jpg", ".webp")
SAMPLE_BATCH = 16  # pictures drawn at once
MAX_SEEDS = 100_000
TRAIN_OPTIONS = [
    field.name for field in fields(TrainConfig) if field.name not in ("images", "minutes")
]
OF_DENOISING = ("label_lr", "P_mean", "P_std", "label_dropout", "augment")
CODEC_OPTIONS = [name for name in TRAIN_OPTIONS if name not in OF_DENOISING]


def parse_seeds(text: str) -> list[int]:
    """``"0-3,8"`` -> [0, 1, 2, 3, 8]. Raises ValueError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})\s*(?:-\s*(\d{1,19})\s*)?", part)
        if match is None:
            raise ValueError(
                f"'{text}' is not a list of seeds. Write for example 7, 0-63 or 1,5,8-9."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(
                f"In the seeds {first}-{last}, the first number must not be larger than the last."
            )
        if len(seeds) + last - first >= MAX_SEEDS:
            raise ValueError(f"At most {MAX_SEEDS:,} seeds at once.")
        seeds.extend(range(first, last + 1))
    return seeds


def run_train(args: argparse.Namespace) -> None:
    """Train, or go on where the run in ``--out`` stopped."""
    from .finetune import add_label
    from .objectives import Denoising
    from .trainer import Trainer, stop_on_signal

    out = _folder(args.out)
    init, start = read_checkpoint(find_checkpoint(args.init)) if args.init else (None, None)
    own = start.preset if start and start.preset in PRESETS else "cat-64-lite"
    preset_name = args.preset or own
    preset = get_preset(preset_name)
    config = TrainConfig.from_dict({**preset.train, **_given(args)})
    if args.resume and not (out / STATE_NAME).exists():
        raise ValueError(f"There is no run to resume in {out}.")
    data = " and ".join(Path(path).absolute().stem for path in args.data)
    if start:
        assert init is not None  # read together with ``start``
        for label in _new_labels(args, start):
            init, start = add_label(init, start, label)
        images = _load(args, start.picture_size, start.labels)
        info = replace(start, data=data)
    else:
        images = _load(args, preset.model.image_size, None)
        model = replace(preset.model, num_classes=len(images.labels))
        info = CheckpointInfo(
            model=model,
            labels=images.labels,
            preset=preset_name,
            data=data,
            sampling=preset.sampling,
        )
    if any(images.label_counts):
        info = replace(info, label_counts=images.label_counts)
    examples = as_latents(images, find_checkpoint(args.init), out) if info.codec else images
    trainer = Trainer(config, Denoising(config, info, examples, init=init), out)
    del images, examples, init  # of which it has copies
    with stop_on_signal() as stop:
        _tell(trainer, finished=trainer.train(stop=stop))


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a training that were given on the command line."""
    found = {field.name: getattr(args, field.name, None) for field in fields(TrainConfig)}
    return {name: value for name, value in found.items() if value is not None}


def _tell(trainer: Trainer, *, finished: bool) -> None:
    state = "Finished" if finished else "Stopped. Run the same command to go on"
    trainer.accelerator.print(
        f"{state}: {trainer.progress.images:,} images, {trainer.out}", file=sys.stderr
    )


def _new_labels(args: argparse.Namespace, start: CheckpointInfo) -> list[str]:
    """The labels in the CSV files that a checkpoint does not know yet, told on stderr."""
    new = sorted(set(join_labels(args.labels).values()) - set(start.labels))
    if new and start.labels:
        print(f"New labels: {', '.join(new)}", file=sys.stderr)
    return new


def run_train_codec(args: argparse.Namespace) -> None:
    """Train a codec, or go on where the run in ``--out`` stopped."""
    from .codec_training import SETTINGS, CodecTraining, latent_shape, psnr
    from .perceptual import PerceptualDistance
    from .teacher import teacher_latents
    from .trainer import Trainer, stop_on_signal

    if not (args.latents or args.init):
        raise ValueError("Give --latents to learn from, a codec to go on with (--init), or both.")
    out = _folder(args.out)
    config = TrainConfig.from_dict({**SETTINGS, **_given(args)})
    init = load_codec(args.init) if args.init else AutoencoderConfig()
    shape = latent_shape(init if isinstance(init, AutoencoderConfig) else init.config, args.size)
    perceptual = PerceptualDistance.load()
    images = load_images(args.data, image_size=args.size, photos=False)
    print(images.summary(), file=sys.stderr)
    latents = None
    if args.latents:
        latents = teacher_latents(args.latents, images.names, shape=shape)
    data = " and ".join(Path(path).absolute().stem for path in args.data)
    objective = CodecTraining(
        config, init, images, latents=latents, perceptual=perceptual, data=data
    )
    del images, latents  # of which it has copies
    trainer = Trainer(config, objective, out, trainable=objective.learns)
    with stop_on_signal() as stop:
        _tell(trainer, finished=trainer.train(stop=stop))
    if trainer.progress.last_loss:
        told = f"Held-out pictures, encoded and decoded: {psnr(trainer.progress.last_loss):.2f} dB"
        trainer.accelerator.print(told, file=sys.stderr)


def run_distill(args: argparse.Namespace) -> None:
    """Draw a teacher's trajectories and train a student on them, or go on with either."""
    from .distill import SETTINGS, Distilling
    from .trainer import Trainer, stop_on_signal
    from .trajectories import FOLDER_NAME, draw_trajectories

    out, path = _folder(args.out), find_checkpoint(args.teacher)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = TrainConfig.from_dict({**SETTINGS, **_given(args)})
    trajectories = draw_trajectories(
        Denoiser.load_for_sampling(path),
        out / FOLDER_NAME,
        steps=args.steps,
        count=args.seeds,
        teacher_hash=digest,
    )
    objective = Distilling(Denoiser.load(path), trajectories, teacher_hash=digest)
    trainer = Trainer(config, objective, out)
    with stop_on_signal() as stop:
        _tell(trainer, finished=trainer.train(stop=stop))


def run_finetune(args: argparse.Namespace) -> None:
    """Fine-tune, or go on where the run in ``--out`` stopped."""
    from .finetune import FinetuneConfig, estimate, finetune
    from .trainer import stop_on_signal

    base = find_checkpoint(args.base)
    if args.estimate:
        print(json.dumps(estimate(base)))
        return
    for option in ("data", "label", "out"):
        if not getattr(args, option):
            raise ValueError(f"--{option} is required.")
    names = [field.name for field in fields(FinetuneConfig)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.minutes is None and args.images is None:
        given["images"] = LENGTHS[args.length]
    out = _folder(args.out)
    with stop_on_signal() as stop:
        config = FinetuneConfig(**given)
        finished = finetune(base, args.data, out, config, keep_copies=args.keep_both, stop=stop)
    print("Finished." if finished else "Stopped. Run the same command to go on.", file=sys.stderr)


def _folder(path: str) -> Path:
    """The folder to write to; raises ValueError, before any work is done, if it is a file."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but --out must be a folder.")
    return folder


def _load(args: argparse.Namespace, size: int, labels: Sequence[str] | None) -> ImageSet:
    images = load_images(
        args.data, image_size=size, labels_csv=args.labels, labels=labels, photos=args.photos,
        keep_copies=args.keep_both,
    )  # fmt: skip
    print(images.summary(), file=sys.stderr)
    return images


def run_guide(args: argparse.Namespace) -> None:
    """Write a checkpoint that holds another as its guide."""
    _check_ending(args.out, (".safetensors",))
    denoiser, guide = (Denoiser.load(find_checkpoint(name)) for name in (args.checkpoint, args.by))
    denoiser.guided_by(guide).save(args.out)


def run_grow(args: argparse.Namespace) -> None:
    """Write a checkpoint for pictures of twice the size."""
    _check_ending(args.out, (".safetensors",))
    denoiser = Denoiser.load(find_checkpoint(args.checkpoint))
    if args.codec:
        grow_into_latents(denoiser, load_codec(args.codec)).save(args.out)
    else:
        grow(denoiser).save(args.out)
    if denoiser.guide:
        print("The new checkpoint has no guide: the old one draws small pictures.", file=sys.stderr)


def run_average(args: argparse.Namespace) -> None:
    """Write a checkpoint with the mean of others' weights."""
    _check_ending(args.out, (".safetensors",))
    averaged = average([read_checkpoint(find_checkpoint(name)) for name in args.checkpoints])
    write_checkpoint(args.out, *averaged)


def run_sample(args: argparse.Namespace) -> None:
    """Draw pictures and write them as asked."""
    if not (args.out or args.grid or args.animation):
        raise ValueError(
            "Say where to write the pictures: --out DIR, --grid FILE.png or --animation FILE.gif."
        )
    if args.out:
        _folder(args.out)
    _check_ending(args.grid, GRID_FORMATS)
    _check_ending(args.animation, ANIMATION_FORMATS)
    seeds = parse_seeds(args.seeds)
    if args.animation and len(seeds) > MAX_FILM_PICTURES:
        raise ValueError(f"An animation shows at most {MAX_FILM_PICTURES} pictures.")
    denoiser = Denoiser.load_for_sampling(find_checkpoint(args.checkpoint))
    info = denoiser.info
    info.label_index(args.label)  # raises for one that it does not know
    config = _sampling(args, info)
    drawn, steps = [], []
    with tqdm(total=len(seeds), unit="picture") as bar:
        for start in range(0, len(seeds), SAMPLE_BATCH):
            batch = seeds[start : start + SAMPLE_BATCH]
            recorder = Recorder(denoiser.codec) if args.animation else None
            labels = [info.label_index(args.label or info.any_label(seed)) for seed in batch]
            pictures = generate(denoiser, batch, config, class_labels=labels, callback=recorder)
            if args.out:
                for seed, picture in zip(batch, pictures, strict=True):
                    save_picture(picture, Path(args.out, f"{seed:06d}.png"))
            if args.grid:
                drawn.append(pictures)
            if recorder:
                steps.append(recorder.steps)
            bar.update(len(batch))
    if args.grid:
        save_grid(torch.cat(drawn), args.grid)
    if args.animation:
        write_animation(film_frames(map(torch.cat, zip(*steps, strict=True))), args.animation)


def _sampling(args: argparse.Namespace, info: CheckpointInfo) -> SampleConfig:
    """What the checkpoint recommends, with what was asked for instead."""
    asked = {"sampler": args.sampler, "num_steps": args.steps, "guidance": args.guidance}
    given = {name: value for name, value in asked.items() if value is not None}
    return replace(info.sampling, **given)


def _check_ending(path: str | None, endings: Sequence[str]) -> None:
    """Before any work is done: what is written tells its format by its name."""
    if path and Path(path).suffix.lower() not in endings:
        raise ValueError(f"{path} must end in {' or '.join(endings)}.")


def run_evaluate(args: argparse.Namespace) -> None:
    """Draw many pictures, compare them with real ones, and print and write the figures."""
    _check_ending(args.out, (".json",))
    _check_ending(args.plot, GRID_FORMATS)
    if args.samples > MAX_SEEDS:
        raise ValueError(f"At most {MAX_SEEDS:,} samples.")
    device = choose_device()
    path = find_checkpoint(args.checkpoint)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()  # a run in progress may replace it
    denoiser = Denoiser.load_for_sampling(path)
    info = denoiser.info
    config = _sampling(args, info)
    images = load_real(args.data, info, labels_csv=args.labels, size=args.size)
    print(images.summary(), file=sys.stderr)
    network = FEATURES[args.features]().to(device)
    evaluation = evaluate(denoiser, images, network, config, samples=args.samples)
    report = {
        "checkpoint": path.stem,
        "sha256": digest,
        "images_seen": info.images_seen,
        "data": Path(args.data).absolute().stem,
        "features": args.features,
        **evaluation.report,
    }
    if args.out:
        with atomic_path(args.out) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
    if args.plot:
        save_grid(evaluation.closest, args.plot, columns=len(evaluation.closest) // 4)
    _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    found = {name: _shown(value) for name, value in report.items() if name in DISTANCES}
    print(
        f"{report['checkpoint']}, {report['images_seen']:,} images seen, "
        f"compared at {report['image_size']} pixels"
    )
    print(f"  FD {found['fd']}, KID x 1000 {found['kid']} (spread {found['kid_spread']})")
    print(f"  precision {found['precision']}, recall {found['recall']}")
    for name, words in (("label_accuracy", "looks like its label"), ("cat_share", "is a cat")):
        samples, pictures = map(_shown, report[name].values())
        print(f"  {words}: {samples} of the samples, {pictures} of real pictures")
    for kind, values in report["memorising"].items():
        nearer, suspicious = _shown(values["nearer"]), _shown(values["suspicious"])
        print(f"  nearer to training pictures than held-out ones are, by {kind}: {nearer}", end="")
        print(f" (0.5 means nothing memorised), suspiciously near: {suspicious} (expected: 0.01)")


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def run_inspect(args: argparse.Namespace) -> None:
    """Say what a data set or a checkpoint holds."""
    if args.path in shipped_checkpoints() or args.path.endswith(".safetensors"):
        _print_checkpoint(find_checkpoint(args.path))
        return
    if not 1 <= args.size <= MAX_SIZE:
        raise ValueError(f"--size must be between 1 and {MAX_SIZE}, not {args.size}.")
    images = load_images(args.path, image_size=args.size, labels_csv=args.labels)
    print(images.summary(lines=len(images.skipped)))


def _print_checkpoint(path: Path) -> None:
    state, info = read_checkpoint(path)
    millions = {
        prefix: sum(tensor.numel() for tensor in tensors.values()) / 1e6
        for prefix, tensors in split_parts(state).items()
    }
    model, size = info.model, info.picture_size
    print(f"{path.name}: {millions['']:.1f} M parameters, {path.stat().st_size / 1e6:.1f} MB")
    print(f"  pictures      {size}x{size}, {model.parameterization}")
    print(f"  preset        {info.preset or 'none'}")
    print(f"  trained on    {info.data or 'unknown'}, {info.images_seen:,} images seen")
    print(f"  labels        {', '.join(info.labels) or 'none'}")
    for prefix in PARTS:
        count = millions.get(prefix)
        told = f"a network of {count:.1f} M parameters" if count else "none"
        print(f"  {prefix.removesuffix('.'):14}{told}")
