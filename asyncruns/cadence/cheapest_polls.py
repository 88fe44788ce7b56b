"""Plans the cheapest polls for given durations, weighing the polls' cost against the delay that they leave.

Theory of operation. A poll costs `poll_worth` seconds; each second from the end of a run to the poll that sees it costs
one second. Polls do not change when runs end, so it is enough to minimize the sum of the times at which ends are seen
and the costs of the polls. After a poll at the age a, with the share S(a) of all runs still active and the next poll at
the age b, the cost per run is:

    cost(a) = S(a) * (poll_worth + b - a) + cost(b)

For example, all runs end just before 1 s or just before 10 s, half of them each, and poll_worth is 0.05. At age 0,
S = 1. Polling at 1 s and at 10 s costs 1 * (0.05 + 1) + 0.5 * (0.05 + 9) = 5.575; polling at 10 s alone costs 10.05,
since half of the ends are seen 9 s late.

For each b this is a line over S(a), with the slope b and the base cost(b); the rest is the same for all b. S grows as a
falls, so the least line lies on the lower hull of these lines and moves along it in one direction. One pass over the
ages, from old to young, computes them all.

If the result is a poll at every age of the grid, the grid is too coarse: at an age of minutes its cells are seconds
wide. Within a cell the hazard is taken as constant, and polls every p seconds cost poll_worth / p + hazard * p / 2 per
second. The cheapest p is sqrt(2 * poll_worth / hazard): at a hazard of 0.1 per second and a poll_worth of 0.05 it is
1 s, which costs 0.05 + 0.05; both 0.5 s and 2 s cost 0.125.
"""

from __future__ import annotations

import math
from array import array

from asyncruns.cadence.age_grid import AGES, CELLS, END_S


def plan(survival: list[float], poll_worth: float, floor: float) -> array[float]:
    """Return for each age of the grid the age of the next poll; a negative value is minus a pause within the cell.

    For the end of the grid the value is infinity.

    Args:
        survival: The share of runs that are older than each age of the grid; falls from 1, and is never 0.
        poll_worth: The cost of a poll, in seconds of delay.
        floor: The shortest pause in seconds.
    """
    costs = [0.0] * CELLS
    polls = array("d", [math.inf]) * (CELLS + 1)
    slopes, bases, best = [END_S], [0.0], 0  # the hull's lines, and the index of the least one at the last age
    ready = CELLS - 1  # the oldest age without a line yet: it was nearer than `floor`
    for cell in range(CELLS - 1, -1, -1):
        age, left = AGES[cell], survival[cell]
        while AGES[ready] >= age + floor:
            _add(slopes, bases, best, AGES[ready], costs[ready])
            ready -= 1
        # `left` only grows, so the search goes on from the last `best` to lines that were added later.
        cost = slopes[best] * left + bases[best]
        while best + 1 < len(slopes) and (other := slopes[best + 1] * left + bases[best + 1]) <= cost:
            best, cost = best + 1, other
        polls[cell] = slopes[best]  # the slope of a line is the age of its poll
        costs[cell] = cost + left * (poll_worth - age)
    # Where the next poll is at the next age of the grid, and a pause shorter than the cell is cheaper.
    for cell in range(CELLS):
        if polls[cell] == AGES[cell + 1]:
            width = AGES[cell + 1] - AGES[cell]
            rate = math.log(survival[cell] / survival[cell + 1]) / width
            if rate * width * width > 2.0 * poll_worth:
                polls[cell] = -max(math.sqrt(2.0 * poll_worth / rate), floor)
    return polls


def _add(slopes: list[float], bases: list[float], best: int, slope: float, base: float) -> None:
    """Add a line flatter than all others, and remove those that are nowhere the least any more."""
    # Lines up to the index `best` are kept, so that `best` stays valid.
    while len(slopes) - best >= 2:
        steeper, lower = slopes[-2], bases[-2]
        if (base - lower) * (steeper - slopes[-1]) > (bases[-1] - lower) * (steeper - slope):
            break
        slopes.pop()
        bases.pop()
    slopes.append(slope)
    bases.append(base)
