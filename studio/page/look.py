"""How the page looks: theme, styles and scripts. Nothing comes from outside."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

FONT = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
STYLES = ("page", "stage", "controls", "strip", "tools", "icons", "phone", "explore")
SCRIPTS = (
    "base", "memory", "address", "strip", "grid", "walk", "answer", "tools", "unseen", "sheets",
    "keys", "live", "explore", "dream",
)  # fmt: skip
ASSETS = Path(__file__).parent / "assets"
MARK = ASSETS / "cat.svg"
CSS = "".join((ASSETS / f"{name}.css").read_text(encoding="utf-8") for name in STYLES)
HEAD = f"<style>{(ASSETS / 'outside.css').read_text(encoding='utf-8')}</style>" + "".join(
    f"<script>{(ASSETS / f'{name}.js').read_text(encoding='utf-8')}</script>" for name in SCRIPTS
)
ORANGE = gr.themes.colors.orange


def theme() -> gr.themes.Base:
    """Warm and plain, with the fonts that the visitor's machine has; each text can be read, also
    white on a button (at least 4.5:1)."""
    return gr.themes.Default(
        primary_hue="orange",
        neutral_hue="stone",
        font=FONT,
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
        radius_size="lg",
    ).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",  # Gradio's own is too pale to read
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill=ORANGE.c700,
        button_primary_background_fill_dark=ORANGE.c700,
        button_primary_background_fill_hover=ORANGE.c800,
        button_primary_background_fill_hover_dark=ORANGE.c800,
        button_primary_border_color=ORANGE.c700,
        button_primary_border_color_dark=ORANGE.c700,
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )
