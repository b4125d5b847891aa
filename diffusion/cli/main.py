"""The command line: ``python -m diffusion COMMAND``, that is train, train-codec, finetune, distill,
train-upscaler, distill-upscaler, guide, fit, codec, grow, average, sample, evaluate or inspect.

Every mistake a person can make ends in one sentence on stderr and exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn

from ..config import LAYERS, LENGTHS, TrainConfig
from ..device import is_out_of_memory
from ..evaluation.features import FEATURES
from ..fitted import TABLE
from ..presets import PRESETS
from ..samplers import SAMPLERS
from .commands import (
    run_average,
    run_codec,
    run_evaluate,
    run_fit,
    run_grow,
    run_guide,
    run_inspect,
    run_sample,
)
from .training_commands import (
    CODEC_OPTIONS,
    DISTILL_OPTIONS,
    TRAIN_OPTIONS,
    run_distill,
    run_distill_upscaler,
    run_finetune,
    run_train,
    run_train_codec,
    run_train_upscaler,
)

Commands = argparse._SubParsersAction  # of which argparse makes no public name


class _Parser(argparse.ArgumentParser):
    """Reports a bad option the way every other mistake is reported."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options; the training options are the fields of ``TrainConfig``."""
    parser = _Parser(prog="python -m diffusion", description="Train and sample Cat Diffusion.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_train, _add_train_codec, _add_train_upscaler, _add_finetune, _add_distill,
                _add_distill_upscaler, _add_guide, _add_fit, _add_codec, _add_grow, _add_average,
                _add_sample, _add_evaluate, _add_inspect):  # fmt: skip
        add(commands)
    return parser


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser("train", help="train a model on a folder or zip of pictures")
    _add_data(parser, "pictures")
    parser.add_argument(
        "--labels", action="append", default=[], metavar="CSV",
        help="CSV file with the columns file and label; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--preset", choices=list(PRESETS), help="default: the preset of --init, or else cat-64-lite"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of this run")
    _add_budget(parser)
    parser.add_argument("--init", metavar="CHECKPOINT", help="start from this name or file")
    parser.add_argument(
        "--drawings", type=int, metavar="N",
        help="with --init: learn to tell real pictures from N that this model draws (see ddo.py)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="only go on with an existing run")
    parser.add_argument(
        "--photos",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="crop at random, or only resize (default: only resize if all pictures are square)",
    )
    _add_keep_both(parser)
    _add_settings(parser)
    parser.set_defaults(run=run_train)


def _add_train_codec(commands: Commands) -> None:
    parser = commands.add_parser(
        "train-codec", help="train the codec of models that draw latents, or its decoder alone"
    )
    _add_data(parser, "square pictures")
    parser.add_argument(
        "--latents", action="append", default=[], metavar="FILE",
        help="a teacher's latents of these pictures; may be given several times (default: those "
        "that the encoder of --init gives; only the decoder learns)",
    )  # fmt: skip
    parser.add_argument("--init", metavar="CODEC", help="start from the codec in this file")
    parser.add_argument(
        "--size", type=int, default=256, metavar="PIXELS",
        help="width and height of the pictures (default: %(default)s)",
    )  # fmt: skip
    _add_codec_run(parser)
    parser.set_defaults(run=run_train_codec)


def _add_train_upscaler(commands: Commands) -> None:
    parser = commands.add_parser(
        "train-upscaler", help="train a network that enlarges what a model draws"
    )
    _add_data(parser, "large square pictures")
    parser.add_argument(
        "--model", required=True, metavar="NAME_OR_FILE", help="whose pictures it will enlarge"
    )
    parser.add_argument("--init", metavar="FILE", help="start from the upscaler in this file")
    parser.add_argument(
        "--factor", type=int, choices=(2, 4),
        help="width of its pictures over the width of the model's (default: that of --init, or 2)",
    )  # fmt: skip
    parser.add_argument(
        "--labels", action="append", default=[], metavar="CSV",
        help="CSV file with the columns file and label, for the model to redraw by",
    )  # fmt: skip
    _add_codec_run(parser)
    parser.set_defaults(run=run_train_upscaler)


def _add_distill(commands: Commands) -> None:
    parser = commands.add_parser(
        "distill", help="teach a student to draw in few steps what a model draws in many"
    )
    parser.add_argument("--teacher", required=True, metavar="NAME_OR_FILE")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="default: %(default)s")
    _add_seeds(parser)
    parser.add_argument(
        "--init", metavar="NAME_OR_FILE", help="start from this student instead of the teacher"
    )
    parser.add_argument(
        "--no-perceptual", dest="perceptual", action="store_false",
        help="compare pixels only, which is three times as fast; a run may change this",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of this run")
    _add_budget(parser)
    _add_settings(parser, DISTILL_OPTIONS)
    parser.set_defaults(run=run_distill)


def _add_distill_upscaler(commands: Commands) -> None:
    parser = commands.add_parser(
        "distill-upscaler", help="give a student a lighter upscaler than its teacher's"
    )
    parser.add_argument("--teacher", required=True, metavar="NAME_OR_FILE")
    parser.add_argument("--student", required=True, metavar="NAME_OR_FILE")
    parser.add_argument(
        "--trajectories", required=True, metavar="DIR",
        help="what the teacher drew for the student: the folder of that name in the student's run",
    )  # fmt: skip
    _add_seeds(parser)
    _add_codec_run(parser)
    parser.set_defaults(run=run_distill_upscaler)


def _add_seeds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=int, default=30_000, metavar="N",
        help="pictures of the teacher to learn from (default: %(default)s)",
    )  # fmt: skip


def _add_data(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument(
        "--data", required=True, action="append", metavar="PATH",
        help=f"folder or zip of {kind}; may be given several times",
    )  # fmt: skip


def _add_codec_run(parser: argparse.ArgumentParser) -> None:
    """Where a training of a codec's network goes on, how long, and with what settings."""
    parser.add_argument(
        "--out", required=True, metavar="DIR",
        help="folder of this run; if it was stopped, it goes on",
    )  # fmt: skip
    _add_budget(parser)
    _add_settings(parser, CODEC_OPTIONS)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--images", type=int, metavar="N", help="train on this many images")
    budget.add_argument("--minutes", type=float, metavar="M", help="train for this many minutes")


def _add_settings(parser: argparse.ArgumentParser, names: Sequence[str] = TRAIN_OPTIONS) -> None:
    advanced = parser.add_argument_group(
        "settings of the training", "Without a value, the one that suits the command or the preset."
    )
    for field in fields(TrainConfig):
        if field.name in names:
            _add_field(advanced, field)


def _add_finetune(commands: Commands) -> None:
    parser = commands.add_parser("finetune", help="teach a model a new cat from 8 or more pictures")
    parser.add_argument("--base", required=True, metavar="NAME_OR_FILE")
    parser.add_argument("--data", metavar="PATH", help="folder or zip of the new cat's pictures")
    parser.add_argument("--label", metavar="NAME", help="what the new cat is called")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of this run; if it was stopped, it goes on"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--length", choices=list(LENGTHS), default="balanced")
    budget.add_argument("--minutes", type=float, metavar="M")
    budget.add_argument("--images", type=int, metavar="N", help="pictures shown")
    _add_keep_both(parser)
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="only say how long each length takes on this machine",
    )
    tuning = parser.add_argument_group("advanced")
    tuning.add_argument("--lr", type=float, help="peak learning rate")
    tuning.add_argument("--batch-size", type=int, metavar="N")
    tuning.add_argument("--layers", choices=LAYERS, help="layers to train")
    tuning.add_argument(
        "--keep",
        type=float,
        metavar="SHARE",
        help="share of each batch that shows the other cats: 0, or 0.05 to 0.75",
    )
    parser.set_defaults(run=run_finetune)


