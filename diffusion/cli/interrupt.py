"""Ctrl-C and SIGTERM: in the first seconds of a program, and while it trains."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # exit code, as shells have it
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ctrl_c_ends_at_once() -> Iterator[None]:
    """Within the block, Ctrl-C ends the process without a word: nothing has been begun.

    An exception would show a traceback, and some imports swallow it and go on.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # a shell starts what is in its background deaf
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Within the block, Ctrl-C and SIGTERM ask to stop at the next step; a second one is final.

    They do so from the first time on that it is asked whether to stop. Before that, while a run is
    prepared, there is nothing to save, and they end the process at once.
    """
    asked: list[int] = []
    previous: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(number, previous[number])

    def stop() -> bool:
        if not previous:
            previous.update({number: signal.getsignal(number) for number in SIGNALS})
            for number in SIGNALS:
                signal.signal(number, ask)
        return bool(asked)

    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
