"""How long a watch goes on: its deadline, the run's expiry, the outages of the server, and the time of the next poll.

Four times are kept apart here: the caller's timeout, the run's own expiry, the outage budget, and the pause before the
next poll. The timeouts of a single request and a single tool belong to the shell.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct, UnsetType, field

from asyncruns.cadence.cadence import strategy_of
from asyncruns.cadence.strategy import Course, Strategy
from asyncruns.lifecycle.expiry import ESTIMATES, believed_expiry
from asyncruns.lifecycle.notices import Connectivity
from asyncruns.lifecycle.policy import Policy
from asyncruns.lifecycle.progress import Progress
from asyncruns.lifecycle.values import AnySnapshot, Refusal, RefusalKind

EXPIRY_MARGIN_S: Final = 5.0  # how long before the expiry open calls are answered "timed out", so that the run lives
# How long before the deadline the last poll begins. If a tick comes later than this after the deadline, as after the
# computer slept, there is one more poll, which may take `FINAL_POLL_S`.
LAST_POLL_S: Final = 1.0
FINAL_POLL_S: Final = 5.0
LOST_AFTER_S: Final = 15.0  # length of an outage from which the connectivity is LOST
BACKOFF_START_S: Final = 0.5
BACKOFF_CEILING_S: Final = 10.0
RETRY_AFTER_CEILING_S: Final = 60.0  # servers have asked for hours
SLOW_PAUSE_S: Final = 2.0  # shortest pause between polls while tools run
OLD_SHARE: Final = 0.125  # share of the time before the first poll that counts as delay in any case; see `delay`
JITTER: Final = 0.1  # width of the window of a poll, as a share of its pause: the polls of many watches spread


def backoff(failures: int, refusal: Refusal) -> float:
    """Return the seconds to wait after a failed request, if `failures` others failed in a row before it."""
    # 0.5, 1, 2, 4, 8, 10, 10 ... s. A `Retry-After` may only lengthen the pause, to at most 60 s. The exponent is
    # bounded because the power would overflow after some hours of failures.
    pause = min(BACKOFF_START_S * 2.0 ** min(failures, 16), BACKOFF_CEILING_S)
    return pause if refusal.retry_after is None else max(pause, min(refusal.retry_after, RETRY_AFTER_CEILING_S))


class Patience(Struct, eq=False, gc=False):
    """The times of one watch, by the shell's clock except those that the server sends."""

    _policy: Policy
    started: float = 0.0  # set when the watch begins
    progress: Progress = field(default_factory=Progress)
    expiry: float | None = None  # by our clock; None if not known
    _expires_at: float | None = None  # the server's `expires_at` that the estimates are for
    _estimates: tuple[float, ...] = ()  # of the expiry by our clock, sorted; see `expiry.py`
    _told_at: float = 0.0  # when this `expires_at` first appeared in an answer
    failures: int = 0  # in a row
    outage_since: float | None = None
    connectivity: Connectivity = Connectivity.HEALTHY
    final_until: float | None = None  # when the one poll after the deadline must be answered; None if none was made
    _not_before: float = -math.inf  # the deadline is not before this, however short the timeout is
    trouble: Exception | None = None  # why the last request failed; None if it succeeded

    def begin(self, now: float) -> None:
        """Record that the watch begins."""
        self.started = now
        self.progress.begin(now)

    def learn(self, snapshot: AnySnapshot, now: float, asked_at: float) -> None:
        """Process a poll: anchor age and expiry to our clock by the server's clock, as our wall clock may be wrong."""
        self.progress.see(snapshot, now, asked_at)
        if snapshot.expires_at is None:
            return
        if snapshot.expires_at != self._expires_at:
            self._expires_at, self._estimates, self._told_at = snapshot.expires_at, (), now
        # Only the first few estimates count. Behind a proxy whose clock stands still, each later one would be later,
        # and the deadline would never come.
        if snapshot.server_time is not None and len(self._estimates) < ESTIMATES:
            self._estimates = tuple(sorted((*self._estimates, now + snapshot.expires_at - snapshot.server_time)))
        elif self._estimates or self.expiry is not None:
            return
        self.expiry = believed_expiry(self._estimates, self._told_at, snapshot)

    def answer_by(self, now: float) -> float:
        """Return when calls that begin now must be answered so that the run does not expire; infinity for no limit.

        If the run is alive past its expiry, that expiry is not enforced, so no call is cut short.
        """
        # 5 s before the expiry, or a quarter of what is left: with 600 s left after 595 s, with 8 s left after 6 s.
        if self.expiry is None or self.expiry <= now:
            return math.inf
        return self.expiry - min(EXPIRY_MARGIN_S, (self.expiry - now) / 4)

    def begin_again(self, now: float, at_least: float) -> None:
        """Restart the timeout and the outage budget, and forget the expiry: the watch is reopened or being left.

        The time that the caller took to reopen it does not count.

        Args:
            now: When this happens.
            at_least: Seconds that it has at least, however short the caller's timeout is.
        """
        self.started = now
        self._not_before = now + at_least
        self.restart()
        self.failures, self.outage_since = 0, None
        self.expiry = self._expires_at = self.final_until = None

    @property
    def deadline(self) -> float:
        """Time at which the wait is over; infinity for never."""
        timeout = self._policy.timeout
        if timeout is None:
            return math.inf
        if not isinstance(timeout, UnsetType):
            at = self.started + timeout
        elif self.expiry is not None:
            at = self.expiry + self._policy.after_expiry
        else:
            at = self.started + self._policy.without_expiry
        return at if at > self._not_before else self._not_before

    @property
    def last_poll_at(self) -> float:
        """Time of the last poll before the deadline; infinity for never."""
        return self.deadline - LAST_POLL_S

    @property
    def _strategy(self) -> Strategy:
        """The cadence's strategy, or its variant for a run that the server's clock shows to be older than its watch."""
        unseen = self.progress.unseen
        strategy = strategy_of(self._policy.cadence)
        return strategy.late(unseen) if unseen else strategy

    def restart(self) -> None:
        """Restart the cadence with short pauses, since something has happened at the server."""
        self.progress.restart()

    def left_stage(self, now: float) -> None:
        """Pass the time that the stage took to the cadence: the run ended by itself, or asks for a new round."""
        ages = self.progress.leave(now)
        if ages is not None:
            self._strategy.learn(self.progress.group, self.progress.stage, after=ages[0], by=ages[1])

    def delay(self, now: float) -> float:
        """Return the seconds by which the watch is expected to be late now in noticing the end of the run.

        If no durations are known, or the run was seen but not at work, the guess is half of the time since the last
        poll: 4 s after 8 s. A run that no poll has shown yet probably began with the watch, but it may be old, so an
        eighth of the time counts in any case.
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
        """Return when the watch will be expected to be `delay` seconds late in noticing the end; may be infinite."""
        # The inverse of `delay`, case by case.
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
        """Record a successful request; return whether the connectivity changed."""
        changed = self.connectivity is not Connectivity.HEALTHY
        self.connectivity = Connectivity.HEALTHY
        self.failures = 0
        self.outage_since = None
        self.trouble = None
        return changed

    def failed(self, refusal: Refusal, now: float) -> tuple[float, bool]:
        """Record a failed request; return the seconds to wait, and whether the connectivity changed."""
        self.trouble = refusal.cause
        if refusal.kind is RefusalKind.THROTTLED:
            self.outage_since = None  # the server answers, so this is not an outage
        elif self.outage_since is None:
            self.outage_since = now
        lost = self.outage_since is not None and now - self.outage_since >= LOST_AFTER_S
        before, self.connectivity = self.connectivity, Connectivity.LOST if lost else Connectivity.DEGRADED
        pause = backoff(self.failures, refusal)
        self.failures += 1
        return pause, before is not self.connectivity

    def not_found(self, cause: Exception) -> None:
        """Record that the run was not found, perhaps because of a lag. The server works."""
        self.trouble = cause

    def excuse(self, seconds: float, now: float) -> None:
        """Record that the shell held polls back for this long while the server answered: that is not an outage."""
        if self.outage_since is not None:
            self.outage_since = min(self.outage_since + seconds, now)

    def outage_is_over_budget(self, now: float) -> bool:
        """Return whether requests have failed for `max_outage` seconds or longer."""
        budget = self._policy.max_outage
        return budget is not None and self.outage_since is not None and now - self.outage_since >= budget

    def next_poll(
        self, now: float, pause: float | None = None, *, hint: float | None = None, before: float = math.inf
    ) -> tuple[float, float]:
        """Return the window of the next poll, as its earliest and latest time.

        The window begins at `before` at the latest, and early enough for an answer by the deadline, unless these times
        have passed. With a deadline in 10 s, a pause of 60 s becomes 9 s.
        """
        if pause is None:
            self.progress.count_poll()
            pause = self._pause(now, hint)
        if now < before:
            pause = min(pause, before - now)
        latest = self.deadline - LAST_POLL_S  # `last_poll_at`, computed here since each poll comes by
        if now >= latest:  # the last poll before the deadline was made, so do not poll at once again
            latest = math.inf
        return min(now + pause, latest), min(now + pause * (1 + JITTER), latest)

    def slow_pause(self, now: float, hint: float | None) -> float:
        """Return the pause between polls while tools run."""
        return max(SLOW_PAUSE_S, self._pause(now, hint))

    def _pause(self, now: float, hint: float | None) -> float:
        progress = self.progress
        course = Course(
            polls=progress.polls,
            age=max(now - progress.began, 0.0),
            hint=hint,
            group=progress.group,
            stage=progress.stage,
            among=progress.among,
        )
        return self._strategy.pause(course)

    def may_poll_once_more(self, now: float) -> bool:
        """Return whether to poll once more although the deadline has passed; True at most once.

        This is so if the call comes late, as after a laptop slept (the run may have ended long ago), and for a timeout
        of 0, which means one poll.
        """
        late = now - self.deadline > LAST_POLL_S or self.deadline <= self.started
        if self.final_until is not None or not late:
            return False
        self.final_until = now + FINAL_POLL_S
        return True

    @property
    def over_at(self) -> float:
        """Time at which the watch gives up, with the time for the poll after the deadline if there is one."""
        return self.deadline if self.final_until is None else self.final_until
