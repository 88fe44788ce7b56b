"""Checks that no window has more requests than a rate allows."""

from __future__ import annotations

import math

BEGIN = 1000.0
ROUNDING_S = 1e-7


def check_windows(taken: list[float], rate: float) -> None:
    """Check that no half-open window of a second or longer has more requests than the rate allows, rounded up."""

    def place(number: int) -> float:  # how many requests it is ahead of the rate
        return number - rate * (taken[number] - BEGIN)

    oldest, least = 0, math.inf
    for number, at in enumerate(taken):
        while taken[oldest] <= at - 1.0 + ROUNDING_S:
            least = min(least, place(oldest))
            oldest += 1
        assert number - oldest < math.ceil(rate), f"more than {rate} in the second up to {at}"
        assert place(number) <= least + (1.0 + rate) * ROUNDING_S, f"more than {rate} in a window up to {at}"
