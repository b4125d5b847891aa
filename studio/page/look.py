"""How the page looks: theme, styles and the few lines of script. Nothing comes from outside."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

FONT = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_HERE = Path(__file__).parent
CSS = (_HERE / "page.css").read_text(encoding="utf-8")
HEAD = f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>"


def theme() -> gr.themes.Base:
    """Warm and plain, with the fonts that the visitor's machine has."""
    return gr.themes.Default(
        primary_hue="orange",
        neutral_hue="stone",
        font=FONT,
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
        radius_size="lg",
    ).set(body_text_color_subdued="*neutral_500")  # Gradio's own is too pale to read
