"""Which jobs a visit has: so that Stop ends its own only, and the newest has the stage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from ..drawing.job import Job
from ..drawing.worker import Studio, Update


class Visits:
    """The jobs of everybody who is here."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._jobs: dict[Job, str] = {}  # the visit of each that runs, for Stop
        self._on_stage: dict[str, Job] = {}  # the one whose cats a visit's stage waits for
        self._staging = threading.Lock()

    def watch(self, job: Job, request: gr.Request) -> Iterator[Update]:
        """Updates of a job that this visit's Stop can end."""
        self._jobs[job] = request.session_hash or ""
        try:
            yield from self.studio.watch(job)
        finally:
            del self._jobs[job]

    def stop(self, request: gr.Request) -> None:
        """End this visit's jobs within one step; their handlers then show what is there."""
        for job, visit in tuple(self._jobs.items()):
            if visit == (request.session_hash or ""):
                self.studio.stop(job)

    @contextmanager
    def stage_for(
        self, job: Job, request: gr.Request
    ) -> Iterator[tuple[Job | None, Callable[[], bool]]]:
        """Give a visit's stage to a job; yields the one that had it, which ends, and whether the
        new one still has it."""
        visit = request.session_hash or ""
        with self._staging:
            before, self._on_stage[visit] = self._on_stage.get(visit), job
        if before is not None:
            self.studio.stop(before)
        try:
            yield before, lambda: self._on_stage.get(visit) is job
        finally:
            with self._staging:
                if self._on_stage.get(visit) is job:
                    del self._on_stage[visit]
