"""How far a run has come, and the learning rate that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import TrainConfig

RISEN = 1.02  # of the lowest held-out loss: less is noise where few pictures are held out


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # optimizer steps
    images: int = 0  # images shown in this run
    seconds: float = 0.0  # spent in this run, over all its sessions
    last_loss: float | None = None  # held-out loss at the last checkpoint
    best_loss: float | None = None  # the lowest so far
    best_images: int = 0  # the last time that it was about as low
    best_seconds: float = 0.0
    risen_images: int = 0  # from then to the last checkpoint
    risen_seconds: float = 0.0

    def take_in(self, heldout: float | None) -> bool:
        """Note a held-out loss; whether it is about as low as the lowest, or unknown."""
        lowest = self.best_loss
        self.last_loss = heldout
        good = heldout is None or lowest is None or heldout <= RISEN * lowest
        if good:
            self.best_images, self.best_seconds = self.images, self.seconds
            if heldout is not None:
                self.best_loss = heldout if lowest is None else min(lowest, heldout)
        self.risen_images = self.images - self.best_images
        self.risen_seconds = self.seconds - self.best_seconds
        return good

    def begin_record(self) -> None:
        """Forget the lowest held-out loss, as when other pictures are held out."""
        self.best_loss, self.best_images, self.best_seconds = None, self.images, self.seconds
        self.risen_images, self.risen_seconds = 0, 0.0

    def fraction(self, config: TrainConfig) -> float:
        """Share of the budget that is spent, 0 to 1."""
        return min(1.0, _share(config, self.images, self.seconds))

    def risen(self, config: TrainConfig) -> float:
        """Share of the budget through which the held-out loss has stayed risen."""
        return _share(config, self.risen_images, self.risen_seconds)


def _share(config: TrainConfig, images: int, seconds: float) -> float:
    """Of the budget, which may have been changed since."""
    if config.images is not None:
        return images / config.images
    assert config.minutes is not None  # the budget is one or the other
    return seconds / 60 / config.minutes


def lr_factor(progress: Progress, config: TrainConfig) -> float:
    """Learning rate over its peak: linear warm-up in images, linear decay to 0 at the end."""
    warmup = min(1.0, (progress.images + config.batch_size) / max(config.warmup_images, 1))
    remaining = 1 - progress.fraction(config)
    decay = min(1.0, remaining / config.decay_fraction) if config.decay_fraction else 1.0
    return warmup * decay
