"""What a visitor asked for, on its way from recipes to pictures."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Sequence

from torch import Tensor

from ..safety.client import current_client
from .job_log import log_job
from .library import LoadedModel
from .live import live_sampling
from .recipe import Recipe


class Job:
    """Recipes of one visitor on their way to pictures."""

    def __init__(
        self,
        model: LoadedModel,
        recipes: Sequence[Recipe],
        *,
        record: str,
        live: bool = False,
        preview: bool = False,
        drawn_by: LoadedModel | None = None,
    ) -> None:
        self.model, self.recipes, self.record = model, tuple(recipes), record
        self.live, self.preview = live, preview
        self.drawn_by = drawn_by or model  # the student of ``model``, if it is to go fast
        self.waiting = deque(range(len(recipes)))  # rows not yet given to a turn
        self.undone = len(recipes)  # rows not yet finished
        self.pictures: Tensor | None = None
        self.frames: list[Tensor] = []  # how the first picture formed, uint8 [3, S, S]
        self.stopped = False
        self.why: Exception | None = None  # it was stopped, unless its visitor did that
        self.note = ""  # something that the visitor should know
        self.error: Exception | None = None
        self.submitted = time.monotonic()
        self.started: float | None = None
        self.finished: float | None = None
        self.steps_taken = [0] * len(recipes)  # of each row
        self.client = current_client.get()  # who asked for it
        self.arrived = 0  # the number of the turn before which it came
        self.context = contextvars.copy_context()  # ZeroGPU looks up whose quota this is
        self._done = threading.Event()

    @property
    def key(self) -> tuple[object, ...]:
        return self.drawn_by, self.recipes[0].batch_key, self.live, self.preview

    @property
    def done(self) -> bool:
        return self.finished is not None

    @property
    def steps_to_take(self) -> int:
        """Sampler steps for each picture."""
        usual = self.drawn_by.info.sampling
        return live_sampling(usual).num_steps if self.live else self.recipes[0].steps_to_take

    @property
    def idle(self) -> bool:
        """Whether no row of it is being drawn just now."""
        return self.undone == len(self.waiting)

    @property
    def seconds(self) -> float:
        """Spent drawing so far."""
        return 0.0 if self.started is None else (self.finished or time.monotonic()) - self.started

    def wait(self, seconds: float | None = None) -> None:
        """Return when the job is done, or after ``seconds``."""
        self._done.wait(seconds)

    def finish(self, error: Exception | None = None) -> None:
        """The worker's last word on this job; of two, the first counts."""
        if self.done:
            return
        self.error, self.finished = error, time.monotonic()
        if not self.preview:  # of which there are many a second
            log_job(self)
        self._done.set()
