"""The curves of a training, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffusion.training.run_folder import MetricsLine

WIDTH, HEIGHT = 560, 240
LEFT, TOP, BOTTOM = 52, 14, 196  # where the axes are
POINTS = 300  # more cannot be told apart
LEGEND = """\
<figcaption><span class="training">on the photos it learns from</span>
<span class="heldout">on photos kept aside</span>
<p>How far off it is; lower is better. When the second curve rises, it begins to learn the photos
by heart.</p></figcaption>"""


def plot_html(metrics: Sequence[MetricsLine]) -> str:
    """The training and the held-out loss over the images shown, with their legend."""
    training = _smooth(_points((line.images, line.loss) for line in metrics))
    heldout = _points((line.images, line.heldout_loss) for line in metrics)
    if len(training) < 2:
        return '<p class="admin-counts">The curve appears once it has learned for a while.</p>'
    points = training + heldout
    right = max(x for x, _ in points) or 1
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0

    def place(x: float, y: float) -> str:
        across = LEFT + x / right * (WIDTH - LEFT - 12)
        return f"{across:.1f},{TOP + (high - y) / span * (BOTTOM - TOP):.1f}"

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
<figure class="admin-plot">
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">
<path class="axis" d="M{LEFT} {TOP - 4}V{BOTTOM + 4}H{WIDTH - 8}"/>
<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end">{high:.3f}</text>
<text x="{LEFT - 6}" y="{BOTTOM + 4}" text-anchor="end">{low:.3f}</text>
<text x="{LEFT}" y="{BOTTOM + 22}">0</text>
<text x="{WIDTH - 8}" y="{BOTTOM + 22}" text-anchor="end">{right:,.0f} images shown</text>
{lines}{dots}
</svg>{LEGEND}</figure>"""


def _points(pairs: Iterable[tuple[int, float | None]]) -> list[tuple[float, float]]:
    """Losses that are known, and small enough to be drawn, over the images shown."""
    return [(float(x), y) for x, y in pairs if y is not None and abs(y) < 1e6]


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``POINTS`` means of neighbours: one batch's loss is mostly its noise levels."""
    size = max(1, -(-len(points) // POINTS), len(points) // 40)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]
