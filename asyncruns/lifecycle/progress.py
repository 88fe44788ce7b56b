"""How far a run has come in its stage, for the cadence.

A stage is the time before outputs are submitted, or the time after each submit. The cadence learns how long stages
take, so an age must not be learned that cannot be true.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import AnySnapshot

AT_WORK: Final = (Phase.PENDING, Phase.RUNNING)
CLOCK_GRAIN_S: Final = 1.0  # servers send times in whole seconds


class Progress(Struct, eq=False, gc=False):
    """The age of the present stage, and when polls have shown the run at work in it.

    Attributes:
        polls: Number of successful polls since the stage began, or since something else happened at the server.
        group: Key of the runs that take about as long as this one, according to the last poll.
        stage: 0 before outputs were submitted, by this watch or by others; 1 after.
        began: When the stage began, by our clock. If that was before the watch, it is derived from the server's clock,
            which may be wrong.
        seen_at: When the last successful poll was answered; before the first one, when the watch began.
        is_seen: Whether any poll has shown the run.
        among: Number of runs that the last poll showed, this one included.
        at_work: When the last poll was sent that showed the run at work in this stage; None if none did.
    """

    polls: int = 0
    group: tuple[str, ...] = ()
    stage: int = 0
    began: float = 0.0
    seen_at: float = 0.0
    at_work: float | None = None
    is_seen: bool = False
    among: int = 1
    _watched_from: float = 0.0
    _earliest: float = -math.inf  # bounds of when the run was created, by our clock
    _latest: float = 0.0
    _is_exact: bool = False  # whether the stage began when `began` says, as far as is known
    _created_at: float | None = None  # when the first run was created, by the server's clock
    _took: float | None = None  # seconds that the stage took by the server's clock, if that counts; see `believe`
    _is_left: bool = False  # whether the run has left the stage and the next one has not begun

    def begin(self, now: float) -> None:
        """Record that the watch begins. Until a poll shows more, the run is assumed to begin with it."""
        self.began = self.seen_at = self._watched_from = self._latest = now

    def see(self, snapshot: AnySnapshot, now: float, asked_at: float) -> None:
        """Process a poll: it shows the run as it was when the poll was sent, or a little later."""
        if snapshot.group != self.group:
            self.group = snapshot.group
        if self._created_at is None:
            self._created_at = snapshot.created_at
        if self.stage == 0 and not self._is_left:
            self._anchor(snapshot, now, asked_at)
        if snapshot.phase in AT_WORK:
            if self._is_left:  # after a submit by another process, or one whose answer was lost: a new stage
                self.go_on(now)
            self.at_work = max(asked_at, self.began)
        self.seen_at = now
        self.is_seen = True

    def believe(self, snapshot: AnySnapshot) -> None:
        """Learn how long the stage took from the times in the snapshot, since its end was announced.

        The last poll may be long ago then. Ends that polls find by themselves are left to `leave`: under a budget that
        is too small, these are the ends of the shortest runs first, and exact times of them would mislead.
        """
        # Where a run goes on after a submit, the time since its creation is that of several stages.
        began_with_run = self.stage == 0 or snapshot.created_at != self._created_at
        self._took = snapshot.elapsed if began_with_run else None

    def count_poll(self) -> None:
        """Count a successful poll, before the pause after it."""
        self.polls += 1

    def restart(self) -> None:
        """Restart the count of polls, since something has happened at the server."""
        self.polls = 0

    @property
    def unseen(self) -> float:
        """Seconds of the stage that had passed before the watch began, according to the server's clock."""
        unseen = self._watched_from - self.began
        return 0.0 if unseen <= 0.0 else unseen

    def _anchor(self, snapshot: AnySnapshot, now: float, asked_at: float) -> None:
        """Estimate when the run was created. Both times are the server's, since our wall clock may be wrong.

        Each poll bounds it to a second or two; together they come closer. Created at 970 and answered at 1000 by the
        server's clock, sent and answered at 100 by ours: between 69 and 71.
        """
        if snapshot.created_at is None or snapshot.server_time is None:
            return
        age = snapshot.server_time - snapshot.created_at
        earliest, latest = asked_at - age - CLOCK_GRAIN_S, now - age + CLOCK_GRAIN_S
        if earliest <= self._earliest and latest >= self._latest:  # nothing new
            return
        earliest, latest = max(self._earliest, earliest), min(self._latest, latest)
        if earliest > latest:  # a clock is wrong, and it is not known which: keep the earlier bounds
            return
        self._earliest, self._latest = earliest, latest
        if self._latest < self._watched_from:
            self.began = (self._earliest + self._latest) / 2
        self._is_exact = self._latest == self._watched_from  # the run may be as young as the watch

    def go_on(self, now: float) -> None:
        """Record that outputs were accepted: a new stage begins."""
        self.stage, self.began, self.at_work = 1, now, now
        self._is_left = False
        self._is_exact = True

    def leave(self, now: float) -> tuple[float, float] | None:
        """Return the ages between which the run left the stage; None if that is not known, or was returned before."""
        # Began at 100; polls show it at work at 102.5 and ended at 106.5: (2.5, 6.5).
        at_work, self.at_work, self._is_left = self.at_work, None, True
        took, self._took = self._took, None
        if at_work is None and not self._is_exact:
            return None
        self._is_exact = False
        after, by = (0.0 if at_work is None else max(at_work - self.began, 0.0)), max(now - self.began, 0.0)
        if took is not None:
            earliest, latest = max(after, took - CLOCK_GRAIN_S), min(by, took + CLOCK_GRAIN_S)
            if earliest < latest:
                return earliest, latest
        return after, by
