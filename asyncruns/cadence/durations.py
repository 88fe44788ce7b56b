"""How long the runs of one group took, and what that predicts for the next one. No I/O, no clock.

Theory of operation. Two histograms hold the same runs: one remembers about 400 of them, the other about 15. The first
is smoothed by four widths, the second by two. Each result is an *opinion* on how long the next run takes; a seventh is
the *base*, which was known before any run of this group. What is *believed* is their weighted mean, and an opinion's
weight is how probable it made the runs that ended since. So the smoothing fits the durations, a few runs do not count
too much, and when durations shift the short memory takes over after a few runs.

Terms, all over the cells of the grid (`age_grid.py`):

mass      the share of runs that end in a cell
survival  the share of runs that are older than an age
hazard    here always summed from age 0 up to an age: -log(survival). 0 at age 0; 0.69 at the age by which half ended

Most ends are known only as an interval between two polls. A run is spread over its interval in proportion to what is
believed. Do not spread it evenly, and do not put it at the poll that saw it: then runs would seem longer than they are,
the next polls would come later, and the runs after them would seem longer still.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from operator import add, mul, sub
from typing import Final

from asyncruns.cadence import age_grid as grid
from asyncruns.cadence.age_grid import AGES
from asyncruns.cadence.cheapest_polls import plan

# For each histogram: how many runs it remembers, and the radii, in cells, by which it is smoothed one after the other.
# After each radius comes an opinion: standard deviations of 2, 5, 11 and 23 % of an age, and of 10 and 22 %.
HISTOGRAMS: Final[dict[float, tuple[int, ...]]] = {400.0: (1, 3, 7, 14), 15.0: (7, 14)}
OPINIONS: Final = 1 + sum(map(len, HISTOGRAMS.values()))  # the base is the first
# How much better, as a logarithm, the short memory must predict to count as much as the long one. Which runs are found
# ended depends on which were polled, so similar ends come together, and the last ones predict the next ones well even
# if durations have not changed.
HANDICAPS: Final = [0.0, *(0.0 if memory == 400.0 else 10.0 for memory, radii in HISTOGRAMS.items() for _ in radii)]
PRIOR_RUNS: Final = 2.0  # the base counts as this many runs within each opinion
EVEN_SHARE: Final = 0.03  # of a run is spread evenly over its interval; otherwise no new mode could appear within it
OPINION_MEMORY_RUNS: Final = 100.0  # runs over which the score of an opinion fades
LEAST_FORETOLD: Final = 1e-5  # the least probability scored for a run, so that an absurd one does not decide for long
NEGLIGIBLE: Final = 1e-4  # an opinion with a smaller weight is left out
# An update takes a millisecond or two, so new runs are collected into batches: of a tenth of the runs that the long
# memory holds, or of 4 % of all runs that were learned if that is more. After 100 runs a batch has 10, after 1,000 it
# has 40, after 5,000 and more 200. A surprising run, in whose neighbourhood few runs were expected, counts as a tenth
# of a batch, and at least as four, so a shift is noticed soon: three such runs, or ten, complete a batch. No batch has
# more than twice as many runs as the one before, so the batches after a shift are small.
BATCH_SHARE: Final = 0.1
BATCH_SHARE_OF_ALL: Final = 0.04
LARGEST_BATCH: Final = 200.0
SURPRISE_BATCH_SHARE: Final = 0.1
SURPRISE_SHARE: Final = 0.05  # of runs; if fewer were expected there, a run is surprising
SURPRISE_COUNTS: Final = 4.0
NEAR_CELLS: Final = 15.0  # the neighbourhood: a quarter of an age on either side
NO_RUNS: Final = 1e-9  # a survival below this counts as 0

Opinion = tuple[float, "array[float]"]  # the trust in it, from 0 to 1, and its masses
Span = tuple[float, float]  # grid positions between which a run ended: after, by
Edges = tuple[
    int, float, int, float
]  # of a span: the cell of its begin and the part of it before, and the same of its end


class Durations:
    """The durations of one group in one stage."""

    __slots__ = (
        "_base",
        "_batch",
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
        """Start from the durations of all groups, or from the usual ones.

        Args:
            base: The durations of all groups; None for those of `age_grid.prior()`.
        """
        if base is not None:
            base.catch_up()
        self.runs: int = 0
        self._base = base
        self._counts = [array("d", bytes(8 * (grid.CELLS + 1))) for _ in HISTOGRAMS]
        self._totals = [0.0 for _ in HISTOGRAMS]
        self._scores = [0.0] * OPINIONS  # logarithms; the highest is always 0
        self._opinions = self._smoothed()
        self._pending: list[Span] = []  # runs that are not in the histograms yet,
        self._news = 0.0  # what they count,
        self._batch = 0.0  # and how many complete a batch
        self._hazard = _cumulative_hazard(self._before())
        self._polls: array[float] | None = None  # computed when first needed, like `_stays`; None after an update
        self._stays: array[float] | None = None  # for each age, the mean time that runs spend below it

    def learn(self, after: float, by: float, batches: float = 1.0) -> None:
        """Note a run that ended between two ages, in seconds; with so many batches, which takes a few ms, update."""
        self.runs += 1
        span = grid.position(min(after, by)), grid.position(by)
        self._pending.append(span)
        self._news += max(SURPRISE_COUNTS, self._batch * SURPRISE_BATCH_SHARE) if self._is_surprise(span) else 1.0
        self.catch_up(batches)

    def skip(self) -> None:
        """Count a run without learning from it."""
        self.runs += 1

    def catch_up(self, batches: float = 1.0) -> None:
        """Update from the pending runs if there are at least `batches` batches of them."""
        if self._pending and self._news >= batches * self._batch:
            self._reckon()

    def pause(self, age: float, poll_worth: float, floor: float) -> float:
        """Return the cheapest pause after a poll at `age`. `poll_worth` and `floor` must be the same in all calls."""
        if self._polls is None:
            self._polls = plan([math.exp(-hazard) for hazard in self._hazard], poll_worth, floor)
        # The nearest age of the grid, since a planned poll may be early by a rounding error. Rounded down, it would be
        # taken for a poll at the age before, and the next poll would be planned at nearly the same age.
        poll = self._polls[int(grid.position(age) + 0.5)]
        return poll - age if poll > 0.0 else -poll

    def chance(self, after: float, by: float) -> float:
        """Return the probability that a run older than `after` ends by the age `by`."""
        if not by > after:
            return 0.0
        return -math.expm1(self._hazard_at(after) - self._hazard_at(by))

    def delay(self, after: float, by: float) -> float:
        """Return how many seconds before the age `by` a run older than `after` is expected to have ended.

        A run that is expected to go on counts as 0 s. For example, with runs that end at random after 10 s on average,
        one that is older than 5 s: by 6 s it has ended for 0.05 s on average, by 15 s for 3.7 s.
        """
        after = max(after, 0.0)
        if not by > after:
            return 0.0
        left = math.exp(-self._hazard_at(after))
        if left < NO_RUNS:  # no run is expected to be as old as this: count it as ended at once
            return by - after
        # The time from `after` to `by`, less the mean time that a run still at `after` is active in between.
        return max(by - after - (self._stay(by) - self._stay(after)) / left, 0.0)

    def age_of_delay(self, after: float, delay: float) -> float:
        """Return the age `by` at which `delay` reaches a number of seconds."""
        after, delay = max(0.0, after), max(0.0, delay)
        at = grid.position(after)
        first = int(at)
        if first >= grid.CELLS:
            return after + delay
        hazard, stays = self._hazard, self._stays or self._summed()
        left = math.exp(-hazard[first] - (at - first) * (hazard[first + 1] - hazard[first]))
        if left < NO_RUNS:
            return after + delay
        share = (after - AGES[first]) / (AGES[first + 1] - AGES[first])
        stay = stays[first] + share * (stays[first + 1] - stays[first])
        # The delay at the age of a cell is AGES[cell] - stays[cell] / left, less the same at `after`. It grows with the
        # age: find the first cell at which it is enough, then interpolate. (`bisect` with a key takes twice as long.)
        so_far = after - stay / left
        wanted = so_far + delay
        low, high = first + 1, grid.CELLS + 1
        while low < high:
            middle = (low + high) // 2
            if AGES[middle] - stays[middle] / left < wanted:
                low = middle + 1
            else:
                high = middle
        if low > grid.CELLS:  # beyond the grid the remaining runs count as ended
            return wanted + stays[grid.CELLS] / left
        below = after
        if low > first + 1:
            below, so_far = AGES[low - 1], AGES[low - 1] - stays[low - 1] / left
        rise = AGES[low] - stays[low] / left - so_far
        return below + (AGES[low] - below) * (max(wanted - so_far, 0.0) / rise if rise > 0.0 else 1.0)

    def _stay(self, age: float) -> float:
        """Return the mean time that runs spend below an age: for each run its duration, but at most that age."""
        stays = self._stays or self._summed()
        if age >= grid.END_S:
            return stays[-1]
        at = grid.position(age)
        cell = int(at)
        share = (age - AGES[cell]) / (AGES[cell + 1] - AGES[cell])
        return stays[cell] + share * (stays[cell + 1] - stays[cell])

    def _summed(self) -> array[float]:
        """Compute `_stays`: survival, summed over the ages by the trapezoidal rule."""
        survival = [math.exp(-hazard) for hazard in self._hazard]
        widths = map(sub, AGES[1:], AGES)
        means = ((one + next_) / 2 for one, next_ in pairwise(survival))
        self._stays = array("d", accumulate(map(mul, widths, means), initial=0.0))
        return self._stays

    def masses(self) -> list[float]:
        """Return the believed masses: the share of runs that end in each cell."""
        survival = [math.exp(-hazard) for hazard in self._hazard]
        return [*map(sub, survival, survival[1:]), survival[-1]]

    def _hazard_at(self, age: float) -> float:
        """Return the hazard summed up to an age."""
        known = self._hazard
        if age >= grid.END_S:
            # The tail of `age_grid.prior()`. A difference of logarithms, since a wrong clock may lead to any age.
            fold = math.log(age + grid.PRIOR_SCALE_S) - math.log(grid.END_S + grid.PRIOR_SCALE_S)
            return known[-1] + grid.PRIOR_SHAPE * fold
        at = grid.position(age)
        cell = int(at)
        return known[cell] + (at - cell) * (known[cell + 1] - known[cell])

    def _before(self) -> list[float]:
        """Return the base: the masses that are believed without the runs of this group."""
        return grid.prior() if self._base is None else self._base.masses()

    def _is_surprise(self, span: Span) -> bool:
        """Whether few runs were expected to end near this span."""
        after, by = span
        # Widened to 30 cells if it is narrower: an exact age alone is always improbable.
        wider = max(NEAR_CELLS - (by - after) / 2, 0.0)
        first, last = int(max(after - wider, 0.0)), int(min(by + wider, grid.CELLS))
        return math.exp(-self._hazard[first]) - math.exp(-self._hazard[last]) < SURPRISE_SHARE

    def _reckon(self) -> None:
        """Update from the pending runs."""
        base = self._before()
        # Judge first: an opinion must be scored on runs that it does not contain yet.
        self._judge(base, self._opinions)
        believed = self.masses()
        shares = [list(_shares(span, believed)) for span in self._pending]
        for histogram, memory in enumerate(HISTOGRAMS):
            # Each run takes 1 / memory from the weight of all older ones. With a memory of 15, a run counts for a half
            # after 10 more runs, and for a tenth after 33.
            left = 1.0 - 1.0 / memory
            fading = left ** len(shares)
            counts = array("d", map(mul, self._counts[histogram], repeat(fading)))
            weight = fading
            for parts in shares:
                weight /= left  # of the first run left ** (number - 1), of the last one 1
                for cell, share in parts:
                    counts[cell] += share * weight
            self._counts[histogram] = counts
            self._totals[histogram] = self._totals[histogram] * fading + (1.0 - fading) * memory
        usual = max(BATCH_SHARE * self._totals[0], min(BATCH_SHARE_OF_ALL * self.runs, LARGEST_BATCH))
        self._batch = min(usual, 2.0 * len(self._pending))
        self._pending.clear()
        self._news = 0.0
        self._opinions = self._smoothed()
        self._hazard = _cumulative_hazard(self._mixed(base, self._opinions))
        self._polls = self._stays = None

    def _smoothed(self) -> list[Opinion]:
        """Return all opinions but the base: each histogram, smoothed by each of its widths."""
        opinions: list[Opinion] = []
        for counts, total, radii in zip(self._counts, self._totals, HISTOGRAMS.values(), strict=True):
            trust = total / (total + PRIOR_RUNS)  # after 6 runs 6 / 8; the other quarter is the base
            masses = list(counts)
            for radius in radii:
                masses = grid.smooth(masses, radius) if total else masses
                opinions.append((trust, array("d", masses)))
        return opinions

    def _judge(self, base: list[float], opinions: list[Opinion]) -> None:
        """Score each opinion by the probability that it gave to the pending runs."""
        fading = (1.0 - 1.0 / OPINION_MEMORY_RUNS) ** len(self._pending)
        # For example, one opinion gave a run 4 %, another 1 %. Their scores move apart by log(4) = 1.39, so the ratio
        # of their weights grows by a factor of four.
        edges = [_edges(span) for span in self._pending]
        before = _foretold(base, edges)
        scores = [_score(before)]
        for trust, masses in opinions:
            foretold = _foretold(masses, edges)
            scores.append(_score([trust * p + (1.0 - trust) * q for p, q in zip(foretold, before, strict=True)]))
        summed = [old * fading + new for old, new in zip(self._scores, scores, strict=True)]
        top = max(summed)  # subtracted, so that exp() of a score never underflows for all of them
        self._scores = [score - top for score in summed]

    def _mixed(self, base: list[float], opinions: list[Opinion]) -> list[float]:
        """Return the mean of all opinions, by their weights."""
        weights = [math.exp(score - handicap) for score, handicap in zip(self._scores, HANDICAPS, strict=True)]
        whole = sum(weights)
        # What an opinion is not trusted with goes to the base, like the weight of opinions that are left out.
        mixed, rest = [0.0] * len(base), 1.0
        for weight, (trust, masses) in zip(weights[1:], opinions, strict=True):
            part = weight / whole * trust
            if part > NEGLIGIBLE:
                mixed = list(map(add, mixed, map(mul, masses, repeat(part))))
                rest -= part
        return list(map(add, mixed, map(mul, base, repeat(rest))))


def _cumulative_hazard(masses: list[float]) -> array[float]:
    """Return the hazard summed up to each age of the grid; summed from the end, to be exact where few runs are left."""
    survival = list(accumulate(reversed(masses)))
    whole = survival[-1]
    return array("d", (-math.log(share / whole) for share in reversed(survival)))


def _edges(span: Span) -> Edges:
    """Return the edges of a span, widened to the width of a cell if it is narrower, each as a cell and a part of it."""
    after, by = span
    if by >= grid.CELLS:  # the last cell has no end, so it always counts whole
        return int(after), after % 1.0, grid.CELLS, 1.0
    wider = max(0.0, 1.0 - (by - after)) / 2
    first, last = max(after - wider, 0.0), min(by + wider, float(grid.CELLS))
    return int(first), first % 1.0, int(last), last % 1.0


def _foretold(masses: Sequence[float], edges: list[Edges]) -> list[float]:
    """Return the probability of each span, given by its edges."""
    below = [0.0, *accumulate(masses)]
    return [
        below[last] + end * masses[last] - below[first] - begin * masses[first] for first, begin, last, end in edges
    ]


def _score(foretold: list[float]) -> float:
    """Return the logarithm of the probability of all these runs together."""
    return sum(math.log(max(probability, LEAST_FORETOLD)) for probability in foretold)


def _shares(span: Span, believed: list[float]) -> Iterator[tuple[int, float]]:
    """Yield the cells of a span, each with its share of one run that ended within it.

    For example, the span from 10.5 to 12.25 covers 0.5 of cell 10, cell 11 and 0.25 of cell 12. If masses of 2, 4 and
    8 % are believed there, the parts are 1, 4 and 2 %, so 97 % of the run are divided 1 : 4 : 2 and 3 % by the widths,
    2 : 4 : 1. The shares are 0.147, 0.571 and 0.281.
    """
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
