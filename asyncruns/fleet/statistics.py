"""How a fleet is doing, as a value."""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from asyncruns._loop import loop_time
from asyncruns.fleet.outcomes import Outcomes
from asyncruns.fleet.runner import Runner


class Statistics(Struct, frozen=True, kw_only=True, gc=False):
    """A fleet at one moment; counts are since it was entered.

    Attributes:
        active: Runs that are watched.
        due: Polls, submits and cancels that wait for their turn.
        in_flight: Requests without an answer yet.
        lag: For how many seconds the poll that is due for longest waits for its turn; 0 where none does.
        budget: How many requests per second are allowed now; None is no limit.
        polls: Polls that were sent.
        ended: Watches that have ended.
        polls_per_run: Looks for each watch that has ended, on average; 0 where none has.
        throttled: The share of requests that the server refused for their number (429).
    """

    active: int
    due: int
    in_flight: int
    lag: float
    budget: float | None
    polls: int
    ended: int
    polls_per_run: float
    throttled: float


def statistics_of(runner: Runner, outcomes: Outcomes[Any]) -> Statistics:
    """Return how a fleet is doing now."""
    schedule, budget, now = runner.schedule, runner.schedule.budget, loop_time()
    return Statistics(
        active=runner.roster.active,
        due=schedule.due + schedule.changes,
        in_flight=budget.in_flight,
        lag=max((now - member.poll_at for member in schedule.waiting()), default=0.0),
        budget=None if budget.rate == math.inf else budget.rate,
        polls=runner.polls,
        ended=outcomes.ended,
        polls_per_run=outcomes.polls / outcomes.ended if outcomes.ended else 0.0,
        throttled=budget.throttled / budget.taken if budget.taken else 0.0,
    )
