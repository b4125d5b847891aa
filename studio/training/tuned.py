"""The owner's models: named, deleted, chosen as the default, given to the Hub."""

from __future__ import annotations

import re
import shutil
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from diffusion import Denoiser
from diffusion.checkpoint import WEIGHTS_NAME, CheckpointInfo, read_checkpoint
from diffusion.denoiser import HUB_LIBRARY
from diffusion.files import atomic_path, clear_temporary

from ..disk import errors_as_sentences, hold
from ..drawing.library import ModelLibrary, model_hash
from ..drawing.model_note import ModelNote, note_path, read_note, write_note

MODELS = "models"  # folder in the data folder
DEFAULT_NAME = "default-model"  # file in the data folder
MAX_MODEL_NAME = 60  # characters
MAX_SLUG_BYTES = 150  # a file name has 255, and a temporary one is longer
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9¹²³]")  # devices on Windows
CARD = """\
---
library_name: {library}
tags: [diffusion, cats]
---
# {name}

Made with Cat Diffusion: put `model.safetensors` into `data/models` under the name of your choice
and it is on the page; in Python, `diffusion.Denoiser.from_pretrained("{repo}")` loads it. Its
settings are in the file's metadata. Labels: {labels}.
"""


def slug(name: str) -> str:
    """A file name, without its ending, for what a person calls a model, in any script.

    Raises ValueError with a sentence.
    """
    if not isinstance(name, str) or len(name.strip()) > MAX_MODEL_NAME:
        raise ValueError(f"A model's name has at most {MAX_MODEL_NAME} characters.")
    text = unicodedata.normalize("NFKC", name).lower()
    kept = ""
    for character in text:
        kind = unicodedata.category(character)[0]
        if kind in "LN" or (kind == "M" and kept[-1:] not in ("", "-")):  # marks belong to letters
            kept += character
        elif kept[-1:] != "-":
            kept += "-"
    while len(kept.encode()) > MAX_SLUG_BYTES:
        kept = kept[:-1]
    kept = kept.strip("-")
    if not any(c.isalnum() for c in kept):
        raise ValueError("A model's name needs at least one letter or digit.")
    return f"{kept}-cat" if RESERVED.fullmatch(kept) else kept


@dataclass(frozen=True)
class ModelCard:
    """One of the owner's models, as the owner sees it."""

    name: str  # of its file, and in links
    title: str  # what people read
    hash: str  # of its weights
    info: CheckpointInfo  # what its checkpoint says
    base: str  # name of a model that is here, to compare it with; or ""
    photos: int  # that it learned from; 0 where that is not known
    made: float  # Unix seconds


