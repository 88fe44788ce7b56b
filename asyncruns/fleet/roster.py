"""The runs that a fleet knows, by their refs: those being watched, and those whose watch may be resumed or reopened."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from asyncruns.fleet.member import Member
from asyncruns.fleet.newest import Newest
from asyncruns.lifecycle import RunRef

KEPT_UNFINISHED: Final = 10_000  # of some 5 kB each; most of the older ones have expired


class Roster:
    """The members of a fleet; one may have several refs.

    Args:
        keeps_unfinished: Whether to keep runs whose watch finished before the run ended, to cancel them when the fleet
            is left.

    Attributes:
        active: Number of members being watched, including those whose runs are not created yet.
        unfinished: The newest runs whose watch finished before the run ended, if these are kept.
    """

    def __init__(self, *, keeps_unfinished: bool) -> None:
        self._keeps_unfinished = keeps_unfinished
        self._watched: dict[RunRef, Member] = {}
        self._discarded: OrderedDict[RunRef, Member] = OrderedDict()  # with a submit in flight, or just answered
        self.unfinished: Newest[RunRef, Member] = Newest(
            KEPT_UNFINISHED,
            "The watches of very many runs finished before the runs ended; leaving the fleet cancels the newest %d",
        )
        self.active: int = 0

    def __iter__(self) -> Iterator[Member]:
        """Iterate over the members being watched now, each once."""
        return iter(dict.fromkeys(self._watched.values()))

    def find(self, ref: RunRef) -> Member | None:
        """Return the member that watches this run, or one that was discarded and may be resumed; None if there is none.

        A discarded member knows which tools have run, so they do not run again.
        """
        member = self._watched.get(ref)
        if member is None:
            member = self._discarded.pop(ref, None)
            if member is None or not member.may_be_resumed:
                return None
            # Another member may have gone on from the run that this one's submit began.
            if member.ref != ref and member.ref not in self._watched:
                return self.find(member.ref) or member
        return self._watched.get(member.ref, member)

    def watched(self, run: RunRef | str) -> Member | None:
        """Return the member that watches a run, given its ref or its own id; None if there is none."""
        if isinstance(run, RunRef):
            return self._watched.get(run)
        return next((member for ref, member in self._watched.items() if ref.ids[-1] == run), None)

    def add(self, member: Member) -> None:
        """Note that a run is being watched, or is to be created: then it has no ref, and is not found yet."""
        for ref in member.refs:
            self._watched.setdefault(ref, member)
        self.unfinished.pop(member.ref, None)
        self.active += 1

    def discard(self, member: Member) -> None:
        """Note that a run is no longer watched; `find` returns the member while it may be resumed."""
        self._remove(member)
        # The oldest come first, so those that may not be resumed any more are at the front.
        while self._discarded and not next(iter(self._discarded.values())).may_be_resumed:
            self._discarded.popitem(last=False)
        if member.may_be_resumed:
            self._discarded.update(dict.fromkeys(member.refs, member))

    def rename(self, member: Member) -> None:
        """Add the new ref of a member, or the first one; it is still found by its earlier ones."""
        for earlier in member.refs:
            self._watched.setdefault(earlier, member)
        self._watched[member.ref] = member

    def end(self, member: Member) -> None:
        """Note that the watch of a run has finished."""
        self._remove(member)
        if self._keeps_unfinished and member.may_go_on:
            self.unfinished[member.ref] = member
            self.unfinished.discard_oldest()

    def take_up(self, member: Member) -> None:
        """Note that a watch that had finished was reopened."""
        self.active += 1
        self._watched.setdefault(member.ref, member)
        self.unfinished.pop(member.ref, None)

    def _remove(self, member: Member) -> None:
        self.active -= 1
        for ref in member.refs:
            if self._watched.get(ref) is member:
                del self._watched[ref]
