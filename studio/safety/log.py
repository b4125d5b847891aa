"""Lines for the log that strangers cause: only so many, so that no flood of them fills a disk."""

from __future__ import annotations

import sys
import threading
import time

LINES, SECONDS = 30, 60.0  # at most so many lines in such a time

_lock = threading.Lock()
_began, _written, _left_out = 0.0, 0, 0


def note(line: str) -> None:
    """Write one line to stderr, or count it where there were too many of late."""
    global _began, _written, _left_out
    with _lock:
        now = time.monotonic()
        if now - _began >= SECONDS or not _began:
            if _left_out:
                print(f"... and {_left_out} more lines like these.", file=sys.stderr)
            _began, _written, _left_out = now, 0, 0
        if _written >= LINES:
            _left_out += 1
            return
        _written += 1
    print(line.encode("ascii", "backslashreplace").decode()[:300], file=sys.stderr)
