"""All that the owner's part of the page stands on, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from ..drawing.worker import Studio
from ..safety.owner import Owner
from ..settings import Settings
from ..training.jobs import FinetuneJobs
from ..training.photos import PictureSets
from ..training.tuned import TunedModels


@dataclass(frozen=True)
class Admin:
    """Who the owner is, the photos, the trainings and the models that came of them."""

    studio: Studio
    owner: Owner
    sets: PictureSets
    jobs: FinetuneJobs
    models: TunedModels


def build_admin(settings: Settings, studio: Studio) -> Admin:
    """The owner's part over the data folder of ``settings``; nothing started yet."""
    sets = PictureSets(settings.data_dir / "uploads")
    jobs = FinetuneJobs(settings.data_dir, studio.library)
    return Admin(studio, Owner.from_environment(), sets, jobs, jobs.models)
