"""Polls many runs by pages of the list that the server has of them. No I/O, no clock.

Theory of operation. A list shows the newest runs first, a hundred a page, and a page is requested by the id *after*
which it begins, its *cursor*. Runs come in at the top only, so the page after an id stays the same, and is requested
again and again for the open runs on it. Ended runs between open ones cost a place on their page; whole pages of them
are never requested.

A run that was seen on a page is *placed*: a poll of it is that of the page that showed it last. All others are found
by *exploring*: the first page, the page after it, and so on, until a page shows nothing that is searched for. That may
be because thousands of ended runs are above the open ones. So when a run without a place was polled by itself,
exploring goes on after it: its own id is a cursor, and the others are probably near.

Exploring must not cost much where it finds nothing, and one page at a time is explored. That costs one *credit*, which
comes back, with another one, if something is found; fifty single polls earn one, too, and there are at most three.
Without credit there is no exploring, so at most one request in fifty is lost in a list that shows nothing, that ignores
`after`, or that has no end.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from msgspec import Struct

from asyncruns.abc import CollectivePoll, CollectivePolls
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Refusal, RefusalKind, RunRef, Snapshot

R = TypeVar("R")

MOST_CREDIT: Final = 3.0
CREDIT_OF_SINGLE: Final = 0.02
HELD_AT_ONCE: Final = 100  # runs without a place that wait for the answer of one exploring poll; no page has more

TOP: Final = ""
"""The cursor of the first page."""

_NO_SUCH_CURSOR: Final = (RefusalKind.REJECTED, RefusalKind.NOT_FOUND)


class ListedRuns(Struct):
    """One page of a list.

    Attributes:
        snapshots: What it shows, in its order.
        last: The id after which the next page begins; None if this is the last page.
    """

    snapshots: Sequence[tuple[RunRef, Snapshot[Any]]]
    last: str | None


class ListPolls(CollectivePolls[R]):
    """The open runs of one list, and on which page each was seen. A subclass makes and reads the requests."""

    def __init__(self) -> None:
        self._cursors: dict[RunRef, str] = {}  # of the pages on which runs were seen
        self._placed: dict[str, set[RunRef]] = {}  # the runs of each page
        self._shown: dict[str, int] = {}  # how many watched runs the last answer for this page showed
        self._unplaced: dict[RunRef, float] = {}  # when they were created; -infinity if that is not known
        self._explore: str | None = None  # the cursor with which exploring goes on; None if it does not
        self._explores_top = True  # whether it then begins at the top, since runs were added, say
        self._is_exploring = False  # whether such a poll is in flight
        self._credit = MOST_CREDIT

    @abstractmethod
    def request(self, cursor: str) -> Request:
        """Return the request for the page after a cursor."""

    @abstractmethod
    def page(self, request: Request, response: Response) -> ListedRuns:
        """Return the page in an answer.

        Raises:
            APIResponseValidationError: The body is no page of the list.
        """

    def add(self, ref: RunRef, snapshot: Snapshot[Any] | None) -> None:
        if ref in self._cursors or ref in self._unplaced:
            return
        created = None if snapshot is None else snapshot.created_at
        self._unplaced[ref] = -math.inf if created is None else created
        self._explores_top = True

    def discard(self, ref: RunRef) -> None:
        self._unplaced.pop(ref, None)
        cursor = self._cursors.pop(ref, None)
        if cursor is None:
            return
        placed = self._placed[cursor]
        placed.discard(ref)
        self._shown[cursor] -= 1
        if not placed:
            del self._placed[cursor], self._shown[cursor]

    def poll(self, ref: RunRef) -> CollectivePoll | None:
        cursor = self._cursors.get(ref)
        if cursor is not None:
            if self._shown[cursor] < 2:
                return None
            return CollectivePoll(request=self.request(cursor), refs=tuple(self._placed[cursor]), key=(cursor, False))
        explore = self._explore
        if explore is None and self._explores_top:
            explore = TOP
        is_worth_it = self._credit >= 1.0 and len(self._unplaced) >= 2 and ref in self._unplaced
        if explore is None or self._is_exploring or not is_worth_it:
            return None
        self._explore, self._is_exploring = None, True
        self._explores_top = self._explores_top and explore != TOP
        self._credit -= 1.0
        some = dict.fromkeys((ref, *islice(self._unplaced, HELD_AT_ONCE)))
        return CollectivePoll(request=self.request(explore), refs=tuple(some), key=(explore, True))

    def read(self, poll: CollectivePoll, response: Response) -> Mapping[RunRef, Snapshot[R]]:
        cursor, explores = poll.key
        self._is_exploring = self._is_exploring and not explores
        page = self.page(poll.request, response)
        found = dict(page.snapshots)
        watched = [ref for ref in found if ref in self._cursors or ref in self._unplaced]
        new = sum(ref in self._unplaced for ref in watched)
        gone = [ref for ref in self._placed.get(cursor, ()) if ref not in found]
        for ref in gone:
            self._unplace(ref)
        for ref in watched:
            self._place(ref, cursor)
        if watched:
            self._shown[cursor] = len(watched)
        if explores:
            self._explored(page, new=new, watched=len(watched))
        if gone and self._explore is None:  # newer runs have pushed them off the page
            self._explore = page.last or TOP
        return found

    def failed(self, poll: CollectivePoll, refusal: Refusal) -> bool:
        cursor, explores = poll.key
        self._is_exploring = self._is_exploring and not explores
        if refusal.kind.passes:
            if explores:
                self._credit += 1.0
                self._explore = cursor
            return True
        self._explores_top = self._explores_top or cursor != TOP
        if cursor == TOP or refusal.kind not in _NO_SUCH_CURSOR:
            return False
        for ref in list(self._placed.get(cursor, ())):  # the run that the cursor names was deleted, say
            self._unplace(ref)
        return True

    def polled_alone(self, ref: RunRef) -> None:
        self._credit = min(self._credit + CREDIT_OF_SINGLE, MOST_CREDIT)
        is_idle = self._explore is None and not self._is_exploring and not self._explores_top
        if is_idle and ref in self._unplaced:
            self._explore = ref.ids[-1]

    def _explored(self, page: ListedRuns, *, new: int, watched: int) -> None:
        if new and watched >= 2:
            self._credit = min(self._credit + 2.0, MOST_CREDIT)
        if new and page.last is not None and not self._is_past_the_oldest(page):
            self._explore = page.last

    def _is_past_the_oldest(self, page: ListedRuns) -> bool:
        """Return whether all runs that are searched for are newer than the last one of a page."""
        times = [snapshot.created_at for _, snapshot in page.snapshots]
        if None in times or len(times) < 2:
            return False
        first, last = float(times[0] or 0.0), float(times[-1] or 0.0)
        is_newest_first = first > last  # some servers have another order
        return is_newest_first and last < min(self._unplaced.values(), default=math.inf)

    def _place(self, ref: RunRef, cursor: str) -> None:
        """Note that a page shows a run. If another one showed it before, that one is needed less."""
        if self._cursors.get(ref) == cursor:
            return
        if ref in self._cursors:
            self._unplace(ref)
        del self._unplaced[ref]
        self._cursors[ref] = cursor
        self._placed.setdefault(cursor, set()).add(ref)
        self._shown.setdefault(cursor, 0)

    def _unplace(self, ref: RunRef) -> None:
        cursor = self._cursors.pop(ref)
        placed = self._placed[cursor]
        placed.discard(ref)
        if not placed:
            del self._placed[cursor], self._shown[cursor]
        self._unplaced[ref] = -math.inf
