"""Requests to the Generate tab's actions, and what its form shows, without a page."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from studio.page.shown import Shown


def request(**query: str) -> gr.Request:
    return SimpleNamespace(query_params=query, session_hash="visit")


def settings(opened: Shown) -> list:
    """Count, seed, coat, steps, sampler, guidance and model that an opened page shows."""
    names = ("count", "seed", "coat", "steps", "sampler", "guidance", "model")
    values = [opened[name] for name in names]
    return [value["value"] if isinstance(value, dict) else value for value in values]
