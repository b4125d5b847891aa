"""How a training looks: its phases, its figures and the film of its samples."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from diffusion.training.run_folder import BASE_GRID

from ..training.training_folder import TrainingState
from ..training.views import Phase, TrainingView


def training_title(view: TrainingView) -> str:
    """One line in the list of trainings."""
    how = str(view.state)
    if view.state == TrainingState.RUNNING:
        how = f"{100 * view.progress.fraction:.0f} %"
    elif view.state == TrainingState.QUEUED:
        how = f"waiting, place {view.place}" if view.place else "next"
    return f"{view.spec.name} · {how}"


def training_html(view: TrainingView | None, ready: str = "") -> str:
    """How a training stands: phases and figures; ``ready`` is what is shown of its model."""
    if view is None:
        return '<p class="admin-counts">Nothing has been trained yet.</p>'
    failed = " error" if view.state == TrainingState.FAILED else ""
    bar = "" if view.state == TrainingState.DONE else _phases(view)
    learned = "" if view.can_go_on or view.state != TrainingState.DONE else (
        '<p class="admin-counts">It has learned what these photos can teach. More photos help '
        "more than more time.</p>"
    )  # fmt: skip
    return (
        f'<div class="admin-training" data-state="{view.state}" data-title="{_told(view)}"'
        f' data-said="{escape(_said(view))}">{ready}'
        f"<p><b>{escape(view.spec.name)}</b> · label “{escape(view.spec.config.label)}” · from "
        f"{escape(view.spec.base)} · {escape(view.spec.length)}</p>{bar}"
        f'<p class="admin-counts">{escape(_figures(view))}</p>'
        f'<p class="admin-message{failed}">{escape(view.message)}</p>{learned}'
        f"</div>"
    )


def _told(view: TrainingView) -> str:
    """What the title of the browser's tab tells of a running training."""
    if view.state != TrainingState.RUNNING:
        return ""
    learning = view.phase == Phase.LEARNING
    how = f"{100 * view.progress.fraction:.0f} %" if learning else str(view.phase)
    return escape(f"{how} · {view.spec.name}")


def _said(view: TrainingView) -> str:
    """What a screen reader says when it changes: at the start and at the end, not at each step."""
    how = {
        TrainingState.QUEUED: "waits for its turn", TrainingState.RUNNING: "is being taught",
        TrainingState.DONE: "is ready", TrainingState.FAILED: "could not be taught",
    }.get(view.state, f"is {view.state}")  # fmt: skip
    return f"{view.spec.name} {how}."


def _phases(view: TrainingView) -> str:
    """Three bars in a row; of a training that goes on, the second is where it was."""
    progress, running = view.progress, view.state == TrainingState.RUNNING
    fraction = min(1.0, max(0.0, progress.fraction))
    began = fraction > 0 or (running and view.phase != Phase.PREPARING)
    shares = {
        Phase.PREPARING: progress.prepared if running and view.phase == Phase.PREPARING
        else float(began),
        Phase.LEARNING: fraction,
        Phase.CHECKING: 0.0,
    }  # fmt: skip
    now = view.phase if running else None
    items = "".join(
        f"<li{' aria-current=step' * (phase == now)}><span>{str(phase).capitalize()}</span>"
        f'<progress max="1" {_value(share, waits=phase == now == Phase.CHECKING)}'
        f' aria-label="{str(phase).capitalize()}"></progress></li>'
        for phase, share in shares.items()
    )
    return f'<ol class="admin-phases">{items}</ol>'


def _value(share: float, *, waits: bool) -> str:
    return "" if waits else f'value="{share:.4f}"'  # a bar without a value moves to and fro


def log_html(view: TrainingView | None) -> str:
    """The end of a training's log."""
    log = escape("\n".join(view.log_tail)) if view else ""
    return f'<pre class="admin-log" tabindex="0">{log or "Nothing yet."}</pre>'


def _figures(view: TrainingView) -> str:
    progress, running = view.progress, view.state == TrainingState.RUNNING
    parts = [] if running else [str(view.state)]  # the bar says what it does
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
    """What the base model drew, what it draws by now, and the film of all states between."""
    if view is None or not view.samples:
        return ""
    frames = list(_frames(view))
    shown = [frames[0], *frames[1:][-1:]]
    figures = "".join(
        f'<figure{" data-shown" * bool(i)}><img src="{source}" alt="{text}" width="400"'
        f' height="200"><figcaption>{text}</figcaption></figure>'
        for i, (source, text, _) in enumerate(shown)
    )
    strip = "".join(
        f'<button type="button" data-admin="frame" title="{text}" data-keep="{keep}"'
        f"{' aria-pressed=true' * (source == shown[-1][0])}>"
        f'<img src="{source}" alt="{text}" loading="lazy" width="120" height="60"></button>'
        for source, text, keep in frames
    )
    film = f'<div class="admin-film" role="group" aria-label="Samples over time">{strip}</div>'
    keep = (
        f'<button type="button" class="admin-button" data-act="keep" data-of="{view.id}" hidden>'
        "Keep this state</button>"
    )
    return f'<div class="admin-samples">{figures}</div>{film * (len(frames) > 2)}{keep}'


def _frames(view: TrainingView) -> Iterator[tuple[str, str, str]]:
    """Address, text, and the images seen where that state can be kept, of each grid of samples."""
    for path in view.samples:
        source = f"admin/trainings/{view.id}/samples/{escape(path.name)}"
        images = int(path.stem) if path.stem.isascii() and path.stem.isdecimal() else 0
        if path.name == BASE_GRID:
            yield source, f"Before: {escape(view.spec.base)}", ""
        else:
            can_keep = view.result and images in view.steps
            yield source, f"After {images:,} images, the same seeds", str(images) * bool(can_keep)
