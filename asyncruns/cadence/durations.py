"""How long the runs of one group took, and what that foretells.

Two histograms hold the same runs: one fades over hundreds of them, the other over tens. Each is smoothed by little, by
more and by much, which gives eight opinions on how long the next run takes; the ninth is what was known before any run
of this group. Each opinion counts by how well it has foretold the runs that ended since. So the smoothing fits the
durations, few runs are not believed too much, and when durations shift the short memory takes over after a few runs.

Most ends are known as an interval between two looks. A run is spread over its interval in proportion to what is
believed now: spread evenly, or put at the look that saw it, it would make the next schedule see longer runs than there
are, and that of the next.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate, pairwise, repeat
from operator import add, mul, sub
from typing import Final

from asyncruns.cadence import grid
from asyncruns.cadence.grid import AGES
from asyncruns.cadence.schedule import plan

MEMORIES_RUNS: Final = (400.0, 40.0)
RADII: Final = (1, 4, 9, 18)  # one after the other: deviations of 1, 5, 11 and 22 % of an age
PRIOR_RUNS: Final = 1.0  # what was known before counts as so many runs
EVEN_SHARE: Final = 0.1  # spread evenly over an interval, or else no new mode could be found within it
SCORE_MEMORY_RUNS: Final = 100.0
SCORE_FLOOR: Final = -12.0  # for one run, so that an absurd one does not decide for long
BATCH_SHARE: Final = 0.05  # of the runs that are remembered: so many new ones are worth a reckoning
BATCH_LIMIT: Final = 16
NEGLIGIBLE: Final = 1e-4
NO_RUNS: Final = 1e-9
CELLS_AND_END: Final = range(grid.CELLS + 1)

Span = tuple[float, float]  # positions on the grid: after, by


class Durations:
    """The durations of one group in one stage."""

    __slots__ = ("_base", "_counts", "_hazard", "_looks", "_pending", "_scores", "_stays", "_totals", "runs")

    def __init__(self, base: Durations | None = None) -> None:
        """Begin with what is known of all groups, or with what is usual."""
        self.runs = 0
        self._base = base
        self._counts = [array("d", bytes(8 * (grid.CELLS + 1))) for _ in MEMORIES_RUNS]
        self._totals = [0.0 for _ in MEMORIES_RUNS]
        self._scores = [0.0] * (1 + len(MEMORIES_RUNS) * len(RADII))
        self._pending: list[Span] = []
        self._hazard = _cumulative_hazard(self._before())
        self._looks: array[float] | None = None
        self._stays: array[float] | None = None

    def learn(self, after: float, by: float) -> None:
        """Note a run that ended between two ages. This takes a millisecond or two each time that it is worth it."""
        self.runs += 1
        self._pending.append((grid.position(min(after, by)), grid.position(by)))
        if len(self._pending) >= min(BATCH_SHARE * self._totals[0], BATCH_LIMIT):
            self._reckon()

    def next_look(self, age: float, poll_worth: float, floor: float) -> float:
        """Give the age of the look after one at `age`, which is below the grid's end; the numbers stay the same."""
        if self._looks is None:
            self._looks = plan([math.exp(-hazard) for hazard in self._hazard], poll_worth, floor)
        return self._looks[int(grid.position(age))]

    def chance(self, after: float, by: float) -> float:
        """Give the probability that a run older than `after` ends by the age `by`."""
        if not by > after:
            return 0.0
        return -math.expm1(self.hazard(after) - self.hazard(by))

    def age_at(self, after: float, chance: float) -> float:
        """Give the age by which a run older than `after` ends with that probability."""
        after = max(0.0, after)
        if not chance > 0.0:
            return after
        if chance >= 1.0:
            return math.inf
        hazard, known = self.hazard(after) - math.log1p(-chance), self._hazard
        if hazard >= known[-1]:
            return max(after, _beyond(hazard - known[-1]))
        cell = bisect_right(known, hazard) - 1
        inside = (hazard - known[cell]) / (known[cell + 1] - known[cell])
        return max(after, grid.age_of(cell + inside))

    def delay(self, after: float, by: float) -> float:
        """Give for how many seconds a run older than `after` is expected to have ended by the age `by`."""
        after = max(after, 0.0)
        if not by > after:
            return 0.0
        left = math.exp(-self.hazard(after))
        if left < NO_RUNS:  # there should be none as old as this
            return by - after
        return max(by - after - (self._stay(by) - self._stay(after)) / left, 0.0)

    def age_of_delay(self, after: float, delay: float) -> float:
        """Give the age by which a run older than `after` is expected to have ended for so many seconds."""
        after = max(after, 0.0)
        first = int(grid.position(after))
        stays, left = self._stays or self._summed(), math.exp(-self.hazard(after))
        if left < NO_RUNS or first >= grid.CELLS:
            return after + delay
        origin = after - self._stay(after) / left

        def delay_at(cell: int) -> float:
            return AGES[cell] - stays[cell] / left - origin

        cell = bisect_left(CELLS_AND_END, delay, lo=first + 1, key=delay_at)
        if cell <= grid.CELLS:
            return AGES[cell]
        # Beyond the grid all who are left are as good as over.
        return grid.END_S + delay - delay_at(grid.CELLS)

    def _stay(self, age: float) -> float:
        """Give the mean time that runs spend below an age."""
        stays = self._stays or self._summed()
        if age >= grid.END_S:
            return stays[-1]
        at = grid.position(age)
        cell = int(at)
        share = (age - AGES[cell]) / (AGES[cell + 1] - AGES[cell])
        return stays[cell] + share * (stays[cell + 1] - stays[cell])

    def _summed(self) -> array[float]:
        survival = [math.exp(-hazard) for hazard in self._hazard]
        widths = map(sub, AGES[1:], AGES)
        means = ((one + next_) / 2 for one, next_ in pairwise(survival))
        self._stays = array("d", accumulate(map(mul, widths, means), initial=0.0))
        return self._stays

    def hazard(self, age: float) -> float:
        """Give the hazard summed up to an age: minus the logarithm of the share of runs that are older."""
        known = self._hazard
        if age >= grid.END_S:
            # In logarithms, since a clock may say any age.
            fold = math.log(age + grid.PRIOR_SCALE_S) - math.log(grid.END_S + grid.PRIOR_SCALE_S)
            return known[-1] + grid.PRIOR_SHAPE * fold
        at = grid.position(age)
        cell = int(at)
        return known[cell] + (at - cell) * (known[cell + 1] - known[cell])

    def masses(self) -> list[float]:
        """Give the share of runs that end in each cell of the grid, as believed."""
        survival = [math.exp(-hazard) for hazard in self._hazard]
        return [*map(sub, survival, survival[1:]), survival[-1]]

    def _before(self) -> list[float]:
        return grid.prior() if self._base is None else self._base.masses()

    def _reckon(self) -> None:
        """Take in the runs that wait: first ask each opinion what it thought of them."""
        base = self._before()
        self._judge(base, self._smoothed())
        believed = self.masses()
        for memory, kept in enumerate(MEMORIES_RUNS):
            fading = (1.0 - 1.0 / kept) ** len(self._pending)
            counts = array("d", map(mul, self._counts[memory], repeat(fading)))
            for span in self._pending:
                for cell, share in _shares(span, believed):
                    counts[cell] += share
            self._counts[memory] = counts
            self._totals[memory] = self._totals[memory] * fading + len(self._pending)
        self._pending.clear()
        self._hazard = _cumulative_hazard(self._mixed(base, self._smoothed()))
        self._looks = self._stays = None

    def _smoothed(self) -> list[list[float]]:
        """Give the histograms as shares, each at all its widths."""
        opinions: list[list[float]] = []
        for counts, total in zip(self._counts, self._totals, strict=True):
            masses = list(counts)
            for radius in RADII:
                if total:
                    masses = grid.smooth(masses, radius)
                    whole = sum(masses)  # some of it went over the edges
                    masses = list(map(mul, masses, repeat(1.0 / whole)))
                opinions.append(masses)
        return opinions

    def _trusts(self) -> list[float]:
        """Tell how far each smoothed histogram is more than what was known before."""
        return [total / (total + PRIOR_RUNS) for total in self._totals for _ in RADII]

    def _judge(self, base: list[float], opinions: list[list[float]]) -> None:
        fading = (1.0 - 1.0 / SCORE_MEMORY_RUNS) ** len(self._pending)
        before = _foretold(base, self._pending)
        scores = [_score(before)]
        for trust, opinion in zip(self._trusts(), opinions, strict=True):
            new = _foretold(opinion, self._pending)
            scores.append(_score([trust * p + (1.0 - trust) * q for p, q in zip(new, before, strict=True)]))
        self._scores = [old * fading + score for old, score in zip(self._scores, scores, strict=True)]
        top = max(self._scores)
        self._scores = [score - top for score in self._scores]

    def _mixed(self, base: list[float], opinions: list[list[float]]) -> list[float]:
        weights = [math.exp(score) for score in self._scores]
        whole = sum(weights)
        mixed = [0.0] * len(base)
        rest = 1.0
        for weight, trust, opinion in zip(weights[1:], self._trusts(), opinions, strict=True):
            part = weight / whole * trust
            if part > NEGLIGIBLE:
                rest -= part
                mixed = list(map(add, mixed, map(mul, opinion, repeat(part))))
        return list(map(add, mixed, map(mul, base, repeat(rest))))


