"""Training: one loop to read from top to bottom.

All randomness of a step is a function of (seed, step), the order of the pictures too, so that a run
that was stopped and started again goes on exactly as if it had not been.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from tqdm import tqdm

from ..checkpoint import WEIGHTS_NAME
from ..config import TrainConfig
from ..data.changes import changes, have_nothing_in_common
from ..device import in_bf16
from ..files import atomic_path, clear_temporary
from ..output.pictures import save_grid
from ..processes import join_processes
from .ema import ExponentialMovingAverage
from .objectives import (
    SAMPLE_COLUMNS,
    Objective,
    TrainingError,
    full_disk_as_sentence,
    oom_as_sentence,
)
from .optim import build_optimizers
from .progress import Progress, lr_factor
from .run_folder import (
    RUN_NAME,
    STATE_NAME,
    STEPS_NAME,
    grid_path,
    step_path,
)
from .run_log import RunLog, Window
from .run_state import read_state, restore_state, write_state

LOG_SECONDS = 5  # between lines of metrics that tell the training loss only


# A resumed run may change these; everything else is what made it the run that it is.
CHANGEABLE = (
    "images",
    "minutes",
    "save_minutes",
    "save_images",
    "keep_steps",
    "patience",
    "compile",
)


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """Accelerate's name for the precision: bf16 where the hardware is faster in it, else fp32."""
    return "bf16" if in_bf16(config.precision, device) else "no"


def step_generators(
    seed: int, step: int, rank: int, device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """The generators of one training step: on the CPU for choices, on ``device`` for noise.

    Those of ``rank`` 0 prepare the whole batch in every process, so that it is the same batch
    whatever their number. Those of its own rank give each process's dropout.
    """
    first, second = np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint32).tolist()
    return torch.Generator().manual_seed(first), torch.Generator(device).manual_seed(second)