def _add_keep_both(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-both", action="store_true", help="keep pictures that look like copies of each other"
    )


def _add_guide(commands: Commands) -> None:
    parser = commands.add_parser(
        "guide", help="put a weaker, unlabelled network into a checkpoint, for guidance"
    )
    parser.add_argument("--checkpoint", required=True, metavar="NAME_OR_FILE")
    parser.add_argument("--by", required=True, metavar="NAME_OR_FILE", help="the weaker network")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors")
    parser.set_defaults(run=run_guide)


def _add_fit(commands: Commands) -> None:
    parser = commands.add_parser(
        "fit", help="fit the sampler of few steps to how a checkpoint draws in twelve"
    )
    parser.add_argument("--checkpoint", required=True, metavar="NAME_OR_FILE")
    parser.add_argument("--seeds", type=int, default=48, metavar="N", help="cats to draw for it")
    parser.add_argument(
        "--out", required=True, metavar="FILE.json", help=f"{TABLE.name} is what the sampler uses"
    )
    parser.set_defaults(run=run_fit)


def _add_codec(commands: Commands) -> None:
    parser = commands.add_parser(
        "codec", help="put a better decoder, or an upscaler, into a checkpoint"
    )
    parser.add_argument("--checkpoint", required=True, metavar="NAME_OR_FILE")
    parser.add_argument(
        "--codec", required=True, metavar="FILE", help="of the same encoder, or an upscaler"
    )
    parser.add_argument("--out", required=True, metavar="FILE.safetensors")
    parser.set_defaults(run=run_codec)


