"""How far a run has come in its stage, for the cadence: before outputs were submitted, and after each round of them."""

from __future__ import annotations

import math
from typing import Final

from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.values import AnySnapshot

AT_WORK: Final = (Phase.PENDING, Phase.RUNNING)
CLOCK_GRAIN_S: Final = 1.0  # servers tell times in whole seconds


class Progress:
    """The age of the stage, and since when looks have shown the run at work in it.

    Attributes:
        looks: Good looks since the stage began, or since something else happened at the server.
        group: What runs take equally long, as the last look says.
        stage: 0 before outputs were submitted, by us or by others, 1 after.
        began: When the stage began, as far as we know.
        seen_at: When the last good look was; before it, when the watch began.
        is_seen: Whether any look has shown the run.
        at_work: When the last look was that showed the run at work in this stage; None where none did.
    """

    __slots__ = (
        "_earliest",
        "_is_exact",
        "_is_left",
        "_latest",
        "_watched_from",
        "at_work",
        "began",
        "group",
        "is_seen",
        "looks",
        "seen_at",
        "stage",
    )

    def __init__(self) -> None:
        self.looks: int = 0
        self.group: tuple[str, ...] = ()
        self.stage: int = 0
        self.began: float = 0.0
        self.seen_at: float = 0.0
        self.at_work: float | None = None
        self.is_seen: bool = False
        self._watched_from = self._latest = 0.0
        self._earliest = -math.inf
        self._is_exact = False
        self._is_left = False

    def begin(self, now: float) -> None:
        """Note that the watch begins; until a look tells more, the run began then, too."""
        self.began = self.seen_at = self._watched_from = self._latest = now

    def see(self, snapshot: AnySnapshot, now: float, asked_at: float) -> None:
        """Take a look at the run: what it shows was so when it was asked for, or a little later."""
        if snapshot.group != self.group:
            self.group = snapshot.group
        if self.stage == 0 and not self._is_left:
            self._anchor(snapshot, now, asked_at)
        if snapshot.phase in AT_WORK:
            if self._is_left:  # by a submit of others, or one whose answer was lost; this look is the first to tell
                self.go_on(now)
            self.at_work = max(asked_at, self.began)
        self.seen_at = now
        self.is_seen = True

    def _anchor(self, snapshot: AnySnapshot, now: float, asked_at: float) -> None:
        """Find when the run was created; both times are the server's, since our wall clock may be wrong.

        Each look gives bounds of a second or two; together, they come closer.
        """
        if snapshot.created_at is None or snapshot.server_time is None:
            return
        age = snapshot.server_time - snapshot.created_at
        earliest, latest = asked_at - age - CLOCK_GRAIN_S, now - age + CLOCK_GRAIN_S
        self._earliest, self._latest = max(self._earliest, earliest), min(self._latest, latest)
        if self._earliest > self._latest:  # a clock was set
            self._earliest, self._latest = earliest, min(latest, now)
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
