"""What the commands of ``python -m diffusion`` that train do, given their options."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import HASH_LENGTH, CheckpointInfo, find_checkpoint, read_checkpoint
from ..codec_file import load_autoencoder, load_upscaler
from ..config import LENGTHS, AutoencoderConfig, TrainConfig, UpscalerConfig
from ..data.dataset import ImageSet, load_images
from ..data.latents import as_latents
from ..data.sources import join_labels
from ..denoiser import Denoiser
from ..files import file_hash, out_folder
from ..presets import PRESETS, get_preset
from ..training.run_folder import STATE_NAME
from .interrupt import stop_on_signal

if TYPE_CHECKING:
    from ..training.objectives import Denoising
    from ..training.trainer import Trainer

TRAIN_OPTIONS = [
    field.name for field in fields(TrainConfig) if field.name not in ("images", "minutes")
]
OF_DENOISING = ("label_lr", "P_mean", "P_std", "label_dropout", "augment")
CODEC_OPTIONS = [name for name in TRAIN_OPTIONS if name not in OF_DENOISING]
DISTILL_OPTIONS = [name for name in CODEC_OPTIONS if name not in ("mirror", "holdout")]


def run_train(args: argparse.Namespace) -> None:
    """Train, or go on where the run in ``--out`` stopped."""
    from ..training.ddo import SETTINGS as DDO_SETTINGS
    from ..training.finetune import add_label
    from ..training.trainer import Trainer

    if args.drawings is not None and not args.init:
        raise ValueError("Give the model that draws (--init) together with --drawings.")
    out = out_folder(args.out)
    init, start = read_checkpoint(find_checkpoint(args.init)) if args.init else (None, None)
    own = start.preset if start and start.preset in PRESETS else "cat-64-lite"
    preset_name = args.preset or own
    preset = get_preset(preset_name)
    suited = preset.train if args.drawings is None else {**preset.train, **DDO_SETTINGS}
    config = TrainConfig.from_dict({**suited, **_given(args)})
    if args.resume and not (out / STATE_NAME).exists():
        raise ValueError(f"There is no run to resume in {out}.")
    if start:
        assert init is not None  # read together with ``start``
        if start.teacher:
            raise ValueError("This model is a student. Train its teacher, or use distill --init.")
        for label in _new_labels(args, start):
            init, start = add_label(init, start, label)
        if start.in_latents and args.photos:
            raise ValueError("Latents are of whole squares. Leave --photos out.")
        photos = False if start.in_latents else args.photos  # latents are not cropped anew
        images = _load(args, start.training_size, start.labels, photos=photos)
        info = replace(start, data=_data_name(args))
    elif preset.model.image_channels != 3:
        raise ValueError("This preset draws latents. Make a model with grow --codec, then --init.")
    else:
        images = _load(args, preset.model.image_size, None, photos=args.photos)
        model = replace(preset.model, num_classes=len(images.labels))
        info = CheckpointInfo(
            model=model,
            labels=images.labels,
            preset=preset_name,
            data=_data_name(args),
            sampling=preset.sampling,
        )
    if any(images.label_counts):
        info = replace(info, label_counts=images.label_counts)
    examples = as_latents(images, find_checkpoint(args.init), out) if info.in_latents else images
    trainer = Trainer(config, _denoising(args, config, info, examples, init), out)
    del images, examples, init  # of which it has copies
    _run(trainer)


def _denoising(
    args: argparse.Namespace, config: TrainConfig, info: CheckpointInfo, examples: Any, init: Any
) -> Denoising:
    """What ``train`` trains for: to denoise, or also to tell pictures from drawings."""
    from ..training.ddo import FOLDER_NAME, Discriminating, own_drawings
    from ..training.objectives import Denoising

    if args.drawings is None:
        return Denoising(config, info, examples, init=init)
    path = find_checkpoint(args.init)
    model = Denoiser.load_for_sampling(path)
    if model.info.labels != info.labels:
        raise ValueError("The model that draws must know all labels. Train it on them first.")
    drawings = own_drawings(
        model, examples, Path(args.out) / FOLDER_NAME,
        count=args.drawings, model_hash=file_hash(path),
    )  # fmt: skip
    return Discriminating(config, info, examples, drawings, init=init)


def run_train_codec(args: argparse.Namespace) -> None:
    """Train a codec, or go on where the run in ``--out`` stopped."""
    from ..codecs.codec_training import SETTINGS, CodecTraining, latent_shape
    from ..data.teacher import teacher_latents
    from ..training.perceptual import PerceptualDistance
    from ..training.trainer import Trainer

    if not (args.latents or args.init):
        raise ValueError("Give --latents to learn from, a codec to go on with (--init), or both.")
    out = out_folder(args.out)
    config = TrainConfig.from_dict({**SETTINGS, **_given(args)})
    init = load_autoencoder(find_checkpoint(args.init)) if args.init else AutoencoderConfig()
    shape = latent_shape(init if isinstance(init, AutoencoderConfig) else init.config, args.size)
    perceptual = PerceptualDistance.load()
    images = load_images(args.data, image_size=args.size, photos=False)
    print(images.summary(), file=sys.stderr)
    latents = None
    if args.latents:
        latents = teacher_latents(args.latents, images.names, shape=shape)
    objective = CodecTraining(
        config, init, images, latents=latents, perceptual=perceptual, data=_data_name(args)
    )
    del images, latents  # of which it has copies
    trainer = Trainer(config, objective, out, trainable=objective.learns)
    _run(trainer)
    _tell_psnr(trainer)


def run_train_upscaler(args: argparse.Namespace) -> None:
    """Have a model redraw pictures and train an upscaler on them, or go on with either."""
    from ..codecs.redrawing import FOLDER_NAME, redraw
    from ..codecs.upscaler_training import SETTINGS, UpscalerTraining
    from ..processes import join_processes
    from ..training.perceptual import PerceptualDistance
    from ..training.trainer import Trainer

    join_processes()
    out, path = out_folder(args.out), find_checkpoint(args.model)
    config = TrainConfig.from_dict({**SETTINGS, **_given(args)})
    init = (
        load_upscaler(find_checkpoint(args.init)) if args.init else UpscalerConfig(args.factor or 2)
    )
    perceptual = PerceptualDistance.load()
    model, digest = Denoiser.load_for_sampling(path), file_hash(path)
    if model.info.in_latents:
        raise ValueError("This model draws latents, which an upscaler cannot enlarge.")
    shape = init if isinstance(init, UpscalerConfig) else init.config
    if args.factor not in (None, shape.factor):
        raise ValueError(f"The upscaler to start from enlarges {shape.factor} times.")
    size = model.info.training_size * shape.factor
    if size < model.info.picture_size:
        raise ValueError(
            f"This model draws {model.info.picture_size} pixels already, and the upscaler would "
            f"draw {size}."
        )
    images = load_images(
        args.data, image_size=size, labels_csv=args.labels, labels=model.info.labels, photos=False
    )
    print(images.summary(), file=sys.stderr)
    redrawn = redraw(model, images, out / FOLDER_NAME, model_hash=digest)
    objective = UpscalerTraining(
        config, init, images, redrawn, perceptual=perceptual, data=_data_name(args),
        redrawn_by=digest,
    )  # fmt: skip
    del images, redrawn, model  # of which it has copies, or none
    trainer = Trainer(config, objective, out)
    _run(trainer)
    _tell_psnr(trainer)


def run_distill(args: argparse.Namespace) -> None:
    """Draw a teacher's trajectories and train a student on them, or go on with either."""
    from ..distillation.distill import SETTINGS, Distilling, has_gradient, student_info
    from ..distillation.trajectories import FOLDER_NAME, draw_trajectories
    from ..processes import join_processes
    from ..training.perceptual import PerceptualDistance
    from ..training.trainer import Trainer

    join_processes()
    out, path = out_folder(args.out), find_checkpoint(args.teacher)
    digest = file_hash(path)
    config = TrainConfig.from_dict({**SETTINGS, **_given(args)})
    teacher = Denoiser.load(path)
    init = Denoiser.load(find_checkpoint(args.init)) if args.init else None
    student_info(teacher, steps=args.steps, teacher_hash=digest, init=init)  # before hours of work
    looks = args.perceptual and not teacher.info.in_latents
    perceptual = PerceptualDistance.load() if looks else None
    trajectories = draw_trajectories(
        Denoiser.load_for_sampling(path),
        out / FOLDER_NAME,
        steps=args.steps,
        count=args.seeds,
        teacher_hash=digest,
    )
    objective = Distilling(
        teacher, trajectories, teacher_hash=digest, perceptual=perceptual, init=init
    )
    _run(Trainer(config, objective, out, trainable=has_gradient))


