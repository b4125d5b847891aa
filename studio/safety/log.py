"""What strangers cause in the log: only so much, so that no flood of it fills a disk."""

from __future__ import annotations

import sys
import threading
import time
import traceback

LINES, SECONDS = 30, 60.0  # at most so many lines or errors in such a time
LONGEST_LINE, LONGEST_ERROR = 300, 10_000  # characters

_lock = threading.Lock()
_began, _written, _left_out = 0.0, 0, 0


def note(line: str) -> None:
    """Write one line to stderr, or count it where there were too many of late."""
    _write(_plain(line)[:LONGEST_LINE])


def note_error(error: Exception) -> None:
    """Write an error and where it was raised to stderr, the end of it if it is long."""
    _write(_plain("".join(traceback.format_exception(error)))[-LONGEST_ERROR:])


def _plain(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def _write(text: str) -> None:
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
    print(text, file=sys.stderr)
