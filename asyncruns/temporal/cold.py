"""Cold watches: an attempt of their activity ends when the next poll is not soon, and then nothing is held for them.

Each attempt is a new watch. What counts over all of them is in the details of their heartbeats; when these are lost, it
counts from a later time.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from asyncruns._loop import loop_time, wall_time
from asyncruns.fleet import Watch
from asyncruns.lifecycle import Phase
from asyncruns.temporal.messages import NOT_OVER, WatchJob
from asyncruns.watch.outcome import AnyOutcome

COLD_PAUSE_S: Final = 20.0
"""Longer pauses between two polls of a cold watch are spent without an activity."""
COLD_SHARE: Final = 0.05
"""A cold watch polls again after this part of the time that it has taken so far, or later."""
LONGEST_COLD_S: Final = 300.0


class Noted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the attempts of a cold watch note for the next one. Times are in seconds since the epoch.

    Attributes:
        outage_since: Since when all polls have failed; None if the last one did not.
        give_up_at: When the watch gives up; None if the expiry of the run decides.
        polls: Number of polls sent.
    """

    outage_since: float | None = None
    give_up_at: float | None = None
    polls: int = 0


def noted_before() -> Noted:
    """Return what the earlier attempts of this activity have noted."""
    details = activity.info().heartbeat_details
    return msgspec.convert(details[0], Noted) if details and isinstance(details[0], dict) else Noted()


async def until_pause(watch: Watch[Any], job: WatchJob, without_expiry: float) -> AnyOutcome[Any]:
    """Return the outcome of a watch, or end the attempt if its next poll is not soon.

    Args:
        watch: The watch.
        job: What the activity was given.
        without_expiry: Seconds that the watch waits by default if the run has no expiry.

    Raises:
        ApplicationError: The run goes on; it says when the next attempt is to begin.
    """
    finished = asyncio.ensure_future(watch.wait())
    before = noted_before()
    try:
        while not finished.done():
            give_up_at = _give_up_at(watch, job, without_expiry)
            pause = _pause(watch, give_up_at)
            # an outage that is over must not count for the next one, so this attempt ends with it
            shortest = 0.0 if before.outage_since is not None and watch._outage_since is None else COLD_PAUSE_S
            if watch.polls and shortest < pause < math.inf:
                polls = before.polls + watch.polls
                noted = Noted(outage_since=_outage_since(watch, before), give_up_at=give_up_at, polls=polls)
                activity.heartbeat(msgspec.to_builtins(noted))
                raise ApplicationError(
                    f"The run {watch.ref} goes on ({watch.status}); it is polled again in {pause:.0f} s",
                    type=NOT_OVER,
                    next_retry_delay=timedelta(seconds=pause),
                    category=ApplicationErrorCategory.BENIGN,
                )
            await asyncio.wait({finished}, timeout=1.0)
        outcome = await finished
        return replace(outcome, polls=before.polls + outcome.polls)
    finally:
        finished.cancel()


def _pause(watch: Watch[Any], give_up_at: float | None) -> float:
    """Return the seconds to the next poll; infinity if the attempt must not end.

    Each attempt is a new watch, so how long all of them have taken counts.
    """
    is_unknown = watch._snapshot is not None and watch._snapshot.phase is Phase.UNKNOWN
    if watch._next_poll_at == math.inf or is_unknown:
        return math.inf  # a poll is in flight; or `max_unknown_status` counts, from the beginning of a watch
    taken = wall_time() - _scheduled_at()
    pause = max(watch._next_poll_at - loop_time(), min(COLD_SHARE * taken, LONGEST_COLD_S))
    return pause if give_up_at is None else min(pause, give_up_at - wall_time())


def _give_up_at(watch: Watch[Any], job: WatchJob, without_expiry: float) -> float | None:
    if job.give_up_at is not None or "timeout" in job.options:
        return job.give_up_at
    if watch._snapshot is None:
        return noted_before().give_up_at
    return _scheduled_at() + without_expiry if watch._snapshot.expires_at is None else None


def _outage_since(watch: Watch[Any], before: Noted) -> float | None:
    if watch._outage_since is None:
        return None
    since = wall_time() + watch._outage_since - loop_time()
    return since if before.outage_since is None else min(since, before.outage_since)


def _scheduled_at() -> float:
    return activity.info().scheduled_time.timestamp()
