"""One thread that decodes pictures, for programs of many threads.

What malloc takes for a picture stays with the arena of the thread that asked for it. Decoded by
whoever happens to need them, large pictures would leave gigabytes in dozens of arenas; and some of
them at once would need as much.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")


def in_decoder(work: Callable[[], T]) -> T:
    """What ``work()`` returns or raises, called in the thread that decodes, in its turn.

    What it returns should be small. Not to be called from that thread itself.
    """
    return _decoder.submit(work).result()
