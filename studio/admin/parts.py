"""All that the owner's part of the page stands on, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from ..drawing.portraits import Portraits
from ..drawing.worker import Studio
from ..safety.owner import Owner
from ..settings import Settings
from ..training.picture_sets import PictureSets
from ..training.trainings import Trainings
from ..training.tuned import TunedModels


@dataclass(frozen=True)
class Admin:
    """Who the owner is, the photos, the trainings and the models that came of them."""

    studio: Studio
    owner: Owner
    sets: PictureSets
    trainings: Trainings
    models: TunedModels
    portraits: Portraits


def build_admin(settings: Settings, studio: Studio) -> Admin:
    """The owner's part over the data folder of ``settings``; nothing started yet."""
    sets = PictureSets(settings.data_dir / "uploads")
    trainings = Trainings(settings.data_dir, studio.library)
    owner, portraits = Owner.from_environment(), Portraits(studio)
    return Admin(studio, owner, sets, trainings, trainings.models, portraits)
