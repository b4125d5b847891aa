"""Static HTML around the cats. The scripts of this folder bring it to life."""

from __future__ import annotations

OVER_STAGE = """
<div class="corner">
  <button class="drawn star" data-do="star" aria-pressed="false" title="Keep this cat"
    aria-label="Keep this cat with a star"></button>
  <button class="drawn bin" data-do="delete" title="Delete this cat"
    aria-label="Delete this cat from the strip"></button>
</div>
<div class="grid-bar" hidden>
  <button class="drawn left" data-do="before" title="The cat before (←)"
    aria-label="The cat before"></button>
  <button data-do="back" title="Back to all (Esc)"></button>
  <button class="drawn right" data-do="after" title="The next cat (→)"
    aria-label="The next cat"></button>
</div>
"""

WALK = """
<p id="ack" class="status" role="status"></p>
<div class="walk">
  <button class="drawn play" data-do="play" disabled title="Show how this cat formed"
    aria-label="Play how this cat formed"></button>
  <input type="range" min="1" max="2" value="2" step="1" disabled
    aria-label="Walk through the steps">
  <span class="caption"></span>
</div>
"""

STRIP_HEAD = """
<div class="strip-head"><span id="count-of-mine"></span>
  <button data-do="clear" hidden>Clear</button><button data-do="undo" hidden>Undo</button></div>
"""

MINE = '<div class="thumbs"></div>'

BAR = """
<button class="bar-coat" data-do="settings" aria-label="Coat and settings"></button>
<button class="bar-count" data-do="count" aria-label="How many cats"></button>
"""

_KEYS = (
    ("G", "Generate"), ("S", "Save this cat"), ("V", "Nine variations"),
    ("← →", "Along the strip, or the grid"), ("Z", "Back to the cat before"),
    ("Esc", "Back to all, or close"), ("?", "These keys"),
)  # fmt: skip

KEYS = (
    '<button class="drawn keys" data-do="keys" title="Keys (?)" aria-label="Keys"></button>'
    '<dialog id="keys"><h2>Keys</h2><dl>'
    + "".join(f"<dt><kbd>{key}</kbd></dt><dd>{what}</dd>" for key, what in _KEYS)
    + '</dl><form method="dialog"><button>Close</button></form></dialog>'
)