def run_distill_upscaler(args: argparse.Namespace) -> None:
    """Have a student draw its teacher's seeds and train a light upscaler on them, or go on with
    either."""
    from ..distillation.trajectories import draw_trajectories
    from ..distillation.upscaler_distill import (
        FOLDER_NAME,
        SETTINGS,
        UpscalerDistilling,
        draw_student,
        require_upscaler,
    )
    from ..processes import join_processes
    from ..training.perceptual import PerceptualDistance
    from ..training.trainer import Trainer

    join_processes()
    out, path = out_folder(args.out), find_checkpoint(args.teacher)
    own = find_checkpoint(args.student)
    config = TrainConfig.from_dict({**SETTINGS, **_given(args)})
    perceptual = PerceptualDistance.load()
    teacher, student = Denoiser.load_for_sampling(path), Denoiser.load(own)
    digest, student_hash = file_hash(path), file_hash(own)
    if student.info.teacher != digest[:HASH_LENGTH]:
        raise ValueError(f"{own.name} is no student of {path.name}.")
    require_upscaler(teacher)
    if not Path(args.trajectories).is_dir():
        raise ValueError(f"There is no folder {args.trajectories}.")
    trajectories = draw_trajectories(
        teacher,
        args.trajectories,
        steps=student.info.sampling.num_steps,
        count=args.seeds,
        teacher_hash=digest,
    )
    drawn = draw_student(
        Denoiser.load_for_sampling(own), trajectories, out / FOLDER_NAME, student_hash=student_hash
    )
    objective = UpscalerDistilling(  # which saves the student, hence its exact weights
        config, student, teacher, trajectories, drawn, perceptual=perceptual,
        student_hash=student_hash,
    )  # fmt: skip
    del trajectories, drawn  # of which it has copies
    _run(Trainer(config, objective, out))


