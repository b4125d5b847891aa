"""An owner's part over made-up trainings, for tests of what stands in front of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drawing import cat, encode
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from studio_fixtures import LABELS, TINY

from diffusion.checkpoint import CheckpointInfo, taught_data
from studio.admin.parts import Admin
from studio.admin.routes import AdminRoutes
from studio.drawing.portraits import Portraits
from studio.drawing.worker import Studio
from studio.safety.guard import Guard
from studio.safety.owner import Owner
from studio.training.picture_sets import PictureSets
from studio.training.tuned import ModelCard
from studio.training.views import TrainingView

PASSWORD = "correct horse battery"


class FakeTrainings:
    """As ``Trainings``, but nothing is ever trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trainings: dict[str, TrainingView] = {}
        self.called: list[tuple] = []
        self.given: list[list[tuple[int, int]]] = []  # sizes of the pictures of each training

    def require_possible(self, spec):
        if spec.base == "lion":
            raise ValueError("There is no model 'lion' here.")

    def create(self, spec: Any, pictures: Sequence[Path]) -> str:
        self.called.append(("create", spec))
        self.given.append([Image.open(path).size for path in pictures])
        identity = f"training{len(self.trainings)}"
        folder = self.folder / identity / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        samples = [folder / "base.png", folder / "000000512.png"]
        for path in samples:
            path.write_bytes(encode(cat(1, 64)))
        self.trainings[identity] = TrainingView(
            identity, spec, samples=samples, can_pause=True, can_stop=True
        )
        return identity

    def change(self, identity: str, **values: Any) -> None:
        self.trainings[identity] = dataclasses.replace(self.trainings[identity], **values)

    def views(self) -> list[TrainingView]:
        return list(self.trainings.values())

    def view(self, identity: str) -> TrainingView:
        if identity not in self.trainings:
            raise ValueError("There is no such training.")
        return self.trainings[identity]

    def estimates(self, base: str) -> dict | None:
        return {"images_per_second": 40.0, "quick": 2.1, "balanced": 5.3, "thorough": 14.0}

    def pause(self, identity: str) -> None:
        self._note("pause", identity, state="paused", can_pause=False, can_resume=True)

    def teach_longer(self, identity: str) -> None:
        self._note("teach_longer", identity, state="queued", can_pause=True, can_go_on=False)

    def resume(self, identity: str) -> None:
        self._note("resume", identity, state="queued", can_pause=True, can_resume=False)

    def stop_and_keep(self, identity: str) -> None:
        self._note("stop_and_keep", identity, state="stopped", can_stop=False, can_pause=False)

    def cancel(self, identity: str) -> None:
        self._note("cancel", identity)
        del self.trainings[identity]

    def roll_back(self, identity: str, images: int) -> None:
        self._note("roll_back", identity, images)

    def _note(self, name: str, identity: str, *more: Any, **changes: Any) -> None:
        self.view(identity)
        self.called.append((name, identity, *more))
        self.change(identity, **changes)


class FakeModels:
    """As ``tuned.TunedModels``, over a folder of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.called: list[tuple] = []

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.safetensors"))

    def cards(self) -> list[ModelCard]:
        info = CheckpointInfo(TINY, labels=LABELS, data=taught_data(LABELS[-1]))
        return [ModelCard(name, name, "0" * 12, info, "tiny", 9, 0.0) for name in self.names()]

    def title(self, name: str) -> str:
        return name

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *values: self.called.append((name, *values)) or values[-1]


def fake_admin(studio: Studio, folder: Path, *, password: str = PASSWORD) -> Admin:
    """The owner's part with made-up trainings and one tuned model, a file of a few bytes."""
    models = folder / "models"
    models.mkdir()
    (models / "mia.safetensors").write_bytes(b"weights")
    return Admin(
        studio,
        Owner(password),
        PictureSets(folder / "uploads"),
        FakeTrainings(folder / "jobs"),
        FakeModels(models),
        Portraits(studio),
    )


def app_of(admin):
    """The routes in front of an app that answers everything with its own name."""

    async def page(request):
        return PlainTextResponse("the page")

    routes = [Route("/{path:path}", page, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=[Middleware(Guard), Middleware(AdminRoutes, admin)])