def _add_grow(commands: Commands) -> None:
    parser = commands.add_parser(
        "grow", help="make a checkpoint for twice the picture size, to be trained with train --init"
    )
    parser.add_argument("--checkpoint", required=True, metavar="NAME_OR_FILE")
    parser.add_argument(
        "--codec", metavar="FILE", help="grow into the latents of this codec instead"
    )
    parser.add_argument("--out", required=True, metavar="FILE.safetensors")
    parser.set_defaults(run=run_grow)


def _add_average(commands: Commands) -> None:
    parser = commands.add_parser("average", help="average the weights of a run's checkpoints")
    parser.add_argument("--checkpoints", required=True, nargs="+", metavar="FILE")
    parser.add_argument(
        "--weights", nargs="+", type=float, metavar="W", help="how much each counts; default: alike"
    )
    parser.add_argument("--out", required=True, metavar="FILE.safetensors")
    parser.set_defaults(run=run_average)


def _add_sample(commands: Commands) -> None:
    parser = commands.add_parser("sample", help="draw pictures from a checkpoint")
    parser.add_argument("--checkpoint", required=True, metavar="NAME_OR_FILE")
    parser.add_argument("--seeds", default="0", metavar="0-63", help="such as 7 or 0-63 or 1,5,8-9")
    parser.add_argument("--label", help="default: the seed chooses, as on the page")
    _add_sampling(parser)
    parser.add_argument("--out", metavar="DIR", help="write one PNG for each seed")
    parser.add_argument(
        "--shards",
        action="store_true",
        help="write tar files with recipes instead, as several processes always do",
    )
    parser.add_argument("--grid", metavar="FILE.png", help="write all pictures as one grid")
    parser.add_argument(
        "--animation", metavar="FILE.gif", help="write a film of how they form, GIF or MP4"
    )
    parser.set_defaults(run=run_sample)


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", help="measure how good a checkpoint's pictures are")
    parser.add_argument("--checkpoint", required=True, metavar="NAME_OR_FILE")
    parser.add_argument("--data", required=True, metavar="PATH", help="the real pictures")
    parser.add_argument("--labels", metavar="CSV", help="CSV file with the columns file and label")
    parser.add_argument("--samples", type=int, default=2000, metavar="N")
    _add_sampling(parser)
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="compare at a smaller size than the model draws"
    )
    parser.add_argument("--features", choices=list(FEATURES), default="effnet-lite0")
    parser.add_argument("--out", metavar="FILE.json", help="write all figures to this file")
    parser.add_argument(
        "--plot",
        metavar="FILE.png",
        help="write the samples closest to training pictures, above those pictures",
    )
    parser.set_defaults(run=run_evaluate)


def _add_inspect(commands: Commands) -> None:
    parser = commands.add_parser(
        "inspect", help="show what a data folder, zip or checkpoint contains"
    )
    parser.add_argument("path", metavar="PATH")
    parser.add_argument(
        "--size", type=int, default=128, metavar="PIXELS",
        help="picture size of the model to check for (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--labels", metavar="CSV", help="CSV file with the columns file and label")
    parser.set_defaults(run=run_inspect)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guidance", type=float, metavar="W", help="1 is off (default: the checkpoint's)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="default: the checkpoint's")
    parser.add_argument("--sampler", choices=list(SAMPLERS), help="default: the checkpoint's")


def _add_field(group: argparse._ArgumentGroup, field: Field[Any]) -> None:
    name, kind, told = field.name, str(field.type), field.metadata["help"]
    flag = "--" + name.replace("_", "-").lower()
    if kind == "bool":
        group.add_argument(
            flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=told
        )
    else:
        of_type = {"int": int, "float": float, "str": str}[kind]
        group.add_argument(flag, dest=name, type=of_type, metavar=kind.upper(), help=told)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        args = build_parser().parse_args(arguments)
        args.run(args)
    except (ValueError, OSError) as error:
        # An error from a data worker brings its traceback along; what went wrong is the last line.
        message = (str(error).strip() or type(error).__name__).splitlines()[-1]
        print(f"Error: {message}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        print("Error: There is not enough memory.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0
