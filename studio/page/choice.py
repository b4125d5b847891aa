"""Gradio's choices, without their memory of what there is to choose from.

Gradio's own check what was chosen against choices that they forget with the visit, when others have
come: they would then refuse whatever the page still shows. Here the handlers check it.
"""

from __future__ import annotations

from typing import Any

import gradio as gr


class Choice(gr.Dropdown):
    """A dropdown whose handlers check what was chosen."""

    is_template = True  # in the browser it is a Dropdown

    def preprocess(self, payload: Any) -> str | list[Any]:
        """What was chosen; nothing where it is of another kind."""
        if self.multiselect:
            return payload if isinstance(payload, list) else []
        return payload if isinstance(payload, str) else ""


class Chips(gr.Radio):
    """A row of chips, one of which is chosen; its handlers check which."""

    is_template = True  # in the browser it is a Radio

    def preprocess(self, payload: Any) -> str | int | None:
        """What was chosen; None where it is of another kind."""
        return payload if isinstance(payload, (str, int)) else None
