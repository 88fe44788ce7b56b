"""The state of a fleet in numbers, as a value."""

from __future__ import annotations

import math
from typing import Any

from asyncruns._loop import loop_time
from asyncruns.fleet.outcomes import Outcomes
from asyncruns.fleet.runner import Runner
from asyncruns.lifecycle import Counts, TokenUsage
from asyncruns.wire.plain import Plain


class Statistics(Plain, frozen=True, kw_only=True, gc=False):
    """A fleet at one moment; counts are since it was entered.

    Attributes:
        active: Number of runs being watched or created.
        creating: Number of runs that are not created yet.
        due: Number of requests that wait for their turn.
        in_flight: Number of requests in flight.
        lag: Seconds for which the poll that has been due the longest has waited for its turn; 0 if none waits.
        budget: Requests per second that are allowed now; None if there is no limit.
        polls: Number of polls sent.
        collective_polls: Number of those that were to show several runs.
        ended: Number of watches that have finished.
        polls_per_run: Mean number of polls of the watches that have finished; 0 if none has. A collective poll counts
            for each run that it showed.
        usage: The tokens that the runs of these used, as far as the server says.
        throttled: The share of requests that the server refused with 429, from 0 to 1.
        told_by_webhooks: Whether webhooks announce ends, so that the runs of a dialect are polled at a tenth of the
            usual pace; see `Fleet.poll_now`.
        progress: How many requests have ended of the batches that are watched or have ended; None while no batch has
            shown that. A batch that has ended counts once for each watch.
    """

    active: int
    creating: int
    due: int
    in_flight: int
    lag: float
    budget: float | None
    polls: int
    collective_polls: int
    ended: int
    polls_per_run: float
    usage: TokenUsage
    throttled: float
    told_by_webhooks: bool
    progress: Counts | None = None


def statistics_of(runner: Runner, outcomes: Outcomes[Any]) -> Statistics:
    """Return the statistics of a fleet now."""
    schedule, budget, now = runner.schedule, runner.schedule.budget, loop_time()
    return Statistics(
        active=runner.roster.active,
        creating=runner.creates.waiting + runner.creates.begun,
        due=schedule.due + schedule.changes + schedule.permits,
        in_flight=budget.in_flight,
        lag=max((now - member.poll_at for member in schedule.waiting()), default=0.0),
        budget=None if budget.rate == math.inf else budget.rate,
        polls=runner.polls,
        collective_polls=runner.collectives.polls,
        ended=outcomes.ended,
        polls_per_run=outcomes.polls / outcomes.ended if outcomes.ended else 0.0,
        usage=outcomes.usage,
        throttled=budget.throttled / budget.taken if budget.taken else 0.0,
        told_by_webhooks=bool(runner.announcements.announced),
        progress=runner.progress.counts,
    )
