"""Times and durations in words. Reads no clock."""

from __future__ import annotations

import datetime
from typing import Final

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def local_time(epoch: float | None) -> str:
    """Return a time in this machine's zone, such as "2026-11-30 23:05:01"; "" for none."""
    if epoch is None:
        return ""
    return f"{datetime.datetime.fromtimestamp(epoch, datetime.UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def span(seconds: float) -> str:
    """Return a duration in its two largest units, such as "0.3 s", "42 s", "5 min 12 s" or "2 h 5 min"."""
    if abs(seconds) < 10:
        return f"{abs(seconds):.1f} s".replace(".0 ", " ")
    left, parts = round(abs(seconds)), list[str]()
    for size, unit in _UNITS:
        if (number := left // size) or parts:
            parts.append(f"{number} {unit}")
        left %= size
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def relative(seconds: float) -> str:
    """Return how far a time is from now, in words: "5 min ago" if the seconds are negative, otherwise "in 5 min"."""
    return f"in {span(seconds)}" if seconds > 0 else f"{span(seconds)} ago"
