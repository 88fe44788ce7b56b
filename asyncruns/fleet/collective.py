"""The collective polls of a fleet: which to send, and whether to rely on them. No I/O: the caller passes the time.

What a list shows may lag behind the runs themselves. So after twenty collective polls one run is polled by itself; if
that has ended, and an answer to a later collective poll still shows it at work, the list lags. After a collective poll
that failed, one run is polled by itself, too: if that succeeds, it is not the server that fails, but the list.

What makes and reads the polls may be a caller's. If it raises, its runs are polled by themselves from then on.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar

from asyncruns.abc import CollectivePoll, CollectivePolls
from asyncruns.errors import APIResponseValidationError
from asyncruns.http import Response
from asyncruns.lifecycle import Refusal, RefusalKind, RunRef, Snapshot
from asyncruns.watch.logs import FLEET_LOG

R = TypeVar("R")
T = TypeVar("T")

CHECK_AFTER: Final = 20  # collective polls, one run is polled by itself
FAILURES: Final = 3  # of the list alone, in a row, after which runs are polled by themselves for a while
MOST_THROTTLED: Final = 10  # in a row, after which one single poll shows whether it is the list alone that is limited
MOST_MISSED: Final = 3  # polls in a row may not show the run that they were made for; then it is polled by itself
OFF_S: Final = 600.0  # for which runs are polled by themselves if there is no list, or if it fails, lags or lacks them
ENDED_KEPT: Final = 200  # runs whose ends were seen last


class Collective(Generic[R]):
    """The collective polls of the runs of one client.

    Args:
        polls: Makes and reads them.
    """

    def __init__(self, polls: CollectivePolls[R]) -> None:
        self._polls = polls
        self._off_until = -math.inf
        self._failures = 0
        self._unchecked = 0  # collective polls since a run was polled by itself
        self._is_suspect = False  # whether the last collective poll failed, and no single one has succeeded since
        self._throttled = 0  # collective polls in a row that were refused with 429
        # How often polls that were made for a run did not show it, in a row, and until when it is polled by itself.
        self._missed: dict[RunRef, tuple[int, float]] = {}
        self._ended: OrderedDict[RunRef, float] = OrderedDict()  # when their ends were seen

    def add(self, ref: RunRef, snapshot: Snapshot[Any] | None) -> None:
        """Note that a run is watched; with the snapshot of the caller's object, if there is one."""
        self._ended.pop(ref, None)
        self._guard(partial(self._polls.add, ref, snapshot))

    def discard(self, ref: RunRef, *, ended_at: float | None) -> None:
        """Note that a run is not watched any more; with the time, if it has ended."""
        self._guard(partial(self._polls.discard, ref))
        self._missed.pop(ref, None)
        if ended_at is not None:
            self._ended[ref] = ended_at
            if len(self._ended) > ENDED_KEPT:
                self._ended.popitem(last=False)

    def choose(self, ref: RunRef, now: float) -> CollectivePoll | None:
        """Return a poll that shows this run together with others; None to poll it by itself."""
        if now < self._off_until or (ref in self._missed and now < self._missed[ref][1]):
            return None
        if self._unchecked >= CHECK_AFTER:
            self._unchecked = 0
            return None
        poll = self._guard(partial(self._polls.poll, ref))
        self._unchecked += poll is not None
        return poll

    def polled_alone(self, ref: RunRef, now: float) -> None:
        """Note that a run was polled by itself, with success."""
        if self._is_suspect:  # the server answers, so it is the list that fails
            self._is_suspect = False
            self._failures += 1
            if self._failures >= FAILURES:
                self._failures = 0
                self._switch_off(now + OFF_S)
        self._guard(partial(self._polls.polled_alone, ref))

    def read(
        self, poll: CollectivePoll, response: Response, *, asked_at: float, now: float
    ) -> Mapping[RunRef, Snapshot[R]]:
        """Return the snapshots in the answer to a poll; none if it shows an old state.

        Raises:
            APIResponseValidationError: The body is not such an answer.
        """
        found = self._guard(partial(self._polls.read, poll, response)) or {}
        self._failures, self._throttled, self._is_suspect = 0, 0, False
        for ref in self._ended.keys() & found.keys():
            if self._ended[ref] < asked_at and not found[ref].phase.is_terminal:
                FLEET_LOG.info("The list of the server lags behind its runs, which are polled one by one for 10 min")
                self._switch_off(now + OFF_S)
                return {}
        return found

    def failed(self, poll: CollectivePoll, refusal: Refusal, now: float) -> bool:
        """Note that a poll failed; return whether its runs could not be polled, either, so that they have to wait."""
        goes_on = self._guard(partial(self._polls.failed, poll, refusal))
        if not refusal.kind.passes:
            if not goes_on:
                self._switch_off(now + OFF_S)
            return False
        is_suspect = True
        if refusal.kind is RefusalKind.THROTTLED:
            self._throttled += 1
            is_suspect = self._throttled >= MOST_THROTTLED
            self._failures = FAILURES - 1 if is_suspect else self._failures
        if is_suspect:
            self._is_suspect, self._unchecked = True, CHECK_AFTER
        return True

    def missed(self, ref: RunRef, now: float) -> None:
        """Note that a poll that was made for a run did not show it."""
        count = self._missed.get(ref, (0, 0.0))[0] + 1
        self._missed[ref] = (0, now + OFF_S) if count >= MOST_MISSED else (count, -math.inf)

    def shown(self, ref: RunRef) -> None:
        """Note that a poll showed a run."""
        if self._missed:
            self._missed.pop(ref, None)

    def _switch_off(self, until: float) -> None:
        self._off_until = max(self._off_until, until)

    def _guard(self, act: Callable[[], T]) -> T | None:
        """Call a function of what makes and reads the polls; if it raises an unexpected error, use it no more."""
        try:
            return act()
        except APIResponseValidationError:
            raise
        except Exception:
            if self._off_until < math.inf:
                FLEET_LOG.exception("Collective polls raised an error; their runs are polled one by one from now on")
            self._off_until = math.inf
            return None
