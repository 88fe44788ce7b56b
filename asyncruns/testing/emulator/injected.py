"""The faults that are in an emulator: whom each has met and struck, and which one strikes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncruns.testing.emulator.answers import EmulatedAnswer
from asyncruns.testing.emulator.faults import Fault
from asyncruns.testing.emulator.seen import SeenRequest


@dataclass(slots=True, eq=False)
class InjectedFault:
    """A fault in an emulator, and its counters.

    Attributes:
        matched: The requests that it selects, whether or not it struck them.
        struck: The requests that it struck.
    """

    fault: Fault
    matched: int = 0
    struck: int = 0
    _answers: dict[tuple[str, str, str, bytes], EmulatedAnswer] = field(default_factory=dict, repr=False)

    def is_due(self, seen: SeenRequest) -> bool:
        """Count a request, and tell whether this one is to be struck."""
        fault = self.fault
        if not self._selects(seen):
            return False
        self.matched += 1
        place = self.matched - fault.skip
        used_up = fault.times is not None and self.struck >= fault.times
        lacks = fault.damage == "repeat" and seen.key not in self._answers
        return place > 0 and place % fault.every == 0 and not used_up and not lacks

    def remember(self, seen: SeenRequest, answer: EmulatedAnswer) -> None:
        """Keep an answer, where it is to be repeated."""
        if self.fault.damage == "repeat" and self._selects(seen):
            self._answers[seen.key] = answer

    def earlier(self, seen: SeenRequest) -> EmulatedAnswer | None:
        """Give the last answer to the same request, where it is to be repeated."""
        return self._answers.get(seen.key)

    def _selects(self, seen: SeenRequest) -> bool:
        fault = self.fault
        if fault.stream is not None and not seen.asks_for_a_stream:
            return False
        return fault.on in ("any", seen.operation) and fault.run_id in (None, seen.run_id)


def strike(faults: Sequence[InjectedFault], seen: SeenRequest) -> InjectedFault | None:
    """Choose the fault that strikes a request: the first that is due.

    Each fault counts every request that it selects. One that is due while an earlier one strikes misses its turn: that
    is none of its `times`.
    """
    due = [fault for fault in faults if fault.is_due(seen)]
    if not due:
        return None
    due[0].struck += 1
    seen.fault = due[0].fault
    return due[0]
