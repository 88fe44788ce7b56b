"""A server that refuses requests by their rate and at random, and a loop that sends all that a budget allows."""

from __future__ import annotations

import math
import random
from collections import deque

from windows import BEGIN, ROUNDING_S

from asyncruns.fleet.budget import Budget


class Server:
    """A server that refuses requests above a rate, a share of all at random, and all of them in some periods.

    Args:
        takes: The most requests that it accepts in any second.
        share: The share that is refused at any rate.
        closed: For how many seconds of every 20 all requests are refused.
    """

    def __init__(self, takes: float, share: float = 0.0, *, closed: float = 0.0, seed: int = 1) -> None:
        self.takes = takes
        self.share = share
        self.closed = closed
        self.sent = self.refused = 0
        self._window: deque[float] = deque()
        self._chances = random.Random(seed)

    def refuses(self, now: float) -> bool:
        window = self._window
        while window and window[0] <= now - 1.0 + ROUNDING_S:
            window.popleft()
        is_closed = (now - BEGIN) % 20.0 >= 20.0 - self.closed
        refuses = len(window) >= self.takes or self._chances.random() < self.share or is_closed
        if not refuses:
            window.append(now)
        self.sent += 1
        self.refused += refuses
        return refuses


def play(budget: Budget, server: Server, seconds: float, *, latency: float = 0.05, begin: float = BEGIN) -> float:
    """Send all requests that the budget allows; return how many were accepted per second."""
    sent, now = server.sent - server.refused, begin
    in_flight: deque[tuple[float, bool]] = deque()
    while now < begin + seconds:
        ready_at = max(budget.ready_at(now), now) if budget.places(for_poll=True) else math.inf
        if in_flight and in_flight[0][0] <= ready_at:
            now, is_refused = in_flight.popleft()
            budget.landed()
            if is_refused:
                budget.refused(now, None)
        elif ready_at > now:
            now = ready_at
        else:
            budget.take(now)
            in_flight.append((now + latency, server.refuses(now)))
    for _ in in_flight:
        budget.landed()
    return (server.sent - server.refused - sent) / seconds
