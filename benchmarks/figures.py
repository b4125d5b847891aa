"""What ``benchmarks.strangers`` finds: the figures, as tables and as a plot."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

OUTCOMES = ("answered", "busy", "cut", "5xx")
WORDS = ("same pixels", "rounded", "wrong")  # of pictures
STANDING = {
    "memory": "memory\n(MB)", "open files": "open files\n(number)",
    "temporary files": "temporary\nfiles (number)", "temporary MB": "temporary\nfiles (MB)",
}  # what is plotted of the server  # fmt: skip
KILLS = {"SIGTERM": "tab:orange", "SIGKILL": "tab:red"}
MARKERS = ("o", "^", "s")


class Figures:
    """What came of every visit, and how the server stood meanwhile."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.visits: dict[str, list[tuple[float, float]]] = defaultdict(list)  # minute, seconds
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.pictures: dict[str, Counter[str]] = defaultdict(Counter)
        self.troubles: Counter[str] = Counter()  # each 5xx and wrong cat, in words
        self.samples: list[dict[str, float]] = []
        self.kills: list[tuple[float, str]] = []  # minute and signal
        self._lock = threading.Lock()

    @property
    def minute(self) -> float:
        return (time.monotonic() - self.began) / 60

    def add(self, kind: str, outcome: str, seconds: float) -> None:
        with self._lock:
            self.outcomes[kind][outcome] += 1
            if outcome == "answered":
                self.visits[kind].append((self.minute, seconds))

    def trouble(self, words: str) -> None:
        with self._lock:
            self.troubles[words] += 1

    def picture(self, kind: str, word: str) -> None:
        with self._lock:
            self.pictures[kind][word] += 1


def print_tables(figures: Figures) -> None:
    """Visits and pictures by class, and how the server stood, in Markdown."""
    print("\n| visits | " + " | ".join(OUTCOMES) + " | median s | 99 % s |")
    print("|---|" + "---:|" * (len(OUTCOMES) + 2))
    for kind, outcomes in sorted(figures.outcomes.items()):
        took = sorted(seconds for _, seconds in figures.visits[kind]) or [float("nan")]
        counts = " | ".join(str(outcomes[name]) for name in OUTCOMES)
        late = took[int(0.99 * (len(took) - 1))]
        print(f"| {kind} | {counts} | {statistics.median(took):.2f} | {late:.2f} |")
    print("\n| pictures | " + " | ".join(WORDS) + " |\n|---|" + "---:|" * len(WORDS))
    for kind, words in sorted(figures.pictures.items()):
        print(f"| {kind} | " + " | ".join(str(words[word]) for word in WORDS) + " |")
    print("\n| | at first | median | highest | at last |\n|---|---:|---:|---:|---:|")
    for name in list(figures.samples[0])[1:]:
        values = [sample[name] for sample in figures.samples]
        shown = (values[0], statistics.median(values), max(values), values[-1])
        print(f"| {name} | " + " | ".join(f"{value:.0f}" for value in shown) + " |")
    print()


def as_json(figures: Figures) -> dict[str, Any]:
    """All of them, as values for JSON."""
    names = ("visits", "outcomes", "pictures", "troubles", "samples", "kills")
    return {name: getattr(figures, name) for name in names}


def plot(values: Mapping[str, Any], path: Path) -> bool:
    """Memory, open files, temporary files and latency over time, each kill a line; False where
    matplotlib is missing. ``values`` are those of ``as_json``."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 9), layout="constrained")
    figure.suptitle("The server among strangers (a gap: it starts again)")
    heights = [*[1] * len(STANDING), 2.5]
    *standing, latency = figure.subplots(
        len(heights), sharex=True, gridspec_kw={"height_ratios": heights}
    )
    minutes = [sample["minute"] for sample in values["samples"]]
    for axes, (name, label) in zip(standing, STANDING.items(), strict=True):
        shown = [sample[name] for sample in values["samples"]]
        axes.plot(minutes, shown, ".", markersize=3)
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.15 * max(shown, default=0) or 1)
    answered = {kind: visits for kind, visits in sorted(values["visits"].items()) if visits}
    for number, (kind, visits) in enumerate(answered.items()):
        at, seconds = zip(*visits, strict=True)
        marker = MARKERS[number // 10 % len(MARKERS)]  # ten colours
        latency.plot(at, seconds, marker, markersize=4, alpha=0.7, label=kind)
    latency.set_yscale("log")
    latency.set_ylabel("an answered visit took\n(seconds)")
    latency.set_xlabel("minutes since the first visitor")
    for axes in (*standing, latency):
        axes.grid(alpha=0.3)
        for minute, name in values["kills"]:
            axes.axvline(minute, color=KILLS[name], linestyle="--", linewidth=1, label=name)
    _legend(standing[0], only=KILLS)
    _legend(latency, only=values["visits"])
    figure.savefig(path, dpi=100)
    return True


def _legend(axes: Any, *, only: Collection[str]) -> None:
    """Names of some of what is shown, each once, beside the axes."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    shown = {name: handle for name, handle in handles.items() if name in only}
    if shown:
        axes.legend(shown.values(), shown.keys(), loc="upper left", bbox_to_anchor=(1.0, 1.0))
