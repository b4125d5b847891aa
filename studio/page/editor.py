"""Gradio's image editor, without what it does to pictures on their way to a handler."""

from __future__ import annotations

from typing import Any

import gradio as gr


class PictureEditor(gr.ImageEditor):
    """An image editor that hands over paths of the uploaded files, as they are.

    Gradio's own would decode and encode them first, whatever their size: seconds and gigabytes for
    a picture that ``read_upload`` refuses by its header.
    """

    is_template = True  # in the browser it is an ImageEditor
    accept_blobs = None  # would keep in memory whatever anybody sends, and is for live editing only

    def preprocess(  # type: ignore[override]  # other values than the base: that is the point
        self, payload: Any
    ) -> dict[str, Any] | None:
        """EditorData as {"background": path, "layers": [path], "composite": path}, or None."""
        if payload is None:
            return None
        return {
            "background": payload.background and payload.background.path,
            "layers": [layer.path for layer in payload.layers or [] if layer],
            "composite": payload.composite and payload.composite.path,
        }
