"""Ctrl-C in the first seconds of a program, while its modules are imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # exit code, as shells have it


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
