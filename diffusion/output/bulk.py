"""Drawing very many pictures: shards of a folder, by any number of processes and in any number of
goes, each time with the same bytes.

A shard is a tar file as webdataset reads it: ``000000042.png``, and ``000000042.json`` with its
recipe. It is whole or not there, so a run that was broken off goes on with the shards that are
missing. What a picture is drawn with (its batch, one thread on a CPU) depends on its place in the
list of seeds alone, never on the number of processes.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from tqdm import tqdm

from ..config import SampleConfig
from ..denoiser import Denoiser
from ..files import atomic_path, clear_temporary
from ..sampling import generate
from .pictures import to_image

SHARD = 1024  # pictures; a multiple of both batch sizes
CPU_BATCH, GPU_BATCH = 16, 256  # pictures drawn at once
IDENTITY_NAME = "sampling.json"  # what all shards of a folder have in common
LOOK_SECONDS = 1.0  # between looks at what the other processes have finished


def draw_shards(
    denoiser: Denoiser,
    seeds: Sequence[int],
    config: SampleConfig,
    out: Path,
    *,
    state: PartialState,
    identity: dict[str, Any],
    coat: Callable[[int], str],
    recipe: Callable[[int], dict[str, Any]],
) -> None:
    """Draw this process's part of the shards that are missing in ``out``.

    ``identity`` says what makes the pictures what they are, ``coat`` the label of a seed and
    ``recipe`` what is written beside its picture. Shows one progress bar in all. On a CPU, one
    thread each from now on. Raises ValueError for a folder of another identity, and for a seed that
    comes twice.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError("A seed is in the list twice.")
    weights = next(denoiser.parameters())
    if weights.device.type == "cpu":
        torch.set_num_threads(1)  # several add up in another order
    drawn_on = {"device": weights.device.type, "dtype": str(weights.dtype)}
    if state.is_main_process:
        clear_temporary(out)
        _claim(out, {**identity, **drawn_on, "pictures_a_shard": SHARD})
    state.wait_for_everyone()
    shards = {
        out / f"cats-{start // SHARD:06d}.tar": seeds[start : start + SHARD]
        for start in range(0, len(seeds), SHARD)
    }
    missing = [path for path in shards if not path.exists()]
    state.wait_for_everyone()  # so that all have seen the same
    info, batch = denoiser.info, CPU_BATCH if weights.device.type == "cpu" else GPU_BATCH

    def members(seeds: Sequence[int]) -> Iterator[tuple[str, bytes]]:
        for start in range(0, len(seeds), batch):
            some = seeds[start : start + batch]
            labels = [info.label_index(coat(seed)) for seed in some]
            pictures = generate(denoiser, some, config, class_labels=labels)
            for seed, picture in zip(some, pictures, strict=True):
                buffer = io.BytesIO()
                to_image(picture).save(buffer, "PNG")
                yield f"{seed:09d}.png", buffer.getvalue()
                yield f"{seed:09d}.json", json.dumps(recipe(seed)).encode()
            show(start + len(some))

    def show(drawn: int = 0) -> int:
        """Put on the bar what all have finished, and what this process has drawn beside it."""
        finished = sum(len(some) for path, some in shards.items() if path.exists())
        bar.n = finished + drawn
        bar.refresh()
        return finished

    with tqdm(total=len(seeds), unit="picture", disable=not state.is_main_process) as bar:
        bar.initial = show()  # what was there before counts for no speed
        for path in missing[state.process_index :: state.num_processes]:
            write_shard(path, members(shards[path]))
        # A process that fails ends them all, this one too.
        while state.is_main_process and show() < len(seeds):
            time.sleep(LOOK_SECONDS)


def write_shard(path: Path, members: Iterator[tuple[str, bytes]]) -> None:
    """Write names and contents to a tar file, atomically; the same ones give the same bytes."""
    form = tarfile.USTAR_FORMAT
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=form) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)  # of no owner and no time
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _claim(out: Path, identity: dict[str, Any]) -> None:
    """Note in a folder what it holds. Raises ValueError if that is something else."""
    path = out / IDENTITY_NAME
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in identity if found.get(key) != identity[key]]
        except (ValueError, AttributeError):
            raise ValueError(f"{path} is damaged. Choose another --out.") from None
        if changed:
            raise ValueError(
                f"The pictures in {out} were begun with other values of {', '.join(changed)}. "
                "Choose another --out."
            )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
