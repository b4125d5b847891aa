"""What is known of a model beside its weights: a small file next to the checkpoint's.

A model's file name never changes, since links and recipes know the model by it. What people read is
its title.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from diffusion.files import atomic_path


@dataclass(frozen=True)
class ModelNote:
    """``NAME.json`` beside ``NAME.safetensors``. Empty where it is not known."""

    title: str = ""  # what people read; empty is the name of the file
    base: str = ""  # name of the model that it was made of
    photos: int = 0  # that it learned from
    made: float = 0.0  # Unix seconds


_NOTE = TypeAdapter(ModelNote)


def note_path(checkpoint: Path) -> Path:
    """Where the note of a checkpoint file lies."""
    return checkpoint.with_suffix(".json")


def read_note(checkpoint: Path) -> ModelNote:
    """The note of a checkpoint file; an empty one if there is none or it is damaged."""
    with suppress(OSError, ValueError):
        return _NOTE.validate_json(note_path(checkpoint).read_bytes())
    return ModelNote()


def write_note(checkpoint: Path, note: ModelNote) -> None:
    """Atomically. Raises OSError."""
    with atomic_path(note_path(checkpoint)) as temporary:
        temporary.write_text(json.dumps(asdict(note), indent=2))
