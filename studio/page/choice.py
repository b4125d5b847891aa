"""Gradio's dropdown, without its memory of what there is to choose from."""

from __future__ import annotations

from typing import Any

import gradio as gr


class Choice(gr.Dropdown):
    """A dropdown whose handlers check what was chosen.

    Gradio's own checks it against choices that it forgets with the visit, when others have come: it
    would then refuse whatever the page still shows.
    """

    is_template = True  # in the browser it is a Dropdown

    def preprocess(self, payload: Any) -> str | list[Any]:
        """What was chosen; nothing where it is of another kind."""
        if self.multiselect:
            return payload if isinstance(payload, list) else []
        return payload if isinstance(payload, str) else ""
