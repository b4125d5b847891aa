"""Drawing recipes: one worker, which draws what waits together as one batch.

A ``Job`` is what one visitor asked for. Its recipes are drawn in turns of at most ``MAX_BATCH``;
a turn is filled up with waiting recipes of other jobs that have the same settings, since a batch of
16 costs far less than 16 times one. Since each picture has its own generators, it does not depend
on the company it was drawn in, but for the rounding of another batch size.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from diffusion import __version__
from diffusion.device import is_out_of_memory
from diffusion.samplers import Step
from diffusion.sampling import Start, draw

from .. import space
from ..safety.client import HOUSE
from .job import Job
from .library import ModelLibrary
from .live import MAX_LIVE_BATCH, live_sampling
from .observer import Observer, store
from .recipe import Recipe, build_start, of_this_version

MAX_BATCH = 16  # pictures drawn at once
TURN_STEPS = 1_600  # of all pictures drawn at once: nobody waits for minutes behind a long one
MAX_JOB_PICTURES = 256
CLOSE_SECONDS = 10.0  # that the worker may take to end its step
RECOVERY_SECONDS = 60.0  # after memory was short, until batches may grow again
UPDATE_SECONDS = 0.125  # a watching page is told at most so often
ENDING = "The server is shutting down."


class Busy(RuntimeError):
    """Too many jobs wait; the message is a sentence for the visitor."""


@dataclass(frozen=True)
class Update:
    """How a job stands."""

    pictures: Tensor | None  # uint8 [N, 3, S, S]: finished, or the x0 estimates of the moment
    step: int  # sampler steps taken, on average over the job's pictures
    total: int  # sampler steps to take
    share: float  # of all the steps of all its pictures, which may be drawn in several turns
    place: int  # jobs ahead of this one; 0 while it is drawn
    done: bool


class Studio:
    """The models and the worker that draws with them."""

    def __init__(
        self, library: ModelLibrary, *, max_waiting: int = 64, draw: Callable[..., Tensor] = draw
    ) -> None:
        self.library, self.max_waiting = library, max_waiting
        self._draw = draw  # as ``diffusion.sampling.draw``
        self.max_batch = MAX_BATCH
        self._resized_at = 0.0  # when max_batch last changed
        self._jobs: deque[Job] = deque()
        self._turn = 0  # how many were given so far
        self._served: dict[str, int] = {}  # the last turn of each client who waits for another
        self._drawing: set[Job] = set()  # jobs of the turn that is being drawn
        self._was_live = False  # that turn
        self._arrived = threading.Condition()
        self._worker: threading.Thread | None = None
        self._closing = False
        self._run = space.gpu(self._draw_batch)

    def submit(
        self,
        recipes: Sequence[Recipe],
        *,
        record: str = "",
        live: bool = False,
        preview: bool = False,
    ) -> Job:
        """Queue recipes, which must share one batch key, and return at once.

        ``record`` keeps how they form: "denoised" (estimates of x0), "noisy",
        or "preview" (what was watched, which costs nothing). ``live`` draws with
        the model's student, or its ``live_sampling``, whatever the recipes say;
        ``preview`` decodes softly and soon. Raises ValueError for what cannot be
        drawn, and Busy if too many jobs wait.
        """
        if not 1 <= len(recipes) <= MAX_JOB_PICTURES:
            raise ValueError(f"Between 1 and {MAX_JOB_PICTURES} pictures at once.")
        model = self.library.get(recipes[0].model)
        asked_for, wanted, version = recipes[0].model, recipes[0].model_hash, recipes[0].version
        now: dict[str, Any] = {"model": model.name, "model_hash": model.hash}
        recipes = [
            dataclasses.replace(of_this_version(recipe), **now)
            .with_coat(model.info)
            .as_taught(model.info)
            for recipe in recipes
        ]
        if len({recipe.batch_key for recipe in recipes}) > 1:
            raise ValueError("All pictures of one request need the same settings.")
        # What raises here can still be told to the visitor; later it would fail a whole turn.
        build_start(model.denoiser, recipes if recipes[0].picture else recipes[:1])
        for recipe in recipes:
            for coat in (recipe.coat, *(coat for _, coat, _ in recipe.turns)):
                model.info.label_index(coat)
        student = self.library.student_of(model) if live else None
        job = Job(model, recipes, record=record, live=live, preview=preview, drawn_by=student)
        if wanted and wanted != model.hash:
            was = "has changed since; this is how it draws the cat now"
            if not asked_for:
                was = "draws this cat, because the model that first drew it is not here"
            job.note = f"{model.name} {was}."
        elif version != __version__:
            job.note = f"Drawn first by version {version}, so it may look slightly different."
        with self._arrived:
            if self._closing:
                raise Busy(ENDING)
            if len(self._jobs) >= self.max_waiting:
                raise Busy("Too many visitors are waiting. Please try again in a moment.")
            if job.client != HOUSE and self._waiting_of(job.client) >= self._max_of_one:
                raise Busy("You have enough waiting here already. Please try again in a moment.")
            job.arrived = self._turn
            self._jobs.append(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="studio", daemon=True)
                self._worker.start()
            self._arrived.notify()
        return job

    def watch(self, job: Job) -> Iterator[Update]:
        """Updates of a job until it is done, the last with its final pictures.

        Closing the iterator stops the job. Raises what went wrong with it.
        """
        try:
            while not job.done:
                yield self._update(job)
                job.wait(UPDATE_SECONDS)
            if job.error is not None:
                raise job.error
            yield self._update(job)
        finally:
            self.stop(job)

    def stop(self, job: Job, *, why: Exception | None = None) -> None:
        """End a job within one step; what has formed by then is kept. Where nothing has, ``why``
        is what its watchers are told, and ``job.why`` anyhow."""
        with self._arrived:
            if job.done:
                return
            job.stopped, job.why = True, why
            if job in self._jobs:
                self._jobs.remove(job)
            if job.idle:
                job.finish(why if job.pictures is None else None)

    def close(self) -> None:
        """Stop what is drawn and the worker: a thread inside torch would not let Python end."""
        with self._arrived:
            self._closing = True
            jobs = [*self._jobs, *self._drawing]
            self._arrived.notify_all()
        for job in jobs:
            self.stop(job, why=Busy(ENDING))
        if self._worker is not None:
            self._worker.join(CLOSE_SECONDS)

    def draw(self, recipes: Sequence[Recipe], **how: Any) -> Job:
        """As ``submit``, but wait until done."""
        job = self.submit(recipes, **how)
        for _ in self.watch(job):
            pass
        return job

    def place(self, job: Job) -> int:
        """How many jobs are ahead of one that waits."""
        with self._arrived:
            if job.started is not None or job not in self._jobs:
                return 0
            return self._in_order().index(job)

    def state(self) -> dict[str, Any]:
        """For whatever watches over the server: whether jobs would be drawn, and how many wait."""
        works = not self._closing and (self._worker is None or self._worker.is_alive())
        ready = works and self.library.loaded
        return {"ready": ready, "waiting": len(self._jobs), "room": self.max_waiting}

    @property
    def _max_of_one(self) -> int:
        """Jobs of one client that may wait: several visitors can share an address."""
        return max(1, self.max_waiting // 4)

    def _waiting_of(self, client: str) -> int:
        return sum(job.client == client for job in self._jobs)

    def _in_order(self) -> list[Job]:
        """The jobs in the order of their next turns, which go round by client, not by job.

        A client who comes anew goes behind those who have waited since before. After a turn of live
        frames comes an ordinary one, so that explorers never take more turns than all others.
        """
        behind: Counter[str] = Counter()
        order = []
        for index, job in enumerate(self._jobs):
            since = max(self._served.get(job.client, 0), job.arrived)
            order.append((self._was_live and job.live, behind[job.client], since, index))
            behind[job.client] += 1
        return [self._jobs[index] for *_, index in sorted(order)]

    def _update(self, job: Job) -> Update:
        total = job.steps_to_take
        finished = job.done and not job.stopped
        taken = total if finished else sum(job.steps_taken) / len(job.recipes)
        return Update(job.pictures, int(taken), total, taken / total, self.place(job), job.done)

    # -- the worker ---------------------------------------------------------------------------

    def _work(self) -> None:
        while turn := self._next_turn():
            try:
                self._draw_turn(turn)
            except Exception as error:  # reported to those it concerns; the worker goes on
                self._fail(turn, error)

    def _next_turn(self) -> list[tuple[Job, int]]:
        """Wait for a job, then take rows: the first job's, and those of others like it.

        Empty when the studio closes.
        """
        with self._arrived:
            self._drawing.clear()
            self._arrived.wait_for(lambda: self._jobs or self._closing)
            if self._closing:
                return []
            self._let_batches_grow()
            order = self._in_order()
            first = order[0]
            most = min(self.max_batch, MAX_LIVE_BATCH) if first.live else self.max_batch
            most = max(1, min(most, TURN_STEPS // first.steps_to_take))
            turn: list[tuple[Job, int]] = []
            for job in [job for job in order if job.key == first.key]:
                if job.record != first.record:
                    continue
                while job.waiting and len(turn) < most:
                    turn.append((job, job.waiting.popleft()))
                if job.started is None and turn and turn[-1][0] is job:
                    job.started = time.monotonic()
                if not job.waiting:
                    self._jobs.remove(job)
            if first.waiting:  # a long job lets the others have a turn
                self._jobs.remove(first)
                self._jobs.append(first)
            self._turn, self._was_live = self._turn + 1, first.live
            self._served[first.client] = self._turn
            here = {job.client for job in self._jobs}
            self._served = {name: turn for name, turn in self._served.items() if name in here}
            self._drawing.update(job for job, _ in turn)
            return turn

    def _let_batches_grow(self) -> None:
        """Memory that was short once need not be short for ever."""
        now = time.monotonic()
        if self.max_batch < MAX_BATCH and now - self._resized_at > RECOVERY_SECONDS:
            self.max_batch, self._resized_at = min(MAX_BATCH, 2 * self.max_batch), now

    def _draw_turn(self, turn: list[tuple[Job, int]]) -> None:
        jobs = list(dict.fromkeys(job for job, _ in turn))
        first = jobs[0]
        recipes = [job.recipes[row] for job, row in turn]
        denoiser = first.drawn_by.denoiser
        start = build_start(denoiser, recipes)
        observer = Observer(turn, denoiser.codec)
        callback = None if space.on_zero_gpu() else observer  # it cannot cross the process border
        model = first.drawn_by.name, first.drawn_by.hash
        how = first.live, first.preview
        run = partial(self._run, *model, start, recipes[0], *how, callback)
        pictures = first.context.run(run)
        for (job, row), picture in zip(turn, pictures, strict=True):
            if not (job.stopped and row in observer.stopped_rows.get(job, ())):
                store(job, row, picture)
                if job.record == "preview" and row == 0 and job.frames:
                    job.frames[-1] = picture
            job.undone -= 1
        with self._arrived:
            for job in jobs:
                if job.undone == 0 or (job.stopped and job.idle):
                    job.finish()

    def _draw_batch(
        self,
        model_name: str,
        model_hash: str,
        start: Start,
        recipe: Recipe,
        live: bool,
        preview: bool,
        callback: Callable[[Step], bool] | None,
    ) -> Tensor:
        """What ZeroGPU gives a GPU to: its arguments and result can cross a process border."""
        denoiser = self.library.recall(model_name, model_hash).denoiser
        usual = denoiser.info.sampling
        config = live_sampling(usual) if live else recipe.config(usual)
        return self._draw(denoiser, start, config, callback=callback, preview=preview)

    def _fail(self, turn: list[tuple[Job, int]], error: Exception) -> None:
        """Report an error to the jobs of a turn; when memory ran out, try smaller turns first."""
        jobs = list(dict.fromkeys(job for job, _ in turn))
        if is_out_of_memory(error) and len(turn) > 1:
            self.max_batch, self._resized_at = max(1, len(turn) // 2), time.monotonic()
            with self._arrived:
                for job, row in reversed(turn):
                    job.waiting.appendleft(row)
                    job.steps_taken[row] = 0  # it starts again
                    if row == 0:
                        job.frames.clear()
                    job.note = "Memory was low, so these were drawn in smaller batches."
                for job in reversed(jobs):
                    if job.stopped:  # meanwhile: nobody waits for its rows
                        job.finish()
                    elif job not in self._jobs:
                        self._jobs.appendleft(job)
            return
        if is_out_of_memory(error):
            error = ValueError("There is not enough memory to draw this.")
        elif not isinstance(error, ValueError):
            traceback.print_exception(error)
            error = ValueError("Drawing failed. Please try again; the server's log says why.")
        with self._arrived:
            for job in jobs:
                if job in self._jobs:
                    self._jobs.remove(job)
        for job in jobs:
            job.finish(error)
