"""How long to go on: the wait's deadline, the run's expiry, and how it stands with the server.

Four times are kept apart here: the caller's timeout, the run's own expiry, the outage budget, and the pause to the next
poll. (One request's timeout and one tool's are the shell's.)
"""

from __future__ import annotations

import math
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType, field

from asyncruns.cadence.cadence import Cadence, strategy_of
from asyncruns.cadence.strategy import Course, Strategy
from asyncruns.lifecycle.expiry import ESTIMATES, believed_expiry
from asyncruns.lifecycle.notices import Connectivity
from asyncruns.lifecycle.progress import Progress
from asyncruns.lifecycle.values import AnySnapshot, Refusal, RefusalKind

AFTER_EXPIRY_S: Final = 60.0  # the default wait goes on so long after the expiry: servers are late to notice it
WAIT_WITHOUT_EXPIRY_S: Final = 900.0
MAX_ROUNDS: Final = 50  # far more than agents need that end, and few enough to bound what one that does not end costs
EXPIRY_MARGIN_S: Final = 5.0  # before the expiry, open calls are answered "timed out", so that the run lives
LAST_POLL_S: Final = 1.0  # the last poll begins so long before the deadline
FINAL_POLL_S: Final = 5.0  # and gets so long when we slept past the deadline
LOST_AFTER_S: Final = 15.0
BACKOFF_START_S: Final = 0.5
BACKOFF_CEILING_S: Final = 10.0
RETRY_AFTER_CEILING_S: Final = 60.0
SLOW_PAUSE_S: Final = 2.0  # between polls while tools run
OLD_SHARE: Final = 0.125  # of the time that a run waits for its first poll counts as delay
JITTER: Final = 0.1  # of the pause


class Policy(Struct, frozen=True, kw_only=True):
    """What the caller decides of a watch.

    Attributes:
        timeout: The whole wait in seconds; None is for ever; UNSET is until the run's expiry and 60 s more by the
            server's clock, and `without_expiry` where the server tells no expiry.
        without_expiry: See `timeout`; what runs of this kind may take at most, when their servers do not say so.
        max_outage: For how many seconds in a row polls may fail before the watch gives up; None is for ever.
        max_unknown_status: For how many seconds a status that this version does not know may stay before the watch
            gives up; None is no limit.
        on_lost_submit: What to do when no answer to a submit came. "poll" where a poll tells whether it was taken;
            where none can, "give_up", or "resend" the same.
        keep_tool_choice: Whether the model may be forced to call a tool in each round, and not in the first alone.
        max_rounds: After how many rounds of calls the watch leaves the next one to the caller; None is no limit.
        cadence: The pauses between polls.
    """

    timeout: float | UnsetType | None = UNSET
    without_expiry: float = WAIT_WITHOUT_EXPIRY_S
    max_outage: float | None = 120.0
    max_unknown_status: float | None = 60.0
    on_lost_submit: Literal["poll", "give_up", "resend"] = "poll"
    keep_tool_choice: bool = False
    max_rounds: int | None = MAX_ROUNDS
    cadence: Cadence = Cadence.hinted()

    @property
    def unknown_s(self) -> float:
        """`max_unknown_status` as a number."""
        return math.inf if self.max_unknown_status is None else self.max_unknown_status


def backoff(failures: int, refusal: Refusal) -> float:
    """Give the seconds to wait after a request that failed, as others did before it in a row."""
    pause = min(BACKOFF_START_S * 2.0 ** min(failures, 16), BACKOFF_CEILING_S)
    return pause if refusal.retry_after is None else max(pause, min(refusal.retry_after, RETRY_AFTER_CEILING_S))


