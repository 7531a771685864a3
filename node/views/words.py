"""Spans of time and sizes, in words."""

from __future__ import annotations

from datetime import datetime

_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SIZES = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "kB"))


def span(seconds: float) -> str:
    """A length of time in its largest unit that gives at least one, rounded down, such as `3 min`; never negative."""
    whole = max(0, int(seconds))
    for length, unit in _SPANS:
        if whole >= length:
            return f"{whole // length} {unit}"
    return "0 s"


def between(start: datetime, end: datetime) -> str:
    """The time from `start` to `end`."""
    return span((end - start).total_seconds())


def size(count: int) -> str:
    """Bytes in words, such as `12.3 MB` (of 2**20 bytes)."""
    for unit_bytes, unit in _SIZES:
        if count >= unit_bytes:
            value = count / unit_bytes
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{count} B"
