"""How many requests may be sent: a rate and a number in flight that all runs share. Sans-I/O; times are handed in.

The rate falls at once when the server refuses or says that little is left, and grows back a little each second, as
congestion control does (additive increase, multiplicative decrease: https://www.rfc-editor.org/rfc/rfc5681); beyond
the rate that was refused last it grows by a share of itself, since the server takes more than it did. Requests are
spaced out rather than sent in bursts, since servers count in windows that we do not know.
"""

from __future__ import annotations

import math
from typing import Final

from asyncruns.http import RateLimit

CATCH_UP_S: Final = 0.01  # who comes late may send so much at once: timers and other tasks hold us up by some ms
DECREASE: Final = 0.7
DECREASE_EVERY_S: Final = 1.0  # requests in flight together are refused together, for one and the same reason
INCREASE_PER_S: Final = 0.05  # of the rate that was refused, to which it takes some six seconds
REGAIN_PER_S: Final = 0.2  # of the rate, beyond what was refused, up to a limit of ours
SLOWEST_PER_S: Final = 0.1
PAUSE_CEILING_S: Final = 60.0
LITTLE_LEFT: Final = 0.2  # of the server's limit; below it, what is left is spread over the time to its reset
RESET_S: Final = 60.0  # where the server does not say: limits are per minute, mostly
FORGOTTEN_AT: Final = 4.0  # a rate that was no limit of ours is none again at so many times what was refused


class Budget:
    """What may be sent now.

    In no second, and in no longer window, more requests are taken than the rate allows.

    Args:
        per_second: The full rate; None is no limit of ours, until the server refuses.
        max_in_flight: How many requests may be unanswered at once.

    Attributes:
        in_flight: How many are.
        taken: How many were sent.
        throttled: How many the server refused for their number.
    """

    __slots__ = (
        "_cut_at",
        "_full",
        "_grown_at",
        "_limit",
        "_max_in_flight",
        "_measured",
        "_next_at",
        "_of_second",
        "_rate",
        "_second",
        "in_flight",
        "taken",
        "throttled",
    )

    def __init__(self, per_second: float | None, max_in_flight: int) -> None:
        self._limit = math.inf if per_second is None else per_second
        self._full = self._limit
        self._rate = self._limit
        self._grown_at = -math.inf
        self._max_in_flight = max_in_flight
        self._next_at = -math.inf
        self._cut_at = -math.inf
        self._second = -math.inf  # since when `_of_second` counts
        self._of_second = 0
        self._measured = 0.0  # requests in the second before
        self.in_flight: int = 0
        self.taken: int = 0
        self.throttled: int = 0

    @property
    def rate(self) -> float:
        """Requests per second that are allowed now; infinity for no limit."""
        return self._rate

    def places(self, *, for_look: bool) -> int:
        """How many requests may be added in flight: a tenth is kept free of looks, so that no submit waits for one."""
        kept = -(-self._max_in_flight // 10) if for_look and self._max_in_flight > 1 else 0
        return max(self._max_in_flight - kept - self.in_flight, 0)

    def ready_at(self, now: float) -> float:
        """When the next request may be sent, by the rate."""
        self._grow(now)
        return self._next_at

    def take(self, now: float) -> None:
        """Note that a request is sent."""
        self.in_flight += 1
        if now - self._second >= 1.0:
            self._measured = self._of_second / (now - self._second) if self._second > -math.inf else 0.0
            self._second, self._of_second = now, 0
        self.taken += 1
        self._of_second += 1
        if self._rate < math.inf:
            # Slower by the catch-up, so that it is inside the rate too.
            self._next_at = max(self._next_at, now - CATCH_UP_S) + (1 + CATCH_UP_S) / self._rate

    def landed(self) -> None:
        """Note that a request was answered, or given up."""
        self.in_flight -= 1

    def refused(self, now: float, retry_after: float | None) -> None:
        """Note that the server has refused a request for their number."""
        self.throttled += 1
        if retry_after is not None:
            self._next_at = max(self._next_at, now + min(max(retry_after, 0.0), PAUSE_CEILING_S))
        if now - self._cut_at >= DECREASE_EVERY_S:
            self._cut_at = now
            self._grow(now)
            so_far = self._rate
            if so_far == math.inf:
                so_far = max(self._measured, self._of_second / max(now - self._second, 1.0), 1.0)
            self._full = so_far
            self._cut(so_far * DECREASE, now)

    def heard(self, now: float, limit: RateLimit) -> None:
        """Note what the server says is left."""
        reset = RESET_S if limit.reset is None else max(limit.reset, 0.001)
        little = math.inf if limit.limit is None else limit.limit * LITTLE_LEFT
        if limit.remaining > little:
            return
        allowed = max(limit.remaining, 1.0) / reset
        self._grow(now)
        if allowed < self._rate:
            if self._full == math.inf:
                self._full = max(allowed, SLOWEST_PER_S, 0.0 if limit.limit is None else limit.limit / reset)
            self._cut(allowed, now)

    def _cut(self, rate: float, now: float) -> None:
        self._rate = min(max(rate, SLOWEST_PER_S), self._limit)
        self._grown_at = now

    def _grow(self, now: float) -> None:
        if self._rate >= self._limit or now <= self._grown_at:
            return
        # Not by a share of a limit far above what the server takes: most requests would be refused for ever.
        is_beyond = self._full <= self._rate and self._limit < math.inf
        growth = self._rate * REGAIN_PER_S if is_beyond else self._full * INCREASE_PER_S
        self._rate = min(self._rate + growth * (now - self._grown_at), self._limit)
        self._grown_at = now
        if self._rate >= self._limit:
            self._full = self._limit
        if self._limit == math.inf and self._rate >= self._full * FORGOTTEN_AT:
            self._rate = self._full = math.inf
