"""What the commands of ``python -m diffusion`` that do not train do, given their options."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..checkpoint import (
    HASH_LENGTH,
    PARTS,
    CheckpointInfo,
    find_checkpoint,
    read_checkpoint,
    shipped_checkpoints,
    split_parts,
    write_checkpoint,
)
from ..codec_file import load_autoencoder, load_codec
from ..config import MAX_SIZE, SampleConfig
from ..data.dataset import load_images
from ..denoiser import Denoiser
from ..device import choose_device
from ..evaluation.evaluate import DISTANCES, evaluate, load_real
from ..evaluation.features import FEATURES
from ..files import atomic_path, file_hash, out_folder
from ..output.animate import FORMATS as ANIMATION_FORMATS
from ..output.animate import MAX_FILM_PICTURES, Recorder, film_frames, write_animation
from ..output.pictures import save_grid, save_picture
from ..processes import join_processes
from ..sampling import generate
from ..training.average import average
from ..training.grow import grow, grow_into_latents

GRID_FORMATS = (".png", ".jpg", ".webp")
SAMPLE_BATCH = 16  # pictures drawn at once
MAX_SEEDS = 100_000
MAX_BULK_SEEDS = 1_000_000  # where they go into shards


def parse_seeds(text: str, *, most: int = MAX_SEEDS) -> list[int]:
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
        if len(seeds) + last - first >= most:
            raise ValueError(f"At most {most:,} seeds at once.")
        seeds.extend(range(first, last + 1))
    return seeds


def run_guide(args: argparse.Namespace) -> None:
    """Write a checkpoint that holds another as its guide."""
    _check_ending(args.out, (".safetensors",))
    denoiser, guide = (Denoiser.load(find_checkpoint(name)) for name in (args.checkpoint, args.by))
    denoiser.guided_by(guide).save(args.out)


def run_codec(args: argparse.Namespace) -> None:
    """Write a checkpoint with another decoder, or with an upscaler behind it."""
    _check_ending(args.out, (".safetensors",))
    denoiser = Denoiser.load(find_checkpoint(args.checkpoint))
    denoiser.decoded_by(load_codec(find_checkpoint(args.codec))).save(args.out)


def run_fit(args: argparse.Namespace) -> None:
    """Fit the weights of the fitted sampler to how a checkpoint draws."""
    from ..distillation.fitting import fit_to, write_table

    _check_ending(args.out, (".json",))
    denoiser = Denoiser.load_for_sampling(find_checkpoint(args.checkpoint))
    write_table(fit_to(denoiser, count=args.seeds), args.out)


def run_grow(args: argparse.Namespace) -> None:
    """Write a checkpoint for pictures of twice the size."""
    _check_ending(args.out, (".safetensors",))
    denoiser = Denoiser.load(find_checkpoint(args.checkpoint))
    if args.codec:
        grow_into_latents(denoiser, load_autoencoder(find_checkpoint(args.codec))).save(args.out)
    else:
        grow(denoiser).save(args.out)
    if denoiser.guide:
        print("The new checkpoint has no guide: the old one draws small pictures.", file=sys.stderr)


def run_average(args: argparse.Namespace) -> None:
    """Write a checkpoint with the mean of others' weights."""
    _check_ending(args.out, (".safetensors",))
    checkpoints = [read_checkpoint(find_checkpoint(name)) for name in args.checkpoints]
    averaged = average(checkpoints, weights=args.weights)
    write_checkpoint(args.out, *averaged)


def run_sample(args: argparse.Namespace) -> None:
    """Draw pictures and write them as asked."""
    if not (args.out or args.grid or args.animation):
        raise ValueError(
            "Say where to write the pictures: --out DIR, --grid FILE.png or --animation FILE.gif."
        )
    if args.out:
        out_folder(args.out)
    _check_ending(args.grid, GRID_FORMATS)
    _check_ending(args.animation, ANIMATION_FORMATS)
    if args.shards or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return _sample_shards(args)
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


def _sample_shards(args: argparse.Namespace) -> None:
    """Draw this process's part of very many pictures."""
    from .. import __version__
    from ..output.bulk import draw_shards

    if not args.out or args.grid or args.animation:
        raise ValueError("Shards, which several processes always write, need --out DIR alone.")
    seeds = parse_seeds(args.seeds, most=MAX_BULK_SEEDS)
    path = find_checkpoint(args.checkpoint)
    state = join_processes()
    denoiser, digest = Denoiser.load_for_sampling(path), file_hash(path)
    info = denoiser.info
    info.label_index(args.label)
    config = _sampling(args, info)
    common = {
        "any_coat": not args.label, "steps": config.num_steps, "sampler": config.sampler,
        "guidance": config.guidance, "model": path.stem, "model_hash": digest[:HASH_LENGTH],
        "version": __version__,
    }  # fmt: skip

    def coat(seed: int) -> str:
        return args.label or info.any_label(seed)

    def recipe(seed: int) -> dict[str, Any]:
        return {"seed": seed, "coat": coat(seed), **common}  # as the page reads it

    identity = {
        "seeds": args.seeds, "label": args.label or "", "sampling": config.to_dict(),
        "sha256": digest, "version": __version__,
    }  # fmt: skip
    draw_shards(
        denoiser, seeds, config, Path(args.out),
        state=state, identity=identity, coat=coat, recipe=recipe,
    )  # fmt: skip


def _sampling(args: argparse.Namespace, info: CheckpointInfo) -> SampleConfig:
    """What the checkpoint recommends, with what was asked for instead."""
    asked = {"sampler": args.sampler, "num_steps": args.steps, "guidance": args.guidance}
    given = {name: value for name, value in asked.items() if value is not None}
    if given and info.teacher:
        raise ValueError(
            "This model is a student, which draws in the steps that it has learnt. Leave out "
            "--steps, --sampler and --guidance."
        )
    return replace(info.sampling, **given)


def _check_ending(path: str | None, endings: Sequence[str]) -> None:
    """Before any work is done: what is written tells its format by its name."""
    if path and Path(path).suffix.lower() not in endings:
        raise ValueError(f"{path} must end in {' or '.join(endings)}.")


def run_evaluate(args: argparse.Namespace) -> None:
    """Draw many pictures, compare them with real ones, and print and write the figures: one of
    several processes does that."""
    _check_ending(args.out, (".json",))
    _check_ending(args.plot, GRID_FORMATS)
    if args.samples > MAX_SEEDS:
        raise ValueError(f"At most {MAX_SEEDS:,} samples.")
    path = find_checkpoint(args.checkpoint)
    state, device = join_processes(), choose_device()
    digest = file_hash(path)  # a run in progress may replace it
    denoiser = Denoiser.load_for_sampling(path)
    info = denoiser.info
    config = _sampling(args, info)
    images = load_real(args.data, info, labels_csv=args.labels, size=args.size)
    if state.is_main_process:
        print(images.summary(), file=sys.stderr)
    network = FEATURES[args.features]().to(device)
    evaluation = evaluate(denoiser, images, network, config, samples=args.samples)
    if not state.is_main_process:
        return
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
