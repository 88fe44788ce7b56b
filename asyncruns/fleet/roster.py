"""Which runs a fleet knows, by their refs: those that are watched, and those that may be taken up again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from asyncruns.fleet.member import Member
from asyncruns.fleet.newest import Newest
from asyncruns.lifecycle import RunRef

KEPT_UNFINISHED: Final = 10_000  # of some 5 kB each; older ones have expired, mostly


class Roster:
    """The members of a fleet; one may have several refs.

    Args:
        keeps_unfinished: Whether runs whose watch ended before they did are kept, to be cancelled when the fleet is
            left.

    Attributes:
        active: How many are watched.
        unfinished: The runs whose watch ended before they did, where these are kept; the newest.
    """

    def __init__(self, *, keeps_unfinished: bool) -> None:
        self._keeps_unfinished = keeps_unfinished
        self._watched: dict[RunRef, Member] = {}
        self._let_go: OrderedDict[RunRef, Member] = OrderedDict()  # a submit of which is in flight, or just was
        self.unfinished: Newest[RunRef, Member] = Newest(
            KEPT_UNFINISHED,
            "The watches of very many runs ended before these did; leaving the fleet cancels the newest %d of them",
        )
        self.active: int = 0

    def __iter__(self) -> Iterator[Member]:
        """Iterate over those that are watched, each once, as they are now."""
        return iter(dict.fromkeys(self._watched.values()))

    def find(self, ref: RunRef) -> Member | None:
        """Return the member that watches this run; or one that was let go, and knows which tools have run."""
        member = self._watched.get(ref)
        if member is None:
            member = self._let_go.pop(ref, None)
            if member is None or not member.may_be_resumed:
                return None
            if member.ref != ref and member.ref not in self._watched:  # another may have watched on from there
                return self.find(member.ref) or member
        return self._watched.get(member.ref, member)

    def add(self, member: Member) -> None:
        """Note that a run is watched."""
        for ref in member.refs:
            self._watched.setdefault(ref, member)
        self.unfinished.pop(member.ref, None)
        self.active += 1

    def let_go(self, member: Member) -> None:
        """Note that a run is watched no more; it may be found again while it may be resumed."""
        self._remove(member)
        while self._let_go and not next(iter(self._let_go.values())).may_be_resumed:
            self._let_go.popitem(last=False)
        if member.may_be_resumed:
            self._let_go.update(dict.fromkeys(member.refs, member))

    def rename(self, member: Member) -> None:
        """Know a member by its new ref, too."""
        self._watched[member.ref] = member

    def end(self, member: Member) -> None:
        """Note that the watch of a run has ended."""
        self._remove(member)
        if self._keeps_unfinished and member.may_go_on:
            self.unfinished[member.ref] = member
            self.unfinished.let_go()

    def take_up(self, member: Member) -> None:
        """Note that a run whose watch had ended is watched again."""
        self.active += 1
        self._watched.setdefault(member.ref, member)
        self.unfinished.pop(member.ref, None)

    def _remove(self, member: Member) -> None:
        self.active -= 1
        for ref in member.refs:
            if self._watched.get(ref) is member:
                del self._watched[ref]
