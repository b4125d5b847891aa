"""The Explore tab's own HTML: what is in it is done by its scripts."""

from __future__ import annotations

import html
import json

from ...drawing.library import LoadedModel

CORNERS = ("Top left", "Top right", "Bottom left", "Bottom right")


def about_html(model: LoadedModel, title: str) -> str:
    """Which model draws, as a line for people and as values for the scripts."""
    words = f"Drawn by {html.escape(title)}. Choose another model on Generate."
    coats = html.escape(json.dumps([*model.info.labels]))
    name, taught = html.escape(model.name), html.escape(model.info.taught_label)
    return (
        f'<p id="explore-model" data-model="{name}" data-coats="{coats}" data-taught="{taught}">'
        f"{words}</p>"
    )


VIEW = """
<div id="explore-view">
  <img class="under" alt="" hidden><img class="cat" alt="" hidden>
  <button class="drawn full" data-explore="full" title="Full screen" aria-label="Full screen">
  </button>
  <button class="end-dream" data-explore="dream">Stop</button>
  <p id="explore-said" role="status"></p>
</div>
<div id="explore-actions">
  <button class="explore-main" data-explore="dream" id="dream">Dream</button>
  <label class="speed">Speed <input type="range" id="dream-speed" min="0.1" max="1" step="0.05"
    value="0.3" aria-label="Speed of the dream, in cats a second"></label>
  <button data-explore="send" id="send-to-generate">Send to Generate</button>
</div>
"""


def _corner(index: int) -> str:
    name = CORNERS[index]
    return (
        f'<div class="corner-cat" data-corner="{index}">'
        f'<button data-explore="choose" class="face" aria-haspopup="dialog" title="Choose this cat"'
        f' aria-label="{name} cat: choose another"><img alt=""></button>'
        f'<button data-explore="dice" class="drawn dice" title="Another cat"'
        f' aria-label="{name}: another cat by dice"></button></div>'
    )


MAP = f"""
<div id="explore-map" role="group" aria-label="A map of four cats">
  <p class="how">Drag the dot to blend these four cats.</p>
  {_corner(0)}{_corner(1)}
  <div class="pad">{'<img class="ghost" alt="" draggable="false">' * 4}
    <div class="point" role="slider" tabindex="0"
    aria-label="Point between the four cats. Arrow keys move it." aria-orientation="horizontal"
    aria-valuemin="0" aria-valuemax="100" aria-valuenow="50"></div></div>
  {_corner(2)}{_corner(3)}
  <button data-explore="all" class="dice-all">Four other cats</button>
</div>
<dialog id="corner" aria-labelledby="corner-name"><h2 id="corner-name"></h2>
  <div class="ways">
    <button data-explore="dice">Another cat</button>
    <button data-explore="this">The cat shown large here</button>
    <button data-explore="stage">The cat on Generate</button>
    <label>Coat <select id="corner-coat"></select></label>
  </div>
  <div class="thumbs" role="group" aria-label="Your cats"></div>
  <form id="corner-link"><input type="url" placeholder="Paste the link to a cat"
    aria-label="Link to a cat"><button>Use</button></form>
  <form method="dialog"><button>Close</button></form>
</dialog>
"""
