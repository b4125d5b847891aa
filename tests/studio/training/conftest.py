"""Fixtures of this folder."""

from training_rig import rig  # noqa: F401