def run_finetune(args: argparse.Namespace) -> None:
    """Fine-tune, or go on where the run in ``--out`` stopped."""
    from ..training.finetune import FinetuneConfig, estimate, finetune

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
    out = out_folder(args.out)
    with stop_on_signal() as stop:
        config = FinetuneConfig(**given)
        finished = finetune(base, args.data, out, config, keep_copies=args.keep_both, stop=stop)
    print("Finished." if finished else "Stopped. Run the same command to go on.", file=sys.stderr)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a training that were given on the command line."""
    found = {field.name: getattr(args, field.name, None) for field in fields(TrainConfig)}
    return {name: value for name, value in found.items() if value is not None}


def _run(trainer: Trainer) -> None:
    """Train until it is finished or told to stop, and say which."""
    with stop_on_signal() as stop:
        stop()  # what was prepared is worth a checkpoint
        finished = trainer.train(stop=stop)
    state = "Finished" if finished else "Stopped. Run the same command to go on"
    trainer.accelerator.print(
        f"{state}: {trainer.progress.images:,} images, {trainer.out}", file=sys.stderr
    )


def _tell_psnr(trainer: Trainer) -> None:
    from ..codecs.reconstruction import psnr

    if trainer.progress.last_loss:
        told = f"Held-out pictures, encoded and decoded: {psnr(trainer.progress.last_loss):.2f} dB"
        trainer.accelerator.print(told, file=sys.stderr)


def _data_name(args: argparse.Namespace) -> str:
    return " and ".join(Path(path).absolute().stem for path in args.data)


def _new_labels(args: argparse.Namespace, start: CheckpointInfo) -> list[str]:
    """The labels in the CSV files that a checkpoint does not know yet, told on stderr."""
    new = sorted(set(join_labels(args.labels).values()) - set(start.labels))
    if new and start.labels:
        print(f"New labels: {', '.join(new)}", file=sys.stderr)
    return new


def _load(
    args: argparse.Namespace, size: int, labels: Sequence[str] | None, *, photos: bool | None
) -> ImageSet:
    images = load_images(
        args.data, image_size=size, labels_csv=args.labels, labels=labels, photos=photos,
        keep_copies=args.keep_both,
    )  # fmt: skip
    print(images.summary(), file=sys.stderr)
    return images