class TunedModels:
    """Operations on ``data/models``, a folder of the library; what was shipped is left alone.

    A visitor's cat that is being drawn has its model in memory, so none of them disturbs it. All
    raise ValueError with a sentence.
    """

    def __init__(
        self, data_dir: Path, library: ModelLibrary, *, hub: Callable[..., Any] = HfApi
    ) -> None:
        self.folder, self.library = Path(data_dir) / MODELS, library
        self._default_file = Path(data_dir) / DEFAULT_NAME
        self._hub = hub
        clear_temporary(self.folder)

    def names(self) -> list[str]:
        """The owner's models, as the Generate tab names them."""
        paths, folder = self.library.paths().items(), self.folder.resolve()
        return sorted(name for name, path in paths if path.parent.resolve() == folder)

    def cards(self) -> list[ModelCard]:
        """The owner's models, the newest first."""
        cards = []
        for name in self.names():
            path = self.folder / f"{name}.safetensors"
            with suppress(OSError, ValueError):  # deleted or damaged just now
                note, info = read_note(path), _info_of(path, model_hash(path))
                base = note.base if note.base in self.library.names and note.base != name else ""
                made = note.made or path.stat().st_mtime
                cards.append(
                    ModelCard(
                        name, note.title or name, model_hash(path), info, base,
                        note.photos, made,
                    )
                )  # fmt: skip
        return sorted(cards, key=lambda card: -card.made)

    def title(self, name: str) -> str:
        """What people read for the name of a model."""
        return read_note(self.folder / f"{name}.safetensors").title or name

    def by_hash(self) -> dict[str, str]:
        """The owner's models by the hashes of their files, of equal ones the first; and by their
        times of change in ns, as which the records of older versions know them."""
        found: dict[str, str] = {}
        for path in sorted(self.folder.glob("[!.]*.safetensors"), key=lambda path: path.stem):
            with suppress(OSError):
                found.setdefault(model_hash(path), path.stem)
                found.setdefault(str(path.stat().st_mtime_ns), path.stem)
        return found

    def path(self, name: str) -> Path:
        """Where a model lies, to be downloaded."""
        if name in self.names():
            return self.folder / f"{name}.safetensors"
        if name in self.library.names:
            raise ValueError(f"{name} came with the program. Only your own models can be changed.")
        raise ValueError(f"There is no model '{str(name)[:60]}' here.")

    def add(
        self, source: Path, name: str, *, replacing: str = "", base: str = "", photos: int = 0
    ) -> str:
        """Copy a checkpoint to the owner's models, if it loads; returns the name that it got.

        That is the name of the model that it replaces, or else made of ``name``, or with -2, -3 and
        so on where that is taken. ``base`` and ``photos`` are what it was made of.
        """
        with errors_as_sentences():
            self.folder.mkdir(parents=True, exist_ok=True)
            with hold(self.folder / ".lock"):
                again = replacing in self.names()
                chosen = replacing if again else self._free(slug(name))
                path = self.folder / f"{chosen}.safetensors"
                with atomic_path(path) as temporary:
                    shutil.copyfile(source, temporary)
                    Denoiser.load(temporary)  # what does not load is never listed
                title = (
                    read_note(path).title if again else self._free_title(name.strip(), but=chosen)
                )
                write_note(path, ModelNote(title, base, photos, time.time()))
        return chosen

    def rename(self, name: str, title: str) -> str:
        """Give a model another title, any text; returns it. Its name, that of its file, stays: the
        default, links and recipes know the model by that."""
        slug(title)  # raises for what nobody could read
        title = " ".join(title.split())
        if not title.isprintable():
            raise ValueError("A model's name must be plain text on one line.")
        with errors_as_sentences():
            path = self.path(name)
            with hold(self.folder / ".lock"):
                if title.casefold() in self._titles(but=name):
                    raise ValueError(f"There is a model '{title}' already.")
                write_note(path, replace(read_note(path), title=title))
        return title

    def delete(self, name: str) -> None:
        """Delete a model; if it was the default, the shipped one is that again."""
        with errors_as_sentences():
            path = self.path(name)
            with hold(self.folder / ".lock"):
                if self._chosen_default() == name:
                    self._default_file.unlink()
                path.unlink(missing_ok=True)
                note_path(path).unlink(missing_ok=True)

    def set_default(self, name: str) -> None:
        """Choose the model that visitors get first: one of the owner's, or one that was shipped."""
        if name not in self.library.names:
            raise ValueError(f"There is no model '{str(name)[:60]}' here.")
        with errors_as_sentences(), atomic_path(self._default_file) as temporary:
            temporary.write_text(name, encoding="utf-8")

    def clear_default(self) -> None:
        """Let visitors get first what they would without the owner's choice."""
        with errors_as_sentences():
            self._default_file.unlink(missing_ok=True)

    def publish(self, name: str, repo: str, token: str) -> str:
        """Upload a model to a repository of the Hugging Face Hub; returns its address.

        The token is used for these calls and kept nowhere.
        """
        path = self.path(name)
        if not isinstance(repo, str) or not REPO.fullmatch(repo.strip()):
            raise ValueError("Name the repository as user/name, such as mia/my-cats.")
        if not isinstance(token, str) or not token.strip():
            raise ValueError("Publishing needs a Hub token with write access.")
        repo, problem = repo.strip(), ""
        labels = ", ".join(read_checkpoint(path)[1].labels) or "none"
        card = CARD.format(library=HUB_LIBRARY, name=name, repo=repo, labels=labels).encode()
        try:
            hub = self._hub(token=token.strip())
            hub.create_repo(repo, exist_ok=True)
            hub.upload_file(path_or_fileobj=path, path_in_repo=WEIGHTS_NAME, repo_id=repo)
            if not hub.file_exists(repo, "README.md"):  # the owner may have written a better one
                hub.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
        except Exception as error:  # the Hub's client raises errors of several libraries
            problem = _hub_problem(error, repo)
        if problem:  # outside the block, so that no traceback leads to the request and its token
            raise ValueError(problem)
        return f"https://huggingface.co/{repo}"

    def _free(self, name: str) -> str:
        taken, chosen, number = self._taken(), name, 1
        while chosen.casefold() in taken:
            number += 1
            chosen = f"{name}-{number}"
        return chosen

    def _free_title(self, title: str, *, but: str) -> str:
        taken, chosen, number = self._titles(but=but), title, 1
        while chosen.casefold() in taken:
            number += 1
            chosen = f"{title} {number}"
        return chosen

    def _taken(self) -> set[str]:
        """Names in use, as file systems that do not tell a from A see them."""
        lying = (path.stem for path in self.folder.glob("*.safetensors"))
        return {name.casefold() for name in (*self.library.names, *lying)}

    def _titles(self, but: str = "") -> set[str]:
        """Titles of the models, but one's, without regard to capitals."""
        return {title.casefold() for title, name in self.library.choices if name != but}

    def _chosen_default(self) -> str:
        try:
            return self._default_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""


@lru_cache(maxsize=100)
def _info_of(path: Path, hash: str) -> CheckpointInfo:
    """What a checkpoint of that hash says of itself. Raises ValueError."""
    return read_checkpoint(path)[1]


def _hub_problem(error: Exception, repo: str) -> str:
    """A sentence for what the Hub's client raised; its own text may hold more than it should."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"This token has no write access to {repo}."
    if status is not None:
        return f"The Hub refused {repo} (HTTP {status})."
    if isinstance(error, ValueError):
        return f"The Hub does not accept the name {repo}."
    return "The Hub could not be reached; nothing more was uploaded."
