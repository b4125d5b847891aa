"""How the page looks: theme, styles and the few lines of script. Nothing comes from outside."""

from __future__ import annotations

import gradio as gr

FONT = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]

CSS = """
.gradio-container {max-width: 1180px !important; width: 100% !important; margin: 0 auto !important}
.gradio-container .main.fillable {padding-left: clamp(4px, 4vw - 16px, 32px) !important;
  padding-right: clamp(4px, 4vw - 16px, 32px) !important}
.gradio-container main {min-width: 0; padding-left: clamp(4px, 2vw, 12px);
  padding-right: clamp(4px, 2vw, 12px)}
#title h1 {font-size: 1.9rem; margin: .2rem 0 0; letter-spacing: -.02em}
#title p {color: var(--body-text-color-subdued); margin: .1rem 0 .4rem}
.stage {display: grid; gap: 6px; grid-template-columns: repeat(var(--columns, 1), 1fr);
  width: 100%; aspect-ratio: 1; max-width: 448px; margin: 0 auto;
  border-radius: 14px; overflow: hidden;
  background: var(--background-fill-secondary)}
.stage button {margin: 0; padding: 0; border: 0; border-radius: 0; background: none;
  line-height: 0; cursor: pointer}
.stage button:is(:hover, :focus-visible) {outline: 3px solid var(--color-accent);
  outline-offset: -3px; z-index: 1}
.stage img {width: 100%; aspect-ratio: 1; object-fit: contain; display: block}
.stage[aria-busy=true] {outline: 2px solid var(--color-accent); outline-offset: 2px}
.status {text-align: center; margin: .5rem auto; font-size: .92rem; max-width: 72ch;
  text-wrap: balance;
  color: var(--body-text-color-subdued); overflow-wrap: anywhere; min-height: 1.4em}
.status.error {color: var(--error-text-color, #b91c1c); font-weight: 600}
#generate {min-height: 56px; font-size: 1.15rem}
#strip .grid-container {grid-template-columns: repeat(24, 76px) !important; grid-template-rows:
  auto !important; overflow-x: auto; padding-bottom: 6px}
#strip .grid-wrap {max-height: none; min-height: 0; overflow: hidden; padding: 8px}
#strip .thumbnail-item {aspect-ratio: 1}
#seed-buttons {gap: 8px; justify-content: stretch}
#seed-buttons button {flex: 1}
#copy[data-said] {font-size: 0}
#copy[data-said]::after {content: attr(data-said); font-size: var(--button-small-text-size)}
#said {position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)}
#film-note .status, #morph-note .status {min-height: 0}
footer .divider {display: none}
.pixels img {image-rendering: pixelated !important}
"""

HEAD = """
<script>
window.catWalk = (step) => {
  const cat = document.querySelector('.stage img.cat');
  const frames = document.querySelectorAll('.film i');
  if (!cat || !frames.length) return;
  cat.src = frames[Math.max(0, Math.min(frames.length, step) - 1)].dataset.frame;
};
window.catPixels = (on) => {
  document.querySelector('.gradio-container').classList.toggle('pixels', on);
};
window.catShow = () => {
  document.querySelector('#stage').scrollIntoView({behavior: 'smooth', block: 'nearest'});
};
window.catLink = () => {
  const button = document.querySelector('#copy');
  const query = document.querySelector('.stage').dataset.link;
  const say = (text) => {
    button.dataset.said = document.querySelector('#said').textContent = text;
    setTimeout(() => delete button.dataset.said, 2000);
  };
  if (!query) return say('No link: save the PNG');
  const link = location.origin + location.pathname + '?' + query;
  say('Copied');
  const note = document.createElement('textarea');
  note.value = link; document.body.append(note); note.select();
  try { document.execCommand('copy'); } finally { note.remove(); button.focus(); }
  if (navigator.clipboard) navigator.clipboard.writeText(link).catch(() => {});
  window.catLinkCopied = link;
};
document.addEventListener('keydown', (event) => {  // the seed field has an Enter of its own
  const field = event.target.closest('#count input, #steps input, #guidance input');
  if (event.key === 'Enter' && field) document.querySelector('#generate').click();
});
</script>
"""


def theme() -> gr.themes.Base:
    """Warm and plain, with the fonts that the visitor's machine has."""
    return gr.themes.Default(
        primary_hue="orange",
        neutral_hue="stone",
        font=FONT,
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
        radius_size="lg",
    ).set(body_text_color_subdued="*neutral_500")  # Gradio's own is too pale to read
