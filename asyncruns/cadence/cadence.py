"""The cadence of a watch, as callers choose it. The strategy behind it is private."""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

from asyncruns.cadence.counted_pauses import GrowingPauses
from asyncruns.cadence.strategy import Strategy
from asyncruns.errors import ConfigurationError

HINTED_GROWTH: Final = 1.5  # from 0.25 s: 0.25, 0.38, 0.56, 0.84, then the interval of 1 s


class Cadence(Struct, frozen=True, gc=False):
    """How long to wait between two polls, in seconds.

    Make one with `Cadence.hinted()`, `Cadence.fixed()`, `Cadence.backoff()` or `Cadence.learned()`.
    """

    _strategy: Strategy = None  # type: ignore[assignment]  # refused below

    def __post_init__(self) -> None:
        if not isinstance(self._strategy, Strategy):
            raise ConfigurationError(
                "Make a cadence with Cadence.hinted(), Cadence.fixed(2.0), Cadence.backoff() or Cadence.learned(); "
                f"got Cadence({self._strategy!r})"
            )

    @classmethod
    def hinted(cls, interval: float = 1.0, *, start: float = 0.25) -> Cadence:
        """Use the server's hints; without a hint, start short and grow to the interval.

        Args:
            interval: The steady pause in seconds. One second is what hand-written loops use, so servers expect it.
            start: The first pause in seconds.
        """
        _require_positive(interval=interval, start=start)
        return cls(GrowingPauses(start=start, growth=HINTED_GROWTH, interval=interval, hints="replace"))

    @classmethod
    def fixed(cls, interval: float) -> Cadence:
        """Poll every `interval` seconds, whatever the server hints."""
        _require_positive(interval=interval)
        return cls(GrowingPauses(start=interval, growth=1.0, interval=interval, hints="ignore"))

    @classmethod
    def backoff(cls, start: float = 0.5, *, growth: float = 1.5, ceiling: float = 10.0) -> Cadence:
        """Make each pause longer than the one before, up to a ceiling; a server's hint is the shortest pause.

        Args:
            start: The first pause in seconds.
            growth: The factor from one pause to the next, at least 1.
            ceiling: The longest pause in seconds.
        """
        _require_positive(start=start, ceiling=ceiling)
        if not 1.0 <= growth < math.inf:
            raise ConfigurationError(f"growth must be a finite factor of at least 1, got {growth!r}")
        return cls(GrowingPauses(start=start, growth=growth, interval=ceiling, hints="least"))

    @classmethod
    def learned(cls, poll_worth: float = 0.05, *, floor: float = 0.1, ceiling: float = 30.0) -> Cadence:
        """Poll when runs of the same group are likely to end, as learned from those that ended.

        Pass the same cadence to all watches that are to learn from each other. It starts from durations that are
        usual for runs of language models; a new group starts from the durations of all groups together.

        Args:
            poll_worth: How many seconds of delay one poll is worth. At 0.05, runs that end at random after 10 s on
                average are polled every second; a quarter of it doubles the number of polls.
            floor: The shortest pause in seconds.
            ceiling: The longest pause in seconds.
        """
        # Imported late to keep `import asyncruns` fast: most watches of a single run do not need it.
        from asyncruns.cadence.learned_durations import LearnedDurations
        from asyncruns.cadence.learned_pauses import LearnedPauses

        _require_positive(poll_worth=poll_worth, floor=floor, ceiling=ceiling)
        if floor > ceiling:
            raise ConfigurationError(f"floor must not be more than the ceiling of {ceiling!r} seconds, got {floor!r}")
        return cls(LearnedPauses(learned=LearnedDurations(poll_worth=poll_worth, floor=floor, ceiling=ceiling)))

    def __repr__(self) -> str:
        return repr(self._strategy)


def strategy_of(cadence: Cadence) -> Strategy:
    """Return the strategy of a cadence: the lifecycle gets its pauses from it and reports durations to it."""
    return cadence._strategy


def _require_positive(**seconds: float) -> None:
    """Raise a ConfigurationError for a value that is not a positive, finite number of seconds."""
    for name, value in seconds.items():
        if not 0 < value < math.inf:
            raise ConfigurationError(f"{name} must be more than 0 seconds and finite, got {value!r}")
