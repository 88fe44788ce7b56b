"""One batch of the emulator, for both wires: its position at a given time, and what became of each request.

Like the course of a run, that is a pure function of its scenario, of its cancel and of the time in epoch seconds: there
is no task and no timer.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from asyncruns.testing.emulator.batch_scenario import BatchScenario, chooses
from asyncruns.testing.emulator.fields import Body
from asyncruns.testing.emulator.timeline import reached

BATCH_ENDS: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_ROUNDING: Final = 1e-9  # of a share of requests, so that a third of 3 is 1


class BatchInput(Protocol):
    """The requests of a batch; batches that share an input share this."""

    @property
    def custom_ids(self) -> Sequence[str]:
        """The custom ids, in order."""
        ...

    def requests(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the custom id and the body of each request, in order."""
        ...


@dataclass(slots=True, eq=False)
class EmulatedBatch:
    """A batch: fixed at creation, except for its cancel and its deletion.

    Attributes:
        number: How many batches of its wire there were before.
        input: Its requests.
        settings: The body's fields that come from the request.
        errors: Why it fails; without any, it does not fail.
        results: What was made of its results, kept for the next read.
    """

    id: str
    number: int
    created: float
    scenario: BatchScenario
    input: BatchInput
    settings: Body
    errors: Sequence[Mapping[str, Any]] = ()
    cancelled: float | None = None
    is_deleted: bool = False
    results: tuple[bytes, ...] | None = field(default=None, repr=False)
    _failing: list[int] | None = field(default=None, repr=False)

    @property
    def expires(self) -> float:
        """The time at which it expires."""
        return self.created + self.scenario.lifetime

    @property
    def announces(self) -> bool:
        """Whether its end is announced by a webhook."""
        return True

    def as_of(self, now: float) -> EmulatedBatch:
        """Return the batch as it was at that time; itself, if it was not cancelled since."""
        if self.cancelled is None or reached(now, self.cancelled):
            return self
        return replace(self, cancelled=None)

    def stages(self) -> list[tuple[str, float]]:
        """Return the statuses of its life, each with the time at which it begins, unless it is cancelled again."""
        own = self._own_stages()
        if self.cancelled is None:
            return own
        before = [stage for stage in own[:-1] if stage[1] <= self.cancelled]
        end = min(("cancelled", self.cancelled + self.scenario.cancelling), own[-1], key=lambda stage: stage[1])
        return [*before, ("cancelling", self.cancelled), end]

    def reached_stages(self, now: float) -> list[tuple[str, float]]:
        """Return the statuses up to the present one."""
        return [stage for stage in self.stages() if reached(now, stage[1])]

    def status(self, now: float) -> str:
        """Return the status at that time."""
        return self.reached_stages(now)[-1][0]

    def end(self) -> tuple[str, float]:
        """Return the terminal status and its time."""
        return self.stages()[-1]

    def done(self, now: float) -> int:
        """Return how many requests were done at that time, the first ones."""
        status, total = self.status(now), len(self.input.custom_ids)
        if status in ("finalizing", "completed") and self._completes:
            return total
        stop = now if self.cancelled is None else min(now, self.cancelled)
        scenario = self.scenario
        worked = stop - self.created - scenario.validating
        progress = 0.0 if worked <= 0 else min(1.0, worked / scenario.working) if scenario.working else 1.0
        share = progress if self._completes else progress * scenario.share
        if status in ("expired", "cancelled"):
            share = max(share, scenario.share)
        return 0 if status == "failed" else math.floor(total * share + _ROUNDING)

    def counts(self, now: float) -> tuple[int, int]:
        """Return how many requests were answered and how many failed, at that time."""
        done = self.done(now)
        if self._failing is None:
            chosen = self.scenario.failing
            self._failing = [place for place, id in enumerate(self.input.custom_ids) if chooses(chosen, id)]
        failed = bisect_left(self._failing, done)
        return done - failed, failed

    def fates(self, now: float) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Yield what became of each request of a batch that has ended: its custom id, a word, and its body.

        The word is "answered", "failed", or, for those that were not done, the status of the batch.
        """
        status, done, scenario = self.status(now), self.done(now), self.scenario
        for place, (custom_id, body) in enumerate(self.input.requests()):
            if place >= done:
                yield custom_id, status, body
            elif not chooses(scenario.lost, custom_id):
                yield custom_id, "failed" if chooses(scenario.failing, custom_id) else "answered", body

    def shows_results(self, now: float) -> bool:
        """Return whether the ids of its files, or the URL of its results, are there."""
        status, ended = self.end()
        return status != "failed" and reached(now, ended + self.scenario.results_lag)

    @property
    def _completes(self) -> bool:
        return self._own_stages()[-1][0] == "completed"

    def _own_stages(self) -> list[tuple[str, float]]:
        scenario = self.scenario
        started = self.created + scenario.validating
        worked = started + scenario.working
        stages = [("validating", self.created)]
        if self.errors:
            return [*stages, ("failed", started)]
        stages.append(("in_progress", started))
        if worked > self.expires or scenario.end == "expired":
            expired = max(self.expires, started)
            return [*stages, ("finalizing", expired), ("expired", expired + scenario.finalizing)]
        if scenario.end == "cancelled":
            return [*stages, ("cancelling", worked), ("cancelled", worked + scenario.cancelling)]
        return [*stages, ("finalizing", worked), ("completed", worked + scenario.finalizing)]
