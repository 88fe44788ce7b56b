"""When to look next: pure strategies, told how many looks there were and what the server asks for.

Exponential backoff is for errors, not for waiting: at the same number of polls it sees the end of a run later than a
fixed interval does. So a cadence starts short, for runs that end at once, and grows to a steady interval.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from asyncruns.errors import ConfigurationError

HINT_FLOOR_S: Final = 0.05
HINT_CEILING_S: Final = 60.0


class Cadence(Struct, frozen=True, kw_only=True, gc=False):
    """How long to wait between two looks, in seconds.

    Make one with `Cadence.hinted()` or `Cadence.fixed()`.

    Attributes:
        start: The first pause.
        growth: The factor from one pause to the next.
        interval: Where the growth ends.
        follows_hints: Whether a server's hint replaces all of that.
    """

    start: float
    growth: float
    interval: float
    follows_hints: bool

    @classmethod
    def hinted(cls, interval: float = 1.0, *, start: float = 0.25) -> Cadence:
        """Follow the server's hints; without one, start short and grow to the interval.

        Args:
            interval: The steady pause in seconds. One second is what hand-written loops use, so servers expect it.
            start: The first pause in seconds.
        """
        _require_positive(interval=interval, start=start)
        return cls(start=start, growth=1.5, interval=interval, follows_hints=True)

    @classmethod
    def fixed(cls, interval: float) -> Cadence:
        """Look every `interval` seconds, whatever the server hints."""
        _require_positive(interval=interval)
        return cls(start=interval, growth=1.0, interval=interval, follows_hints=False)

    def pause(self, looks: int, hint: float | None) -> float:
        """Give the pause after the look number `looks`, counted from 1, in seconds.

        A hint is clamped to 0.05 to 60 s: servers send zero, negative ones and hours.
        """
        if hint is not None and self.follows_hints:
            return min(max(hint, HINT_FLOOR_S), HINT_CEILING_S)
        # The exponent is bounded so that a watch of days does not overflow a float.
        return min(self.start * self.growth ** min(max(looks - 1, 0), 64), self.interval)


def _require_positive(**seconds: float) -> None:
    for name, value in seconds.items():
        if not value > 0:
            raise ConfigurationError(f"{name} must be more than 0 seconds, got {value!r}")