class Patience(Struct, eq=False, gc=False):
    """The times of one watch. Times are of the shell's clock, but for what the server sends."""

    _policy: Policy
    started: float = 0.0  # until the watch begins
    progress: Progress = field(default_factory=Progress)
    expiry: float | None = None
    _expires_at: float | None = None  # what it was anchored from, by the server's clock
    _estimates: tuple[float, ...] = ()
    _told_at: float = 0.0  # when this expiry was first told
    failures: int = 0
    outage_since: float | None = None
    connectivity: Connectivity = Connectivity.HEALTHY
    final_until: float | None = None
    _not_before: float = -math.inf
    trouble: Exception | None = None  # why the last request failed, if it did

    def begin(self, now: float) -> None:
        """Note that the wait begins."""
        self.started = now
        self.progress.begin(now)

    def learn(self, snapshot: AnySnapshot, now: float, asked_at: float) -> None:
        """Take a poll: anchor age and expiry to our clock, by the server's own, since our wall clock may be wrong."""
        self.progress.see(snapshot, now, asked_at)
        if snapshot.expires_at is None:
            return
        if snapshot.expires_at != self._expires_at:
            self._expires_at, self._estimates, self._told_at = snapshot.expires_at, (), now
        # Only the first few estimates count: a run that outlives its expiry, or a proxy whose clock stands still, must
        # not move it on for ever.
        if snapshot.server_time is not None and len(self._estimates) < ESTIMATES:
            self._estimates = tuple(sorted((*self._estimates, now + snapshot.expires_at - snapshot.server_time)))
        elif self._estimates or self.expiry is not None:
            return
        self.expiry = believed_expiry(self._estimates, self._told_at, snapshot)

    def answer_by(self, now: float) -> float:
        """Give when calls that begin now must be answered for the run to live, or infinity.

        A run that lives on past its expiry has an expiry that means nothing: no call is cut short for it.
        """
        if self.expiry is None or self.expiry <= now:
            return math.inf
        return self.expiry - min(EXPIRY_MARGIN_S, (self.expiry - now) / 4)

    def begin_again(self, now: float, at_least: float) -> None:
        """Forget what was before a pause that the caller made: its time is neither the run's nor the server's.

        Args:
            now: When the wait begins anew.
            at_least: So many seconds it has, however short the caller's timeout is.
        """
        self.started = now
        self._not_before = now + at_least
        self.restart()
        self.heard()
        self.expiry = self._expires_at = self.final_until = None

    @property
    def deadline(self) -> float:
        """When the wait is over, or infinity."""
        return max(self._deadline, self._not_before)

    @property
    def _deadline(self) -> float:
        timeout = self._policy.timeout
        if timeout is None:
            return math.inf
        if not isinstance(timeout, UnsetType):
            return self.started + timeout
        if self.expiry is not None:
            return self.expiry + AFTER_EXPIRY_S
        return self.started + self._policy.without_expiry

    @property
    def _strategy(self) -> Strategy:
        """The cadence's strategy, or its view for a run that is said to be older than its watch."""
        unseen = self.progress.unseen
        strategy = strategy_of(self._policy.cadence)
        return strategy.late(unseen) if unseen else strategy

    def restart(self) -> None:
        """Begin the cadence anew: something has happened at the server."""
        self.progress.restart()

    def left_stage(self, now: float) -> None:
        """Let the cadence know that the run has ended by itself, or waits for the caller anew."""
        ages = self.progress.leave(now)
        if ages is not None:
            self._strategy.learn(self.progress.group, self.progress.stage, after=ages[0], by=ages[1])

    def delay(self, now: float) -> float:
        """Give how many seconds the end of the run is expected to have waited for a poll by now.

        Where no durations are known, half of the time since the last poll is a fair guess. A run that was not seen yet
        began when the watch did, most likely; but it may be old, so some of the time counts in any case.
        """
        progress = self.progress
        waited = now - progress.seen_at
        after = 0.0 if progress.at_work is None else progress.at_work - progress.began
        known = None
        if progress.at_work is not None or not progress.is_seen:
            by = now - progress.began
            known = self._strategy.delay(progress.group, progress.stage, after=after, by=by)
        if known is None:
            return waited / 2
        return known if progress.at_work is not None else max(known, waited * OLD_SHARE)

    def delayed_at(self, delay: float) -> float:
        """Give when the end of the run is expected to have waited so many seconds; may be infinite."""
        progress = self.progress
        after = 0.0 if progress.at_work is None else progress.at_work - progress.began
        known = None
        if progress.at_work is not None or not progress.is_seen:
            known = self._strategy.age_of_delay(progress.group, progress.stage, after=after, delay=delay)
        if known is None:
            return progress.seen_at + 2 * delay
        at = progress.began + known
        return at if progress.at_work is not None else min(at, progress.seen_at + delay / OLD_SHARE)

    def heard(self) -> bool:
        """Note a good answer; tell whether connectivity changed."""
        changed = self.connectivity is not Connectivity.HEALTHY
        self.connectivity = Connectivity.HEALTHY
        self.failures = 0
        self.outage_since = None
        self.trouble = None
        return changed

    def failed(self, refusal: Refusal, now: float) -> tuple[float, bool]:
        """Note a failed request; give the seconds to wait, and whether connectivity changed."""
        self.trouble = refusal.cause
        if refusal.kind is RefusalKind.THROTTLED:
            self.outage_since = None  # it answers, so it is there
        elif self.outage_since is None:
            self.outage_since = now
        lost = self.outage_since is not None and now - self.outage_since >= LOST_AFTER_S
        before, self.connectivity = self.connectivity, Connectivity.LOST if lost else Connectivity.DEGRADED
        pause = backoff(self.failures, refusal)
        self.failures += 1
        return pause, before is not self.connectivity

    def not_found(self, cause: Exception) -> None:
        """Note that the run is not there, which may be a lag; the server is well."""
        self.trouble = cause

    def excuse(self, seconds: float, now: float) -> None:
        """Note that for so long nobody asked for this run, and that the server was there."""
        if self.outage_since is not None:
            self.outage_since = min(self.outage_since + seconds, now)

    def outage_is_over_budget(self, now: float) -> bool:
        """Tell whether polls have failed for too long."""
        budget = self._policy.max_outage
        return budget is not None and self.outage_since is not None and now - self.outage_since >= budget

    def next_poll(
        self, now: float, pause: float | None = None, *, hint: float | None = None, before: float = math.inf
    ) -> tuple[float, float]:
        """Give the window of the next poll.

        It begins by `before`, and in time to be answered by the deadline, unless these have passed already.
        """
        if pause is None:
            self.progress.count_poll()
            pause = self._pause(now, hint)
        if now < before:
            pause = min(pause, before - now)
        latest = self.deadline - LAST_POLL_S
        if now >= latest:  # that poll is behind us
            latest = math.inf
        return min(now + pause, latest), min(now + pause * (1 + JITTER), latest)

    def slow_pause(self, now: float, hint: float | None) -> float:
        """Give the pause between polls while tools run."""
        return max(SLOW_PAUSE_S, self._pause(now, hint))

    def _pause(self, now: float, hint: float | None) -> float:
        progress = self.progress
        course = Course(
            polls=progress.polls,
            age=max(now - progress.began, 0.0),
            hint=hint,
            group=progress.group,
            stage=progress.stage,
        )
        return self._strategy.pause(course)

    def may_poll_once_more(self, now: float) -> bool:
        """Tell, once, whether one poll is due although the deadline has passed.

        It is when we come late, as after a laptop's sleep: the run may have ended long since. And a wait of no seconds
        asks for one poll.
        """
        late = now - self.deadline > LAST_POLL_S or self.deadline <= self.started
        if self.final_until is not None or not late:
            return False
        self.final_until = now + FINAL_POLL_S
        return True

    @property
    def over_at(self) -> float:
        """When the watch ends, the one last poll included."""
        return self.deadline if self.final_until is None else self.final_until
