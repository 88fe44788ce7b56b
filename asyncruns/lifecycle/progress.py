"""How far a run has come in its stage, for the cadence: before outputs were submitted, and after each round of them."""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import AnySnapshot

AT_WORK: Final = (Phase.PENDING, Phase.RUNNING)
CLOCK_GRAIN_S: Final = 1.0  # servers tell times in whole seconds


class Progress(Struct, eq=False, gc=False):
    """The age of the stage, and since when polls have shown the run at work in it.

    Attributes:
        polls: Good polls since the stage began, or since something else happened at the server.
        group: What runs take equally long, as the last poll says.
        stage: 0 before outputs were submitted, by us or by others, 1 after.
        began: When the stage began; where that was before the watch, it is what the server's clock says, true or not.
        seen_at: When the last good poll was; before it, when the watch began.
        is_seen: Whether any poll has shown the run.
        at_work: When the last poll was that showed the run at work in this stage; None where none did.
    """

    polls: int = 0
    group: tuple[str, ...] = ()
    stage: int = 0
    began: float = 0.0
    seen_at: float = 0.0
    at_work: float | None = None
    is_seen: bool = False
    _watched_from: float = 0.0
    _earliest: float = -math.inf  # bounds of when the run was created
    _latest: float = 0.0
    _is_exact: bool = False
    _is_left: bool = False

    def begin(self, now: float) -> None:
        """Note that the watch begins; until a poll tells more, the run began then, too."""
        self.began = self.seen_at = self._watched_from = self._latest = now

    def see(self, snapshot: AnySnapshot, now: float, asked_at: float) -> None:
        """Take a poll the run: what it shows was so when it was asked for, or a little later."""
        if snapshot.group != self.group:
            self.group = snapshot.group
        if self.stage == 0 and not self._is_left:
            self._anchor(snapshot, now, asked_at)
        if snapshot.phase in AT_WORK:
            if self._is_left:  # by a submit of others, or one whose answer was lost; this poll is the first to tell
                self.go_on(now)
            self.at_work = max(asked_at, self.began)
        self.seen_at = now
        self.is_seen = True

    def count_poll(self) -> None:
        """Count a good poll, before the pause after it."""
        self.polls += 1

    def restart(self) -> None:
        """Count polls anew: something has happened at the server."""
        self.polls = 0

    @property
    def unseen(self) -> float:
        """How many seconds of the stage had passed before the watch began, as the server's clock says."""
        unseen = self._watched_from - self.began
        return 0.0 if unseen <= 0.0 else unseen

    def _anchor(self, snapshot: AnySnapshot, now: float, asked_at: float) -> None:
        """Find when the run was created; both times are the server's, since our wall clock may be wrong.

        Each poll gives bounds of a second or two; together, they come closer.
        """
        if snapshot.created_at is None or snapshot.server_time is None:
            return
        age = snapshot.server_time - snapshot.created_at
        earliest, latest = asked_at - age - CLOCK_GRAIN_S, now - age + CLOCK_GRAIN_S
        earliest, latest = max(self._earliest, earliest), min(self._latest, latest)
        if earliest > latest:  # a clock is wrong, and nobody knows which
            return
        self._earliest, self._latest = earliest, latest
        if self._latest < self._watched_from:
            self.began = (self._earliest + self._latest) / 2
        self._is_exact = self._latest == self._watched_from  # nothing says that it is older than the watch

    def go_on(self, now: float) -> None:
        """Note that outputs were accepted: a new stage."""
        self.stage, self.began, self.at_work = 1, now, now
        self._is_left = False
        self._is_exact = True

    def leave(self, now: float) -> tuple[float, float] | None:
        """Give the ages between which the run left the stage, once; None where that is not known."""
        at_work, self.at_work, self._is_left = self.at_work, None, True
        if at_work is None and not self._is_exact:
            return None
        self._is_exact = False
        return (0.0 if at_work is None else max(at_work - self.began, 0.0)), max(now - self.began, 0.0)
