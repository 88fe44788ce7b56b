"""How many requests may be sent: a rate and a number in flight that all runs share. Sans-I/O; times are handed in.

The rate falls at once when the server refuses or says that little is left, and grows back a little each second, as
congestion control does (additive increase, multiplicative decrease: https://www.rfc-editor.org/rfc/rfc5681); beyond
the rate that was refused last it grows by a share of itself, since the server takes more than it did. Requests are
spaced out rather than sent in bursts, since servers count in windows that we do not know.

Some servers refuse a share of all requests, however few there are. Where small shares are refused on and on, although
the rate was cut far below that at which this began, so large a share is taken for noise, for a minute.
"""

from __future__ import annotations

import math
from typing import Final, cast

from asyncruns.errors import InvalidRequestError
from asyncruns.http import RateLimit

CATCH_UP_S: Final = 0.01  # who comes late may send so much at once: timers and other tasks hold us up by some ms
LEAST_CUT: Final = 0.03  # of the rate; more where more of the requests were refused, up to
MOST_CUT: Final = 0.7
LEAST_CUT_PER_S: Final = 0.6  # of a low rate that is more; each time that it comes back is one refusal at least
CUT_EVERY_S: Final = 1.0  # requests in flight together are refused together, for one and the same reason
CUT_AFTER: Final = 20  # answers, and twice those in flight at the last cut: then at once, where most are refused
SMALL_SHARE: Final = 0.1  # refused: of a limit that was passed by so little, nothing is left
NOISE_BELOW: Final = 0.7  # of the rate at which it began
NOISE_FOR_S: Final = 60.0
INCREASE_PER_S: Final = 0.05  # of the rate that was refused last
NEAR: Final = 0.85  # from such a part of it on, and to as much above it, slowly: what refused is likely still there
NEAR_INCREASE_PER_S: Final = 0.01
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
        "_at_cut",
        "_began",
        "_cut_at",
        "_full",
        "_grown_at",
        "_limit",
        "_max_in_flight",
        "_measured",
        "_next_at",
        "_noise",
        "_noise_until",
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
        self._at_cut = (0, 0, 0)  # requests answered and refused until then, and in flight
        self._began = (0.0, 0, 0)  # the rate at which small shares began to be refused; answered and refused then
        self._noise = 0.0  # the share that is refused whatever the rate
        self._noise_until = -math.inf
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
        answered = self.taken - self.in_flight
        sent, refused = answered - self._at_cut[0], self.throttled - self._at_cut[1]
        is_most = sent > CUT_AFTER + 2 * self._at_cut[2] and 2 * refused > sent
        if (now - self._cut_at < CUT_EVERY_S or sent <= self._at_cut[2]) and not is_most:
            return
        self._cut_at, self._at_cut = now, (answered, self.throttled, self.in_flight)
        self._grow(now)
        so_far = self._rate
        if so_far == math.inf:
            so_far = max(self._measured, self._of_second / max(now - self._second, 1.0), 1.0)
        if not self._is_noise(now, so_far, sent, refused):
            self._full = so_far
            share = max(refused / max(sent, 1), LEAST_CUT, LEAST_CUT_PER_S / so_far)
            self._cut(so_far * (1.0 - min(share, MOST_CUT)), now)

    def _is_noise(self, now: float, rate: float, sent: int, refused: int) -> bool:
        """Whether so many are refused at any rate; the rate is what it was, where that is found."""
        if now < self._noise_until and refused <= 2.0 * self._noise * sent + 1.0:
            return True
        began, answered_then, refused_then = self._began
        answered = self.taken - self.in_flight
        noise = (self.throttled - refused_then) / max(answered - answered_then, 1)
        is_small = refused <= SMALL_SHARE * sent + 2.0 and noise <= SMALL_SHARE
        if now < self._noise_until or rate >= began or not is_small:
            self._noise_until = -math.inf
            self._began = (rate, answered, self.throttled)
            return False
        if rate > began * NOISE_BELOW:
            return False
        self._noise = noise
        self._noise_until = now + NOISE_FOR_S
        self._full = began
        self._cut(began, now)
        return True

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
        is_near = self._full * NEAR <= self._rate <= self._full / NEAR
        growth = self._full * (NEAR_INCREASE_PER_S if is_near else INCREASE_PER_S)
        if is_beyond:
            growth = self._rate * REGAIN_PER_S
        self._rate = min(self._rate + growth * (now - self._grown_at), self._limit)
        self._grown_at = now
        if self._rate >= self._limit:
            self._full = self._limit
        if self._limit == math.inf and self._rate >= self._full * FORGOTTEN_AT:
            self._rate = self._full = math.inf


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
