"""A reference for `fleet_budget.py`: the best use of the poll budget if the distribution of durations is known.

A simulation in steps of one poll, without latency. It knows the true distribution F of the durations. At each step it
recomputes an index for all runs and polls the run with the highest:

- "sum": the expected delay so far if the run is not polled: the integral of p since its last poll, where p is the
  probability that the run has ended by now, given that it had not ended at that poll. A dynamic programme over all
  plans of polls is only one percentage point better.
- "likely": p itself, which is the obvious choice. It starves runs that have outlived the short kind: until they are
  old, their p stays below that of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from fleet_server import Planned
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEP_S: Final = 0.002
_LONGEST_S: Final = 400.0
_NEVER: Final = 1e-9


class _Durations:
    """The distribution of the durations, and its integral, as tables."""

    def __init__(self) -> None:
        ages = np.arange(0.0, _LONGEST_S, _STEP_S)
        ended = 0.6 * _lognormal(ages, 2.0, 0.3) + 0.4 * _lognormal(ages, 45.0, 0.3)
        self._ended = ended
        self._sums = np.concatenate([[0.0], np.cumsum((ended[1:] + ended[:-1]) / 2.0) * _STEP_S])

    def likely(self, last: Floats, age: Floats) -> Floats:
        before = _at(self._ended, last)
        return (_at(self._ended, age) - before) / np.maximum(1.0 - before, _NEVER)

    def sum(self, last: Floats, age: Floats) -> Floats:
        before = _at(self._ended, last)
        summed = _at(self._sums, age) - _at(self._sums, last) - (age - last) * before
        return summed / np.maximum(1.0 - before, _NEVER)


def _lognormal(ages: Floats, median: float, sigma: float) -> Floats:
    return np.array([0.5 * math.erfc(-math.log(age / median) / sigma / math.sqrt(2.0)) if age else 0.0 for age in ages])


def _at(table: Floats, ages: Floats) -> Floats:
    places = ages / _STEP_S
    below = np.minimum(places.astype(np.int64), len(table) - 2)
    part = places - below
    between: Floats = table[below] * (1.0 - part) + table[below + 1] * part
    return between


def sketch(plan: Sequence[Planned], per_second: int, index: str) -> list[float]:
    """Return the delay of each run of a plan, which is sorted by arrival, at `per_second` polls per second."""
    durations = _Durations()
    value = {"sum": durations.sum, "likely": durations.likely}[index]
    arrivals, last = np.array([run.arrives for run in plan]), np.zeros(len(plan))
    ends = [run.arrives + run.lasts for run in plan]
    delays = [0.0] * len(plan)
    active = np.zeros(0, dtype=np.int64)
    arrived = step = 0
    while arrived < len(plan) or len(active):
        now, step = step / per_second, step + 1
        upto = int(np.searchsorted(arrivals, now, side="right"))
        if upto > arrived:
            active, arrived = np.concatenate([active, np.arange(arrived, upto)]), upto
        if not len(active):
            continue
        place = int(np.argmax(value(last[active], now - arrivals[active])))
        run = int(active[place])
        if ends[run] <= now:
            delays[run] = now - ends[run]
            active = np.delete(active, place)
        else:
            last[run] = now - arrivals[run]
    return delays
