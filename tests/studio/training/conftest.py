"""Fixtures of this folder."""

from photo_sets import pictures, sets  # noqa: F401
from training_rig import rig  # noqa: F401