def _cumulative_hazard(masses: list[float]) -> array[float]:
    survival = list(accumulate(reversed(masses)))
    survival.reverse()
    whole = survival[0]
    return array("d", (-math.log(share / whole) for share in survival))


def _beyond(hazard: float) -> float:
    """Give the age at which so much hazard has come since the grid's end."""
    fold = hazard / grid.PRIOR_SHAPE
    return (grid.END_S + grid.PRIOR_SCALE_S) * math.exp(fold) - grid.PRIOR_SCALE_S if fold < 700.0 else math.inf


def _foretold(masses: list[float], spans: list[Span]) -> list[float]:
    """Give how probable each span was; one within a cell counts as the width of a cell around it."""
    below = [0.0, *accumulate(masses)]

    def share(at: float) -> float:
        cell = int(at)
        return below[cell] + (at - cell) * masses[cell]

    found: list[float] = []
    for after, by in spans:
        if by >= grid.CELLS:
            found.append(below[-1] - share(after))
            continue
        wider = max(0.0, 1.0 - (by - after)) / 2
        found.append(share(min(by + wider, grid.CELLS)) - share(max(after - wider, 0.0)))
    return found


def _score(probabilities: list[float]) -> float:
    least = math.exp(SCORE_FLOOR)
    return sum(math.log(max(probability, least)) for probability in probabilities)


def _shares(span: Span, believed: list[float]) -> Iterable[tuple[int, float]]:
    """Spread one run over the cells of its span; the last cell has no end, so it is never in part."""
    after, by = span
    first, last = int(after), int(by)
    if first == last:
        return [(last, 1.0)]
    widths = [1.0] * (last - first + 1)
    widths[0] = first + 1 - after
    widths[-1] = by - last if last < grid.CELLS else 1.0
    shares = list(map(mul, widths, believed[first : last + 1]))
    whole, width = sum(shares), sum(widths)
    return [
        (first + n, (1.0 - EVEN_SHARE) * share / whole + EVEN_SHARE * wide / width)
        for n, (share, wide) in enumerate(zip(shares, widths, strict=True))
    ]
