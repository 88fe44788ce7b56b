"""How long the runs of one group took, and what that foretells.

Histograms hold the same runs: one remembers hundreds of them, one tens, one a handful. Each is smoothed by little, by
more and by much, and each of these is an opinion on how long the next run takes; one more is what was known before any
run of this group. Each opinion counts by how well it has foretold the runs that ended since. So the smoothing fits the
durations, few runs are not believed too much, and when durations shift the short memories take over after a few runs.

Most ends are known as an interval between two polls. A run is spread over its interval in proportion to what is
believed now: spread evenly, or put at the poll that saw it, it would make the next schedule see longer runs than there
are, and that of the next.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from operator import add, mul, sub
from typing import Final

from asyncruns.cadence import grid
from asyncruns.cadence.cheapest_polls import plan
from asyncruns.cadence.grid import AGES

# The histograms: how many runs each remembers, and the radii, in cells, by which it is smoothed one after the other.
# These come to deviations of 2, 5, 11 and 23 % of an age.
HISTOGRAMS: Final[dict[float, tuple[int, ...]]] = {400.0: (1, 3, 7, 14), 15.0: (7, 14)}
OPINIONS: Final = 1 + sum(map(len, HISTOGRAMS.values()))
# By so much better must short memories foretell than the long one. Who is found ended is a matter of who is polled,
# so ends of the same kind come together, and what just came foretells the next without that durations have changed.
HANDICAPS: Final = [0.0, *(0.0 if memory == 400.0 else 10.0 for memory, radii in HISTOGRAMS.items() for _ in radii)]
PRIOR_RUNS: Final = 2.0  # what was known before counts as so many runs
EVEN_SHARE: Final = 0.03  # of a run is spread evenly over its interval, or else no new mode could be found within it
OPINION_MEMORY_RUNS: Final = 100.0
LEAST_FORETOLD: Final = 1e-5  # for one run, so that an absurd one does not decide for long
NEGLIGIBLE: Final = 1e-4  # of all opinions
# It takes so many new runs to reckon anew: a share of those remembered, and a limit. A surprising one counts for more,
# so that a shift is followed soon: one where, with what lies near it, few runs were expected.
BATCH_SHARE: Final = 0.1
BATCH_LIMIT: Final = 64.0
POOL_BATCHES: Final = 4.0  # what all groups share is only where a new one begins, so that is reckoned less often
SURPRISE_SHARE: Final = 0.05
SURPRISE_COUNTS: Final = 4.0
NEAR_CELLS: Final = 15.0  # a quarter of an age on either side
NO_RUNS: Final = 1e-9
CELLS_AND_END: Final = range(grid.CELLS + 1)

Opinion = tuple[float, "array[float]"]  # how far it is to be trusted, and the shares of the cells
Span = tuple[float, float]  # positions on the grid: after, by


class Durations:
    """The durations of one group in one stage."""

    __slots__ = (
        "_base",
        "_counts",
        "_hazard",
        "_news",
        "_opinions",
        "_pending",
        "_polls",
        "_scores",
        "_stays",
        "_totals",
        "runs",
    )

    def __init__(self, base: Durations | None = None) -> None:
        """Begin with what is known of all groups, or with what is usual."""
        if base is not None:
            base.catch_up()
        self.runs: int = 0
        self._base = base
        self._counts = [array("d", bytes(8 * (grid.CELLS + 1))) for _ in HISTOGRAMS]
        self._totals = [0.0 for _ in HISTOGRAMS]
        self._scores = [0.0] * OPINIONS  # logarithms, the highest is 0
        self._opinions = self._smoothed()
        self._pending: list[Span] = []
        self._news = 0.0
        self._hazard = _cumulative_hazard(self._before())
        self._polls: array[float] | None = None
        self._stays: array[float] | None = None

    def learn(self, after: float, by: float) -> None:
        """Note a run that ended between two ages. Where it is worth it, this takes a millisecond or two."""
        self.runs += 1
        span = grid.position(min(after, by)), grid.position(by)
        self._pending.append(span)
        self._news += SURPRISE_COUNTS if self._is_surprise(span) else 1.0
        self.catch_up(1.0 if self._base else POOL_BATCHES)

    def catch_up(self, batches: float = 1.0) -> None:
        """Take in the runs that wait, if that is worth it: when so many times a batch of them do."""
        if self._pending and self._news >= batches * min(BATCH_SHARE * self._totals[0], BATCH_LIMIT):
            self._reckon()

    def pause(self, age: float, poll_worth: float, floor: float) -> float:
        """Give the cheapest pause after a poll `age`; both other numbers stay the same for life."""
        if self._polls is None:
            self._polls = plan([math.exp(-hazard) for hazard in self._hazard], poll_worth, floor)
        poll = self._polls[int(grid.position(age) + 0.5)]  # the nearest, as a poll is late or early by a rounding
        return poll - age if poll > 0.0 else -poll

    def chance(self, after: float, by: float) -> float:
        """Give the probability that a run older than `after` ends by the age `by`."""
        if not by > after:
            return 0.0
        return -math.expm1(self._hazard_at(after) - self._hazard_at(by))

    def delay(self, after: float, by: float) -> float:
        """Give for how many seconds a run older than `after` is expected to have ended by the age `by`."""
        after = max(after, 0.0)
        if not by > after:
            return 0.0
        left = math.exp(-self._hazard_at(after))
        if left < NO_RUNS:  # there should be none as old as this
            return by - after
        return max(by - after - (self._stay(by) - self._stay(after)) / left, 0.0)

    def age_of_delay(self, after: float, delay: float) -> float:
        """Give the age by which a run older than `after` is expected to have ended for so many seconds."""
        after, delay = max(0.0, after), max(0.0, delay)
        first = int(grid.position(after))
        stays, left = self._stays or self._summed(), math.exp(-self._hazard_at(after))
        if left < NO_RUNS or first >= grid.CELLS:
            return after + delay
        origin = after - self._stay(after) / left

        def delay_at(cell: int) -> float:
            return AGES[cell] - stays[cell] / left - origin

        cell = bisect_left(CELLS_AND_END, delay, lo=first + 1, key=delay_at)
        if cell <= grid.CELLS:
            below, so_far = (after, 0.0) if cell == first + 1 else (AGES[cell - 1], delay_at(cell - 1))
            rise = delay_at(cell) - so_far
            return below + (AGES[cell] - below) * (max(delay - so_far, 0.0) / rise if rise > 0.0 else 1.0)
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

    def masses(self) -> list[float]:
        """Give the share of runs that end in each cell of the grid, as believed."""
        survival = [math.exp(-hazard) for hazard in self._hazard]
        return [*map(sub, survival, survival[1:]), survival[-1]]

    def _hazard_at(self, age: float) -> float:
        """Give the hazard summed up to an age: minus the logarithm of the share of runs that are older."""
        known = self._hazard
        if age >= grid.END_S:
            # In logarithms, since a clock may say any age.
            fold = math.log(age + grid.PRIOR_SCALE_S) - math.log(grid.END_S + grid.PRIOR_SCALE_S)
            return known[-1] + grid.PRIOR_SHAPE * fold
        at = grid.position(age)
        cell = int(at)
        return known[cell] + (at - cell) * (known[cell + 1] - known[cell])

    def _before(self) -> list[float]:
        """Give what is believed without the runs of this group."""
        return grid.prior() if self._base is None else self._base.masses()

    def _is_surprise(self, span: Span) -> bool:
        after, by = span
        wider = max(NEAR_CELLS - (by - after) / 2, 0.0)
        first, last = int(max(after - wider, 0.0)), int(min(by + wider, grid.CELLS))
        return math.exp(-self._hazard[first]) - math.exp(-self._hazard[last]) < SURPRISE_SHARE

    def _reckon(self) -> None:
        """Take in the runs that wait; before that, ask each opinion what it thought of them."""
        base = self._before()
        self._judge(base, self._opinions)
        believed = self.masses()
        shares = [share for span in self._pending for share in _shares(span, believed)]
        for histogram, memory in enumerate(HISTOGRAMS):
            fading = (1.0 - 1.0 / memory) ** len(self._pending)
            counts = array("d", map(mul, self._counts[histogram], repeat(fading)))
            for cell, share in shares:
                counts[cell] += share
            self._counts[histogram] = counts
            self._totals[histogram] = self._totals[histogram] * fading + len(self._pending)
        self._pending.clear()
        self._news = 0.0
        self._opinions = self._smoothed()
        self._hazard = _cumulative_hazard(self._mixed(base, self._opinions))
        self._polls = self._stays = None

    def _smoothed(self) -> list[Opinion]:
        """Give each histogram at all its widths."""
        opinions: list[Opinion] = []
        for counts, total, radii in zip(self._counts, self._totals, HISTOGRAMS.values(), strict=True):
            trust = total / (total + PRIOR_RUNS)
            masses = list(counts)
            for radius in radii:
                masses = grid.smooth(masses, radius) if total else masses
                opinions.append((trust, array("d", masses)))
        return opinions

    def _judge(self, base: list[float], opinions: list[Opinion]) -> None:
        """Score each opinion by the probability that it gave to the runs that wait."""
        fading = (1.0 - 1.0 / OPINION_MEMORY_RUNS) ** len(self._pending)
        before = _foretold(base, self._pending)
        scores = [_score(before)]
        for trust, masses in opinions:
            foretold = _foretold(masses, self._pending)
            scores.append(_score([trust * p + (1.0 - trust) * q for p, q in zip(foretold, before, strict=True)]))
        summed = [old * fading + new for old, new in zip(self._scores, scores, strict=True)]
        top = max(summed)
        self._scores = [score - top for score in summed]

    def _mixed(self, base: list[float], opinions: list[Opinion]) -> list[float]:
        """Give what all opinions come to."""
        weights = [math.exp(score - handicap) for score, handicap in zip(self._scores, HANDICAPS, strict=True)]
        whole = sum(weights)
        mixed, rest = [0.0] * len(base), 1.0
        for weight, (trust, masses) in zip(weights[1:], opinions, strict=True):
            part = weight / whole * trust
            if part > NEGLIGIBLE:
                mixed = list(map(add, mixed, map(mul, masses, repeat(part))))
                rest -= part
        return list(map(add, mixed, map(mul, base, repeat(rest))))


def _cumulative_hazard(masses: list[float]) -> array[float]:
    survival = list(accumulate(reversed(masses)))
    whole = survival[-1]
    return array("d", (-math.log(share / whole) for share in reversed(survival)))


def _foretold(masses: Sequence[float], spans: list[Span]) -> list[float]:
    """Give how probable each span was; one within a cell counts as the width of a cell around it."""
    below = [0.0, *accumulate(masses)]

    def share(at: float) -> float:
        cell = int(at)
        return below[cell] + (at - cell) * masses[cell]

    found: list[float] = []
    for after, by in spans:
        if by >= grid.CELLS:  # the last cell has no end, so it is never in part
            found.append(below[-1] - share(after))
            continue
        wider = max(0.0, 1.0 - (by - after)) / 2
        found.append(share(min(by + wider, grid.CELLS)) - share(max(after - wider, 0.0)))
    return found


def _score(foretold: list[float]) -> float:
    return sum(math.log(max(probability, LEAST_FORETOLD)) for probability in foretold)


def _shares(span: Span, believed: list[float]) -> Iterator[tuple[int, float]]:
    """Spread one run over the cells of its span."""
    after, by = span
    first, last = int(after), int(by)
    if first == last:
        yield last, 1.0
        return
    widths = [1.0] * (last - first + 1)
    widths[0] = first + 1 - after
    widths[-1] = by - last if last < grid.CELLS else 1.0
    shares = list(map(mul, widths, believed[first : last + 1]))
    whole, width = sum(shares), sum(widths)
    for cell, (share, wide) in enumerate(zip(shares, widths, strict=True), start=first):
        yield cell, (1.0 - EVEN_SHARE) * share / whole + EVEN_SHARE * wide / width
