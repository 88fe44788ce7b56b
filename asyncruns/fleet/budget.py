"""How many requests may be sent: one rate and one number in flight for all runs. No I/O, no clock: times are passed in.

Requests are evenly spaced, not sent in bursts, since servers count them in windows that are not known. The rate is the
lower one of:

- the pace, learned from what the server refuses (`pace.py`);
- what the server says is left (`x-ratelimit-remaining-requests`), spread over the time to its reset; at least one
  request per second. With 12 requests left and a reset in 6 s, the rate is 2 per second. If the server accepts more
  requests than it said were left, what it says is ignored for ten minutes.

A `Retry-After` applies to the one request that was refused. It holds back that run alone, which is the business of the
run's lifecycle. Only after 20 refusals in a row, each with a `Retry-After`, do all requests wait, for the shortest of
those times. With 45 % refused at random, such a row comes once in ten million responses (0.45 ** 20 is 1.2e-7).
"""

from __future__ import annotations

import math
from typing import Final, cast

from asyncruns.errors import InvalidRequestError
from asyncruns.fleet.pace import Pace
from asyncruns.http import RateLimit

CATCH_UP_S: Final = 0.01  # how much delay is made up for at once: timers and other tasks are late by some ms
PAUSE_AFTER: Final = 20  # refusals in a row with a Retry-After hold back all requests
LONGEST_PAUSE_S: Final = 60.0  # a server's Retry-After or reset counts for at most this long
LITTLE_LEFT: Final = 0.2  # of the server's limit; at or below it, what is left is spread over the time to its reset
RESET_S: Final = 60.0  # if the server does not send the time of its reset: most limits are per minute
LEAST_TOLD_PER_S: Final = 1.0  # even when the server says that nothing is left: sending shows whether that is true
MORE_THAN_TOLD: Final = 3  # this many accepted requests more than were left refute what the server said
NOT_BELIEVED_FOR_S: Final = 600.0  # after it was refuted


class Budget:
    """Decides when requests may be sent.

    No second, and no longer window, has more requests than the rate allows.

    Args:
        per_second: The highest rate in requests per second. None for no limit of ours: only the server's refusals
            limit it.
        max_in_flight: The most requests in flight at once.

    Attributes:
        max_in_flight: The argument of the same name.
    """

    __slots__ = (
        "_believes_from",
        "_next_at",
        "_pace",
        "_row",
        "_row_at",
        "_row_pause",
        "_told",
        "_told_at",
        "_told_left",
        "_told_until",
        "max_in_flight",
    )

    def __init__(self, per_second: float | None, max_in_flight: int) -> None:
        self._pace = Pace(math.inf if per_second is None else per_second)
        self.max_in_flight: int = max_in_flight
        self._next_at = -math.inf  # when the rate allows the next request
        self._row = 0  # refusals without an accepted request between
        self._row_at = -1  # the number of the last refused response
        self._row_pause = 0.0  # the shortest Retry-After of the row; 0 if a refusal had none
        # What the server last said is left; a rate of infinity means that it does not limit us.
        self._told = math.inf  # as a rate,
        self._told_until = -math.inf  # which holds until this time,
        self._told_left = 0.0  # and as a number of requests
        self._told_at = (0, 0)  # how many requests had been sent, and refused, at that time
        self._believes_from = -math.inf

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return self._pace.sent - self._pace.answered

    @property
    def taken(self) -> int:
        """Number of requests sent so far."""
        return self._pace.sent

    @property
    def throttled(self) -> int:
        """Number of requests that the server refused with 429."""
        return self._pace.refused

    @property
    def rate(self) -> float:
        """Requests per second that are allowed now; infinity if there is no limit."""
        return min(self._pace.rate, self._told)

    def places(self, *, for_poll: bool) -> int:
        """Return how many more requests may be in flight. Polls leave a tenth free, so that no submit waits for one."""
        # Rounded up: of 64 places 7 are kept, so 57 polls may be in flight. A single place is for both.
        kept = -(-self.max_in_flight // 10) if for_poll and self.max_in_flight > 1 else 0
        return max(self.max_in_flight - kept - self.in_flight, 0)

    def ready_at(self, now: float) -> float:
        """Return when the rate allows the next request; not after `now` if it is allowed now."""
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
            # At 100 per second: one request every 10.1 ms, instead of 10. A second with a catch-up of 10 ms before it
            # then has 1.01 / 0.0101 = 100 requests: what is made up for stays within the rate.
            self._next_at = max(self._next_at, now - CATCH_UP_S) + (1 + CATCH_UP_S) / rate

    def landed(self) -> None:
        """Note that a request is no longer in flight: it was answered, or given up."""
        self._pace.answer()

    def refused(self, now: float, retry_after: float | None) -> None:
        """Note that the server refused the last request to land with 429.

        Args:
            now: The time.
            retry_after: The server's `Retry-After` in seconds; None if it sent none.
        """
        answered = self._pace.answered
        pause = 0.0 if retry_after is None else min(max(0.0, retry_after), LONGEST_PAUSE_S)
        # A response with the next number is the next of the row; a gap means that a request was accepted between.
        in_a_row = answered - self._row_at <= 1
        self._row, self._row_pause = (self._row + 1, min(self._row_pause, pause)) if in_a_row else (1, pause)
        self._row_at = answered
        if self._row >= PAUSE_AFTER:
            self._next_at = max(self._next_at, now + self._row_pause)
        self._pace.refuse(now)

    def heard(self, now: float, limit: RateLimit) -> None:
        """Note what the server says is left of its limit."""
        if now < self._believes_from:
            return
        little = math.inf if limit.limit is None else limit.limit * LITTLE_LEFT
        if limit.remaining > little:
            self._told = math.inf
            return
        # A smaller number is news. Requests are counted from here on, to see whether more are accepted than are left.
        if self._told == math.inf or limit.remaining < self._told_left:
            self._told_left = limit.remaining
            self._told_at = self._pace.sent, self._pace.refused
        elif self._accepted >= MORE_THAN_TOLD:  # several were accepted, and still as many are left: the number is wrong
            self._refute(now)
            return
        reset = RESET_S if limit.reset is None else max(0.001, limit.reset)
        self._told = max(LEAST_TOLD_PER_S, limit.remaining / reset)
        self._told_until = now + min(LONGEST_PAUSE_S, reset)

    @property
    def _accepted(self) -> int:
        """Number of requests accepted that were sent after the server said what is left."""
        sent, refused = self._told_at
        # Requests land in about the order in which they were sent, so the first `sent` responses are older.
        return self._pace.answered - sent - (self._pace.refused - refused)

    def _refute(self, now: float) -> None:
        self._told = math.inf
        self._believes_from = now + NOT_BELIEVED_FOR_S


def check_budget(per_second: object, max_in_flight: object) -> None:
    """Check the arguments of a budget.

    Raises:
        InvalidRequestError: One of them is invalid; the message says what is allowed.
    """
    is_number = isinstance(per_second, int | float) and not isinstance(per_second, bool)
    if per_second is not None and not (is_number and 0 < cast("float", per_second) < math.inf):
        raise InvalidRequestError(
            f"requests_per_second must be more than 0, or None for no limit of ours; got {per_second!r}"
        )
    if not isinstance(max_in_flight, int) or isinstance(max_in_flight, bool) or max_in_flight < 1:
        raise InvalidRequestError(f"max_in_flight must be 1 or more; got {max_in_flight!r}")
