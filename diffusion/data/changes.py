"""Which pictures a run learns from, and what has changed since: its record is name to digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence


def digest(data: bytes) -> str:
    """Of a picture's file: 16 hex digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def record_of(names: Sequence[str], digests: Sequence[str]) -> dict[str, str]:
    """The record of pictures, without those that have no digest; empty where none were taken."""
    return {name: known for name, known in zip(names, digests, strict=False) if known}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Such as "3 added, 1 exchanged"; empty where nothing changed, or nothing was recorded."""
    if not before:
        return ""
    counts = {
        "added": len(now.keys() - before.keys()),
        "removed": len(before.keys() - now.keys()),
        "exchanged": sum(before[name] != now[name] for name in before.keys() & now.keys()),
    }
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)


def have_nothing_in_common(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether two records share neither a name nor a file: not a changed set, but another one."""
    return before.keys().isdisjoint(now) and set(before.values()).isdisjoint(now.values())
