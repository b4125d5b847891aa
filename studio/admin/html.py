"""How the Admin tab looks: the door and the photos. Pieces of HTML, made of what is known and of
nothing else; trainings and models have modules of their own."""

from __future__ import annotations

from html import escape
from pathlib import Path

from diffusion.config import MAX_PICTURES
from diffusion.data.copies import MIN_IMAGES

from ..safety.owner import OFF
from ..training.photos import Picture, SetView

_HERE = Path(__file__).parent
CSS = (_HERE / "admin.css").read_text(encoding="utf-8")
HEAD = "".join(
    f"<script>{(_HERE / name).read_text(encoding='utf-8')}</script>"
    for name in ("admin.js", "trainings.js")
)
ACT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-act]');
  const {of, act, more} = button?.dataset ?? {};
  if (act) trigger('select', {index: of, value: [act, more]});
});
element.addEventListener('submit', (event) => {
  event.preventDefault();
  const {of, act} = event.target.dataset;
  trigger('select', {index: of, value: [act, event.target.elements[0].value]});
});
"""  # the script of a piece of HTML: its buttons and forms ask for what ``AdminActions.act`` does

SHOWN_LINES = 300  # files left out that are listed; the rest is counted

IN_FRAME = """\
<p class="admin-framed">Browsers may block signing in while this page is shown inside another one.
<a href="./" target="_blank" rel="noopener">Open this page in its own tab</a> to sign in.</p>"""

SIGN_IN = f"""\
<form class="admin-sign-in" data-admin="sign-in">
<p>This part is for the owner of the page, who can teach the model a new cat here.</p>
<label for="admin-password">Password</label>
<input id="admin-password" name="password" type="password" autocomplete="current-password" required>
<button type="submit" class="admin-button primary">Sign in</button>
<p class="admin-message" role="alert"></p>
{IN_FRAME}
</form>"""

SWITCHED_OFF = f'<div class="admin-sign-in"><p>{escape(OFF)}</p></div>'

NO_TRAINING_HERE = """\
<p class="admin-note" role="note">This Space runs on ZeroGPU, which lends a GPU for a few seconds at
a time: nothing can be trained here. Duplicate the Space to other hardware, or train on your own
machine with <code>python -m diffusion finetune</code> and upload the model.</p>"""

DROP = f"""\
<div class="admin-drop" data-admin="drop">
<p>Drop photos, a folder or a zip here: {MIN_IMAGES} to {MAX_PICTURES:,} pictures of one cat.</p>
<div class="admin-row">
<label class="admin-button" role="button" tabindex="0">Choose photos or a zip
<input type="file" multiple accept="image/*,.heic,.heif,.zip"
data-admin="files" tabindex="-1"></label>
<label class="admin-button" role="button" tabindex="0">Choose a folder
<input type="file" webkitdirectory multiple data-admin="files" tabindex="-1"></label>
</div>
<progress max="1" value="0" hidden aria-label="Upload"></progress>
<p class="admin-message"></p>
</div>
<p id="admin-said" class="admin-unseen" role="status"></p>
<div id="admin-photos"></div>"""


def message_html(text: str, *, error: bool = False) -> str:
    """A line that screen readers announce."""
    role = 'role="alert" class="admin-message error"' if error else 'role="status"'
    kind = "" if error else ' class="admin-message"'
    return f"<p {role}{kind}>{escape(text)}</p>"


# -- photos -----------------------------------------------------------------------------------


def photos_html(view: SetView | None) -> str:
    """The current set: counts, thumbnails, and one line per file that was left out."""
    if view is None:
        return '<div data-set="" data-waiting="0"></div>'
    cells = "".join(_photo_html(view.id, picture) for picture in view.pictures)
    empty = not (view.pictures or view.left_out or view.waiting)
    again = '<button type="button" class="admin-button" data-admin="again">Start over</button>'
    return (
        f'<div data-set="{view.id}" data-waiting="{view.waiting}">'
        f'<div class="admin-row spread"><p class="admin-counts">{_counts(view)}</p>'
        f"{'' if empty else again}</div>"
        f'<div class="admin-photos">{cells}</div>{_left_out_html(view)}</div>'
    )


def _counts(view: SetView) -> str:
    chosen, removed = len(view.chosen), len(view.pictures) - len(view.chosen)
    left_out = len(view.left_out) + view.more_left_out
    parts = [f"{chosen:,} photo{'' if chosen == 1 else 's'} to learn from"]
    parts += [f"{removed:,} removed"] * bool(removed)
    parts += [f"{left_out:,} left out"] * bool(left_out)
    if view.captions:
        parts.append(
            f"{view.captions:,} caption file{'' if view.captions == 1 else 's'} not needed"
        )
    parts += [f"{view.waiting:,} still being checked"] * bool(view.waiting)
    if chosen < MIN_IMAGES and not view.waiting:
        parts.append(f"at least {MIN_IMAGES} are needed")
    return " · ".join(parts)


def _photo_html(identity: str, picture: Picture) -> str:
    left, top, right, _ = picture.box
    name = escape(picture.name)
    return (
        f'<button type="button" class="admin-photo{" removed" * picture.removed}"'
        f' data-admin="photo" data-number="{picture.number}" data-width="{picture.width}"'
        f' data-height="{picture.height}" data-square="{left},{top},{right - left}"'
        f' aria-haspopup="dialog" title="{name}">'
        f'<img loading="lazy" width="88" height="88" alt="{name}{" (removed)" * picture.removed}"'
        f' src="admin/sets/{identity}/thumb/{picture.number}.jpg?v={left}-{top}-{right}"></button>'
    )


def _left_out_html(view: SetView) -> str:
    if not view.left_out:
        return ""
    keep = "".join(
        f"<li><b>{escape(copy.name)}</b> looks like <b>{escape(original.name)}</b> "
        f'<button type="button" class="admin-button" data-admin="keep-both"'
        f' data-number="{copy.number}">Keep both</button></li>'
        for copy, original in view.copies[:SHOWN_LINES]
    )
    shown = view.left_out[: len(view.left_out) - len(view.copies)][:SHOWN_LINES]  # copies are last
    lines = keep + "".join(f"<li><b>{escape(s.name)}</b>: {escape(s.reason)}</li>" for s in shown)
    listed = len(shown) + min(len(view.copies), SHOWN_LINES)
    more = len(view.left_out) - listed + view.more_left_out
    lines += f"<li>and {more:,} more</li>" if more else ""
    count = len(view.left_out) + view.more_left_out
    return (
        f'<details class="admin-left-out" open><summary>Left out: {count:,}</summary>'
        f"<ul>{lines}</ul></details>"
    )