class Trainer:
    """One run: a folder with its state, weights, metrics and samples.

    ``objective`` says what is learned; ``trainable`` says by name which parameters may change. If
    the folder holds a state, the run goes on from there. Raises ValueError where these do not fit
    together, or after a trainer of another precision in the same process (accelerate has one for
    all).
    """

    @oom_as_sentence()
    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        out: str | Path,
        *,
        trainable: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.config, self.objective, self.out = config, objective, Path(out)
        device = join_processes().device
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=choose_precision(config, device),
            gradient_accumulation_steps=config.accumulate,
        )
        shares = config.accumulate * self.accelerator.num_processes
        if config.batch_size % shares:
            raise ValueError(
                f"batch_size {config.batch_size} must be a multiple of "
                f"{shares} (processes times accumulate)."
            )
        self.device = self.accelerator.device
        objective.to(self.device)
        self.progress = Progress()
        self.log = RunLog(self.out, writes=self.accelerator.is_main_process)
        network = objective.network
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(trainable(name))
        self.ema = ExponentialMovingAverage(network, halflife_images=config.ema_halflife_images)
        optimizers = build_optimizers(
            network,
            name=config.optimizer,
            lr=config.lr,
            muon_lr=config.muon_lr,
            label_lr=config.label_lr,
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.peak_lrs = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        self.network = network
        if self.accelerator.is_main_process:
            clear_temporary(self.out)
        if (self.out / STATE_NAME).exists():
            self._load_state(optimizers)
        self.log.trim(self.progress.images)  # of a run that never saved, all
        if config.compile:
            # Split to send gradients early, the network had some that are no numbers (torch 2.14).
            torch._dynamo.config.optimize_ddp = False
            network.compile()
        objective.network, *self.optimizers = self.accelerator.prepare(network, *optimizers)

    # -- the loop -----------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the budget is spent, or the held-out loss has stayed risen for long enough."""
        config, progress = self.config, self.progress
        gave_up = bool(config.patience) and progress.risen(config) >= config.patience
        return gave_up or progress.fraction(config) >= 1

    @oom_as_sentence()
    @full_disk_as_sentence()
    def train(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        report: Callable[[Tensor], None] = lambda loss: None,
    ) -> bool:
        """Train until ``finished`` (returns True) or ``stop()`` (returns False).

        ``report`` is given the loss after every step. Raises TrainingError if the loss stops being
        a number, or memory or the disk runs out; the last good checkpoint stays.
        """
        if self.finished:
            return True  # and nothing is written
        config, progress = self.config, self.progress
        self._write_run()
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        batches = self.objective.batches(config, first_step=progress.step, share=share)
        window, recent = Window(progress), Window(progress)
        last_save = last_log = time.monotonic()
        bar = tqdm(
            total=100, unit="%", initial=int(100 * progress.fraction(config)), desc=self.out.name,
            disable=not self.accelerator.is_main_process,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining} {postfix}",
        )  # fmt: skip
        with bar, self.log:
            while not self.finished:
                started = time.monotonic()
                loss, grad_norm = self._step(next(batches))
                progress.step += 1
                progress.images += config.batch_size
                window.add(loss, grad_norm)
                recent.add(loss, grad_norm)
                if progress.step % 10 == 0:
                    self._require_finite(window.loss, window.grad_norm)  # waits for a GPU
                progress.seconds += time.monotonic() - started
                bar.n = 100 * progress.fraction(config)
                if progress.step % 10 == 0:
                    bar.set_postfix_str(f"{window.summary(progress)}", refresh=False)
                    bar.refresh()
                stopping, saving = self._agree(
                    stop(),
                    time.monotonic() - last_save > 60 * config.save_minutes
                    or 0 < config.save_images <= progress.images - window.images,
                )
                report(loss)
                if stopping or saving:
                    started = time.monotonic()
                    self._checkpoint(window, in_haste=stopping)
                    last_save = last_log = time.monotonic()
                    progress.seconds += last_save - started
                    self._agree()  # the others did not save: without this their clocks are behind
                    window, recent = Window(progress), Window(progress)
                elif time.monotonic() - last_log > LOG_SECONDS:
                    self._require_finite(recent.loss, recent.grad_norm)
                    self._log_line(recent, heldout=None)
                    recent, last_log = Window(progress), time.monotonic()
                if stopping:
                    return False
            if window.steps:
                self._checkpoint(window)
        return True

    def _agree(self, *flags: bool) -> list[bool]:
        """The main process's flags (its clock and patience too), so that all take the same turn."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        progress = self.progress
        own = [*flags, progress.seconds, progress.risen_images, progress.risen_seconds]
        values = broadcast(torch.tensor(own, dtype=torch.float64).to(self.device)).tolist()
        *agreed, progress.seconds, risen_images, progress.risen_seconds = values
        progress.risen_images = int(risen_images)
        return [bool(flag) for flag in agreed]

    def _step(self, batch: Any) -> tuple[Tensor, Tensor]:
        """One optimizer step on this process's share of a batch; returns loss (of the whole batch)
        and gradient norm."""
        config, accelerator, objective = self.config, self.accelerator, self.objective
        place = config.seed, self.progress.step
        dropout, _ = step_generators(*place, accelerator.process_index, self.device)
        torch.manual_seed(dropout.initial_seed())
        factor = lr_factor(self.progress, config)
        for optimizer, peak in zip(self.optimizers, self.peak_lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        rows = objective.prepare_share(
            batch, config, *step_generators(*place, 0, self.device),
            rank=accelerator.process_index, processes=accelerator.num_processes,
        )  # fmt: skip
        total, grad_norm = torch.zeros((), device=self.device), torch.zeros(())
        for part in torch.arange(len(rows[0]), device=self.device).chunk(config.accumulate):
            with accelerator.accumulate(objective.network):
                loss = objective.loss(*(row[part] for row in rows)).mean()
                accelerator.backward(loss)
                total += loss.detach() / config.accumulate
                if accelerator.sync_gradients:
                    limit = config.grad_clip or math.inf
                    grad_norm = accelerator.clip_grad_norm_(self.network.parameters(), limit)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        self.ema.update(
            self.network,
            images_seen=self.progress.images + config.batch_size,
            batch_size=config.batch_size,
        )
        return accelerator.reduce(total, reduction="mean"), grad_norm

    def _require_finite(self, *values: float) -> None:
        if not math.isfinite(sum(values)):
            saved = self.out / WEIGHTS_NAME
            kept = (
                f"The last good checkpoint is {saved}." if saved.exists() else "Nothing was saved."
            )
            raise TrainingError(
                "The loss became infinite or undefined after "
                f"{self.progress.images:,} images. {kept} "
                "Try a lower learning rate."
            )

    # -- what is written down -----------------------------------------------------------------

    def _checkpoint(self, window: Window, *, in_haste: bool = False) -> None:
        """State, half-precision EMA weights, samples, held-out loss and a line of metrics.

        ``in_haste``, the state is written first too: whoever asked to stop may not wait until the
        rest is measured and drawn.
        """
        largest = [
            p.detach().abs().max()
            for p in (*self.network.parameters(), *self.ema.module.parameters())
        ]
        halved = torch.stack(largest).max().half()  # what it will be in the file
        self._require_finite(window.loss, window.grad_norm, float(halved))
        if not self.accelerator.is_main_process:
            return
        if in_haste and not self.finished:
            self._save_state()
        averaged, objective, progress = self.ema.module, self.objective, self.progress
        heldout = objective.heldout(averaged)
        self._require_finite(heldout or 0.0)
        good = progress.take_in(heldout)
        if good or not self.config.patience:
            objective.save(averaged, self.out / WEIGHTS_NAME, images=progress.images)
        self._keep_step()
        self._save_state()  # not before: a run killed in between would never write these weights
        pictures = objective.samples(averaged)
        save_grid(pictures, grid_path(self.out, progress.images), columns=SAMPLE_COLUMNS)
        self._log_line(window, heldout=heldout)

    def _keep_step(self) -> None:
        """Keep these weights in a folder of the last ``keep_steps``."""
        if not self.config.keep_steps:
            return
        images = self.progress.images
        self.objective.save(self.ema.module, step_path(self.out, images), images=images)
        kept = sorted((self.out / STEPS_NAME).glob("[0-9]*.safetensors"))
        for path in kept[: -self.config.keep_steps]:
            path.unlink(missing_ok=True)

    def _log_line(self, window: Window, *, heldout: float | None) -> None:
        self.log.write({
            "images": self.progress.images,
            "images_seen": self.objective.images_before + self.progress.images,
            "minutes": round(self.progress.seconds / 60, 3),
            **window.record(self.progress),
            "heldout_loss": heldout,
            "lr": self.optimizers[0].param_groups[0]["lr"],
        })  # fmt: skip

    def _write_run(self) -> None:
        if self.accelerator.is_main_process:
            with atomic_path(self.out / RUN_NAME) as temporary:
                run = {"train": self.config.to_dict(), "info": self.objective.identity}
                temporary.write_text(json.dumps(run, indent=2))

    def _save_state(self) -> None:
        metadata = {
            "progress": vars(self.progress),
            "info": self.objective.identity,
            "train": self.config.to_dict(),
            "pictures": self.objective.record,
        }
        write_state(self.out, self.network, self.ema.module, self.optimizers, metadata)

    def _load_state(self, optimizers: list[torch.optim.Optimizer]) -> None:
        tensors, metadata = read_state(self.out)
        if not self.objective.is_same(metadata["info"]):
            raise ValueError(
                f"{self.out} contains a run with another network, another --init or another "
                "held-out part. Choose another --out."
            )
        # By way of the classes, so that what is newer than the run gets its defaults.
        now, then = self.config.to_dict(), TrainConfig.from_dict(metadata["train"]).to_dict()
        changed = [key for key in now if now[key] != then[key] and key not in CHANGEABLE]
        if changed:
            raise ValueError(
                f"The run in {self.out} was started with other values of {', '.join(changed)}. "
                "Use the same settings, or choose another --out."
            )
        known = {field.name for field in fields(Progress)}
        self.progress = Progress(**{k: v for k, v in metadata["progress"].items() if k in known})
        self._compare_pictures(metadata.get("pictures", {}))
        restore_state(tensors, self.network, self.ema.module, optimizers)

    def _compare_pictures(self, before: dict[str, str]) -> None:
        """Tell what has changed since the run was saved; its held-out part may be another now."""
        now = self.objective.record
        changed = changes(before, now)
        if not changed:
            return
        if have_nothing_in_common(before, now):
            raise ValueError(
                f"The run in {self.out} learns from other pictures, and none of these is among "
                "them. Check --data, or choose another --out."
            )
        self.progress.begin_record()
        told = f"The pictures of this run have changed: {changed}. It goes on with all of them, and"
        told += " its record of the best held-out loss begins anew."
        if self.finished:
            told = f"The pictures of this run have changed: {changed}. Its budget is spent; to "
            told += "learn from them, give it a larger one."
        if self.accelerator.is_main_process:
            print(told, file=sys.stderr)
