"""All that the owner's part of the page stands on, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .auth import Owner
from .generation import Studio
from .settings import Settings
from .uploads import PictureSets

if TYPE_CHECKING:
    from .finetune import FinetuneJobs
    from .tuned import TunedModels


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
    from .finetune import FinetuneJobs
    from .tuned import TunedModels

    data = settings.data_dir
    return Admin(
        studio,
        Owner.from_environment(),
        PictureSets(data / "uploads"),
        FinetuneJobs(data, studio.library),
        TunedModels(data, studio.library),
    )
