"""A job's line in the journal: what it cost, and nothing of what it shows or whom it was for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..safety import journal

if TYPE_CHECKING:
    from .job import Job


def log_job(job: Job) -> None:
    """Write down a job that has just ended. Times are in seconds; a job that was never drawn waited
    to its end."""
    first, finished = job.recipes[0], job.finished or 0.0
    outcome = "failed" if job.error else "stopped" if job.stopped else "done"
    journal.write(
        "job", outcome=outcome, model=job.model.hash, size=job.model.picture_size,
        pictures=len(job.recipes), steps=first.steps_to_take, sampler=first.sampler,
        waited=round((job.started or finished) - job.submitted, 3), seconds=round(job.seconds, 3),
    )  # fmt: skip
