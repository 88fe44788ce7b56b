"""The faults of an emulator: which requests each has matched and struck, and which fault strikes next."""

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
        """Count a request and return whether the fault is due to strike it."""
        fault = self.fault
        if not self._selects(seen):
            return False
        # With skip=1 and every=3, the fourth, seventh, tenth, ... matching request is due.
        self.matched += 1
        place = self.matched - fault.skip
        used_up = fault.times is not None and self.struck >= fault.times
        lacks = fault.damage == "repeat" and seen.key not in self._answers
        return place > 0 and place % fault.every == 0 and not used_up and not lacks

    def remember(self, seen: SeenRequest, answer: EmulatedAnswer) -> None:
        """Keep an answer if the fault repeats answers."""
        if self.fault.damage == "repeat" and self._selects(seen):
            self._answers[seen.key] = answer

    def earlier(self, seen: SeenRequest) -> EmulatedAnswer | None:
        """Return the last answer to the same request, or None."""
        return self._answers.get(seen.key)

    def _selects(self, seen: SeenRequest) -> bool:
        fault = self.fault
        if fault.stream is not None and not seen.asks_for_a_stream:
            return False
        return fault.on in ("any", seen.operation) and fault.run_id in (None, seen.run_id)


def strike(faults: Sequence[InjectedFault], seen: SeenRequest) -> InjectedFault | None:
    """Choose the fault that strikes a request: the first that is due.

    Each fault counts every request that it selects. A fault that is due while an earlier one strikes misses that
    request, which does not count towards its `times`.
    """
    # A list and not `next()`: `is_due` must count the request for every fault.
    due = [fault for fault in faults if fault.is_due(seen)]
    if not due:
        return None
    due[0].struck += 1
    seen.fault = due[0].fault
    return due[0]
