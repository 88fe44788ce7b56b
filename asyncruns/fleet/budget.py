"""How many requests may be sent: a rate and a number in flight that all runs share. Sans-I/O; times are handed in.

Requests are spaced out rather than sent in bursts, since servers count in windows that we do not know. The rate is:

- the pace, learned from what the server refuses (`pace.py`);
- at most what the server says is left (`x-ratelimit-remaining-requests`), until its reset, but one request a second.
  A server that goes on to take more than it said was left is not believed for ten minutes.

A `Retry-After` is about the one request that was refused, so it holds back that run alone; the run's own lifecycle sees
to that. Only where twenty answers in a row are refusals, each with a `Retry-After`, all requests wait, for the shortest
of those times: at a server that refuses 45 % at random, one such row in ten million answers comes by chance.
"""

from __future__ import annotations

import math
from typing import Final, cast

from asyncruns.errors import InvalidRequestError
from asyncruns.fleet.pace import Pace
from asyncruns.http import RateLimit

CATCH_UP_S: Final = 0.01  # who comes late may send so much at once: timers and other tasks hold us up by some ms
PAUSE_AFTER: Final = 20  # refusals in a row with a Retry-After hold back all requests
LONGEST_PAUSE_S: Final = 60.0
LITTLE_LEFT: Final = 0.2  # of the server's limit; below it, what is left is spread over the time to its reset
RESET_S: Final = 60.0  # where the server does not say: limits are per minute, mostly
LEAST_TOLD_PER_S: Final = 1.0  # a server that says nothing is left is still asked, which shows whether that is true
MORE_THAN_TOLD: Final = 3  # requests that are accepted beyond what was left refute what the server said
NOT_BELIEVED_FOR_S: Final = 600.0


class Budget:
    """What may be sent now.

    In no second, and in no longer window, more requests are taken than the rate allows.

    Args:
        per_second: The full rate; None is no limit of ours, until the server refuses.
        max_in_flight: How many requests may be unanswered at once.
    """

    __slots__ = (
        "_believes_from",
        "_max_in_flight",
        "_next_at",
        "_pace",
        "_row",
        "_row_at",
        "_row_pause",
        "_told",
        "_told_at",
        "_told_left",
        "_told_until",
    )

    def __init__(self, per_second: float | None, max_in_flight: int) -> None:
        self._pace = Pace(math.inf if per_second is None else per_second)
        self._max_in_flight = max_in_flight
        self._next_at = -math.inf
        self._row = 0  # refusals without an accepted request between
        self._row_at = -1  # the number of the last refused answer
        self._row_pause = 0.0  # the shortest Retry-After of the row
        self._told = math.inf  # the rate that the server says is left,
        self._told_until = -math.inf  # until then
        self._told_left = 0.0  # how many requests that was
        self._told_at = (0, 0)  # how many requests were sent, and refused, until it was said
        self._believes_from = -math.inf

    @property
    def in_flight(self) -> int:
        """How many requests are unanswered."""
        return self._pace.sent - self._pace.answered

    @property
    def taken(self) -> int:
        """How many requests were sent."""
        return self._pace.sent

    @property
    def throttled(self) -> int:
        """How many requests the server refused for their number."""
        return self._pace.refused

    @property
    def rate(self) -> float:
        """Requests per second that are allowed now; infinity for no limit."""
        return min(self._pace.rate, self._told)

    def places(self, *, for_poll: bool) -> int:
        """How many requests may be added in flight: a tenth is kept free of polls, so that no submit waits for one."""
        kept = -(-self._max_in_flight // 10) if for_poll and self._max_in_flight > 1 else 0
        return max(self._max_in_flight - kept - self.in_flight, 0)

    def ready_at(self, now: float) -> float:
        """When the next request may be sent, by the rate."""
        self._pace.at(now)
        if now >= self._told_until:
            self._told = math.inf
        elif self._told < math.inf and self._accepted > self._told_left + MORE_THAN_TOLD:
            self._refute(now)
        return self._next_at

    def take(self, now: float) -> None:
        """Note that a request is sent."""
        self._pace.send(now)
        rate = self.rate
        if rate < math.inf:
            # Slower by the catch-up, so that it is inside the rate too.
            self._next_at = max(self._next_at, now - CATCH_UP_S) + (1 + CATCH_UP_S) / rate

    def landed(self) -> None:
        """Note that a request was answered, or given up."""
        self._pace.answer()

    def refused(self, now: float, retry_after: float | None) -> None:
        """Note that the server has refused, for their number, the request that landed last."""
        answered = self._pace.answered
        pause = 0.0 if retry_after is None else min(max(0.0, retry_after), LONGEST_PAUSE_S)
        in_a_row = answered - self._row_at <= 1
        self._row, self._row_pause = (self._row + 1, min(self._row_pause, pause)) if in_a_row else (1, pause)
        self._row_at = answered
        if self._row >= PAUSE_AFTER:
            self._next_at = max(self._next_at, now + self._row_pause)
        self._pace.refuse(now)

    def heard(self, now: float, limit: RateLimit) -> None:
        """Note what the server says is left."""
        if now < self._believes_from:
            return
        little = math.inf if limit.limit is None else limit.limit * LITTLE_LEFT
        if limit.remaining > little:
            self._told = math.inf
            return
        if self._told == math.inf or limit.remaining < self._told_left:
            self._told_left = limit.remaining
            self._told_at = self._pace.sent, self._pace.refused
        elif self._accepted >= MORE_THAN_TOLD:  # and no less is left
            self._refute(now)
            return
        reset = RESET_S if limit.reset is None else max(0.001, limit.reset)
        self._told = max(LEAST_TOLD_PER_S, limit.remaining / reset)
        self._told_until = now + min(LONGEST_PAUSE_S, reset)

    @property
    def _accepted(self) -> int:
        """How many requests, sent since the server said what is left, were accepted."""
        sent, refused = self._told_at
        return self._pace.answered - sent - (self._pace.refused - refused)

    def _refute(self, now: float) -> None:
        self._told = math.inf
        self._believes_from = now + NOT_BELIEVED_FOR_S


def check_budget(per_second: object, max_in_flight: object) -> None:
    """Check what a budget is to be made of.

    Raises:
        InvalidRequestError: It can't be; the message says what to give.
    """
    is_number = isinstance(per_second, int | float) and not isinstance(per_second, bool)
    if per_second is not None and not (is_number and 0 < cast("float", per_second) < math.inf):
        raise InvalidRequestError(
            f"requests_per_second must be more than 0, or None for no limit of ours; got {per_second!r}"
        )
    if not isinstance(max_in_flight, int) or isinstance(max_in_flight, bool) or max_in_flight < 1:
        raise InvalidRequestError(f"max_in_flight must be 1 or more; got {max_in_flight!r}")
