"""How the Admin tab looks: pieces of HTML, made of what is known and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from diffusion.config import MAX_PICTURES
from diffusion.copies import MIN_IMAGES
from diffusion.run_folder import BASE_GRID, MetricsLine

from ..safety.owner import OFF
from ..training.photos import Picture, SetView
from ..training.training_folder import TrainingState
from ..training.views import TrainingView

_HERE = Path(__file__).parent
CSS = (_HERE / "admin.css").read_text(encoding="utf-8")
HEAD = f"<script>{(_HERE / 'admin.js').read_text(encoding='utf-8')}</script>"

PLOT_WIDTH, PLOT_HEIGHT = 420, 216
PLOT_POINTS = 300  # more cannot be told apart
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
<p class="admin-message" role="status"></p>
</div>
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
        f'<div class="admin-row spread"><p class="admin-counts" role="status">{_counts(view)}</p>'
        f"{'' if empty else again}</div>"
        f'<div class="admin-photos">{cells}</div>{_left_out_html(view)}</div>'
    )


def _counts(view: SetView) -> str:
    chosen, removed = len(view.chosen), len(view.pictures) - len(view.chosen)
    left_out = len(view.left_out) + view.more_left_out
    parts = [f"{chosen:,} photo{'' if chosen == 1 else 's'} to learn from"]
    parts += [f"{removed:,} removed"] * bool(removed)
    parts += [f"{left_out:,} left out"] * bool(left_out)
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


# -- models -----------------------------------------------------------------------------------


def models_html(names: Sequence[str], default: str, faults: Mapping[str, str] | None = None) -> str:
    """The owner's models, each with its file to download; and what is wrong with damaged ones."""
    damaged = "".join(
        message_html(f"{name} is left out: {fault}", error=True)
        for name, fault in (faults or {}).items()
    )
    if not names:
        return damaged + '<p class="admin-counts">You have no models of your own yet.</p>'
    items = "".join(
        f"<li><span>{escape(name)}{' · the default' * (name == default)}</span>"
        f'<a href="admin/models/{quote(name)}.safetensors" download>'
        f"Download {escape(name)}</a></li>"
        for name in names
    )
    return f'{damaged}<ul class="admin-models">{items}</ul>'


# -- trainings --------------------------------------------------------------------------------


def training_title(view: TrainingView) -> str:
    """One line in the list of trainings."""
    how = str(view.state)
    if view.state == TrainingState.RUNNING:
        how = f"{100 * view.progress.fraction:.0f} %"
    elif view.state == TrainingState.QUEUED:
        how = f"waiting, place {view.place}" if view.place else "next"
    return f"{view.spec.name} · {how}"


def training_html(view: TrainingView | None) -> str:
    """How a training stands: bar, figures and curves."""
    if view is None:
        return '<p class="admin-counts">Nothing has been trained yet.</p>'
    fraction = min(1.0, max(0.0, view.progress.fraction))
    failed = " error" if view.state == TrainingState.FAILED else ""
    return (
        f'<div class="admin-training" data-state="{view.state}">'
        f"<p><b>{escape(view.spec.name)}</b> · label “{escape(view.spec.config.label)}” · from "
        f"{escape(view.spec.base)} · {escape(view.spec.length)}</p>"
        f'<progress max="1" value="{fraction:.4f}" aria-label="Training"></progress>'
        f'<p class="admin-counts">{escape(_figures(view))}</p>'
        f'<p class="admin-message{failed}" role="status">{escape(view.message)}</p>'
        f"{plot_svg(view.metrics)}"
        f"</div>"
    )


def log_html(view: TrainingView | None) -> str:
    """The end of a training's log."""
    log = escape("\n".join(view.log_tail)) if view else ""
    return f'<pre class="admin-log" tabindex="0">{log or "Nothing yet."}</pre>'


def _figures(view: TrainingView) -> str:
    progress, running = view.progress, view.state == TrainingState.RUNNING
    parts = [str(view.state)]
    if progress.images:
        parts.append(f"{progress.images:,} images shown")
    if progress.images_per_second and running:
        parts.append(f"{progress.images_per_second:.1f} images/s")
    if progress.seconds_left is not None and running:
        parts.append(f"{duration(progress.seconds_left)} left")
    if progress.heldout_loss is not None:
        parts.append(f"held-out loss {progress.heldout_loss:.4f}")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """A time that a person reads at a glance."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def samples_html(view: TrainingView | None) -> str:
    """The newest samples beside the base model's, of the same seeds."""
    if view is None or not view.samples:
        return ""
    base = [path for path in view.samples if path.name == BASE_GRID]
    newest = [path for path in view.samples if path.name != BASE_GRID][-1:]
    place = f"admin/trainings/{view.id}/samples"
    cells = "".join(
        f'<figure><img src="{place}/{escape(path.name)}" alt="{escape(text)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for path, text in (
            *((path, f"Before: {view.spec.base}") for path in base),
            *((path, f"After {_images(path.stem)}, the same seeds") for path in newest),
        )
    )
    return f'<div class="admin-samples">{cells}</div>'


def _images(stem: str) -> str:
    return f"{int(stem):,} images" if stem.isascii() and stem.isdecimal() else stem


def plot_svg(metrics: Sequence[MetricsLine]) -> str:
    """The training and the held-out loss over the images shown."""
    training = _smooth(_points((line.images, line.loss) for line in metrics))
    heldout = _points((line.images, line.heldout_loss) for line in metrics)
    if len(training) < 2:
        return ""
    points = training + heldout
    right = max(x for x, _ in points) or 1
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0

    def place(x: float, y: float) -> str:
        return f"{50 + x / right * (PLOT_WIDTH - 62):.1f},{14 + (high - y) / span * 172:.1f}"

    lines = "".join(
        f'<polyline class="{name}" points="{" ".join(place(*p) for p in series)}"/>'
        for name, series in (("training", training), ("heldout", heldout))
        if series
    )
    dots = "".join(
        '<circle class="heldout" r="3" cx="{}" cy="{}"/>'.format(*place(*p).split(","))
        for p in heldout
    )
    last = f", held-out loss {heldout[-1][1]:.4f}" if heldout else ""
    label = f"Loss after {right:,.0f} images: training {training[-1][1]:.4f}{last}"
    return f"""\
<svg class="admin-plot" viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="{label}">
<path class="axis" d="M50 10V190H{PLOT_WIDTH - 8}"/>
<text x="44" y="18" text-anchor="end">{high:.3f}</text>
<text x="44" y="190" text-anchor="end">{low:.3f}</text>
<text x="50" y="208">0</text>
<text x="{PLOT_WIDTH - 8}" y="208" text-anchor="end">{right:,.0f} images</text>
{lines}{dots}
<text class="training" x="120" y="208">training loss</text>
<text class="heldout" x="215" y="208">held-out loss</text>
</svg>"""


def _points(pairs: Iterable[tuple[int, float | None]]) -> list[tuple[float, float]]:
    """Losses that are known, and small enough to be drawn, over the images shown."""
    return [(float(x), y) for x, y in pairs if y is not None and abs(y) < 1e6]


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``PLOT_POINTS`` means of neighbours: one batch's loss is mostly its noise levels."""
    size = max(1, -(-len(points) // PLOT_POINTS), len(points) // 40)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]
