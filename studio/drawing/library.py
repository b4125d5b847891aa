"""The models that the page offers, each loaded once."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

from diffusion import Denoiser
from diffusion.checkpoint import HASH_LENGTH, CheckpointInfo, checkpoints_in
from diffusion.files import file_hash

from .model_note import read_note

MAX_LOADED = 6  # models kept in memory: all that are shipped, and one more
QUICK = "-quick"  # ends the name of a model's student


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A denoiser in memory, and what tells its weights from others of the same name."""

    name: str
    hash: str
    denoiser: Denoiser

    @property
    def info(self) -> CheckpointInfo:
        return self.denoiser.info

    @property
    def picture_size(self) -> int:
        """Width and height of its pictures in pixels."""
        return self.info.picture_size


class Damaged(ValueError):
    """The file of a model cannot be read."""


class ModelLibrary:
    """Checkpoints by name: files, and those in folders. Names come from this list only, never from
    a path.

    A model is its weights: it is known by the hash of its file, and a file that is only touched,
    copied or restored is the same model. What appears or changes is seen at the next look. So is
    ``default_file``, in which the owner names the model that is chosen at first; what it says goes
    before ``default``, unless there is no such model.
    """

    def __init__(
        self, places: Sequence[Path], *, default: str = "", default_file: Path | None = None
    ) -> None:
        self.places = tuple(places)
        self.default_file = default_file
        self._default = default
        self._loaded: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()  # name and hash
        # Also those that a job still holds, whatever has become of their files since.
        self._in_use: WeakValueDictionary[tuple[str, str], LoadedModel] = WeakValueDictionary()
        self._broken: dict[tuple[Path, int], str] = {}  # what is wrong with a file, by its time
        self._lock = threading.Lock()

    def paths(self) -> dict[str, Path]:
        """Name to file, the default first; those that could not be read are left out."""
        return {name: path for name, path in self._found().items() if not self._fault(path)}

    def faults(self) -> dict[str, str]:
        """What is wrong with each model whose file is damaged; known once it was asked for."""
        found = {name: self._fault(path) for name, path in self._found().items()}
        return {name: fault for name, fault in found.items() if fault}

    def _fault(self, path: Path) -> str:
        """A sentence, or "" for a file that can be read or was not tried as it is now."""
        try:
            return self._broken.get((path, path.stat().st_mtime_ns), "") if self._broken else ""
        except OSError:
            return ""

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for place in self.places:
            here = {place.stem: place} if place.is_file() else checkpoints_in(place)
            for name, path in here.items():
                found.setdefault(name, path)
        for name in (self._default, self._owners_default()):
            if name in found:
                found = {name: found.pop(name), **found}
        return found

    def _owners_default(self) -> str:
        """What the owner's file says, "" if there is none or it is no text of one line."""
        if self.default_file is None:
            return ""
        try:
            with self.default_file.open(encoding="utf-8") as file:
                return file.read(1000).strip()
        except (OSError, ValueError):
            return ""

    @property
    def loaded(self) -> bool:
        """Whether any model is in memory."""
        return bool(self._loaded)

    @property
    def names(self) -> list[str]:
        return list(self.paths())

    @property
    def choices(self) -> list[tuple[str, str]]:
        """What people read and the name of each, the default first: for a list to choose from."""
        return [(read_note(path).title or name, name) for name, path in self.paths().items()]

    @property
    def default(self) -> str:
        """Name of the model that an empty name means. Raises ValueError if there is none."""
        if not self.names:
            raise ValueError("There is no model yet: checkpoints/ contains no .safetensors file.")
        return self.names[0]

    def get(self, name: str = "") -> LoadedModel:
        """The model called ``name``, read from disk the first time. Raises ValueError."""
        while not name:  # an empty name is served by the next one if the default is damaged
            with suppress(Damaged):
                return self.get(self.default)
        try:
            path = self.paths()[name]
            key = (name, self._hash(name, path))
            with self._lock:
                if key not in self._loaded:
                    model = self._in_use.get(key) or self._load(*key, path)
                    self._loaded[key] = self._in_use[key] = model
                    while len(self._loaded) > MAX_LOADED:
                        self._loaded.popitem(last=False)
                self._loaded.move_to_end(key)
                return self._loaded[key]
        except (KeyError, OSError):  # it can be renamed or deleted between two looks
            raise ValueError(f"There is no model '{name[:40]}' here; choose another.") from None

    def student_of(self, model: LoadedModel) -> LoadedModel | None:
        """The model of that name with ``QUICK`` at its end, if these very weights taught it."""
        name = model.name + QUICK
        if name not in self.paths():
            return None
        with suppress(ValueError):
            student = self.get(name)
            return student if student.info.teacher == model.hash else None
        return None

    def _hash(self, name: str, path: Path) -> str:
        with self._left_out_if_damaged(name, path):
            return model_hash(path)

    def _load(self, name: str, hash: str, path: Path) -> LoadedModel:
        with self._left_out_if_damaged(name, path):
            return _load(name, hash, path)

    @contextmanager
    def _left_out_if_damaged(self, name: str, path: Path) -> Iterator[None]:
        """Raises Damaged, once for each file: the model is listed no more until it is replaced."""
        time = path.stat().st_mtime_ns
        try:
            yield
        except FileNotFoundError:
            raise
        except (ValueError, OSError) as error:
            reason = str(error) if isinstance(error, ValueError) else "its file cannot be read."
            self._broken[path, time] = reason
            print(f"The model '{name}' is left out: {reason}", file=sys.stderr)
            raise Damaged(reason) from None

    def recall(self, name: str, hash: str) -> LoadedModel:
        """The very weights that a job was accepted for, though their file may be newer by now.

        A job that holds its model is served though that was renamed or deleted since. Raises
        ValueError if the weights have left the memory and the disk.
        """
        with self._lock:
            model = self._in_use.get((name, hash))
        if model is not None:
            return model
        model = self.get(name)
        if model.hash != hash:
            raise ValueError(f"{name} was just replaced. Please try again.")
        return model


def _load(name: str, hash: str, path: Path) -> LoadedModel:
    return LoadedModel(name, hash, Denoiser.load_for_sampling(path))


def model_hash(path: Path) -> str:
    """The digits that name the weights in a file, which is read only if it has changed since it was
    last asked for. Raises OSError."""
    stat = path.stat()
    return _hash_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=1000)
def _hash_of(path: Path, *_: int) -> str:
    return file_hash(path)[:HASH_LENGTH]
