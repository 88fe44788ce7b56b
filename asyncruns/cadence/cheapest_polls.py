"""The cheapest looks for given durations: what they cost, and the delay that they leave.

A poll costs `poll_worth` seconds, and so does each second from the end of a run to the poll that sees it. As when runs
end does not depend on polls, that is the least sum of the times at which ends are seen and of the polls' costs. From
the age a, with the share S(a) of runs still there, and the next poll b:

    cost(a) = S(a) * (poll_worth + b - a) + cost(b)

For every b that is a line over S(a), and S grows as a falls: so the least one is on the lower hull of those lines, and
moves along it in one direction. All ages together take one pass.

Where that comes to a poll each age of the grid, the grid is too wide: an age of minutes has cells of seconds. There
runs end evenly within a cell, and the cheapest pause is the square root of twice the poll's worth over the hazard.
"""

from __future__ import annotations

import math
from array import array

from asyncruns.cadence.grid import AGES, CELLS, END_S


def plan(survival: list[float], poll_worth: float, floor: float) -> array[float]:
    """Give for each age of the grid the age of the look after it; or, below 0, minus the pause, which is within a cell.

    For the end of the grid that is infinity.

    Args:
        survival: The share of runs that are older than each age of the grid.
        poll_worth: What a poll costs, in seconds of delay.
        floor: The least pause.
    """
    costs = [0.0] * CELLS
    polls = array("d", [math.inf]) * (CELLS + 1)
    slopes, bases, best = [END_S], [0.0], 0  # of the hull's lines, and which of them was the least one last time
    ready = CELLS - 1  # the oldest age that has no line yet, since it was too near
    for cell in range(CELLS - 1, -1, -1):
        age, left = AGES[cell], survival[cell]
        while AGES[ready] >= age + floor:
            _add(slopes, bases, best, AGES[ready], costs[ready])
            ready -= 1
        best = min(best, len(slopes) - 1)
        cost = slopes[best] * left + bases[best]
        while best + 1 < len(slopes) and (other := slopes[best + 1] * left + bases[best + 1]) <= cost:
            best, cost = best + 1, other
        polls[cell] = slopes[best]
        costs[cell] = cost + left * (poll_worth - age)
    for cell in range(CELLS):
        if polls[cell] == AGES[cell + 1]:
            width = AGES[cell + 1] - AGES[cell]
            rate = math.log(survival[cell] / survival[cell + 1]) / width
            if rate * width * width > 2.0 * poll_worth:
                polls[cell] = -max(math.sqrt(2.0 * poll_worth / rate), floor)
    return polls


def _add(slopes: list[float], bases: list[float], best: int, slope: float, base: float) -> None:
    """Add a line flatter than all others, and take away those that it hides."""
    while len(slopes) - best >= 2:
        steeper, lower = slopes[-2], bases[-2]
        if (base - lower) * (steeper - slopes[-1]) > (bases[-1] - lower) * (steeper - slope):
            break
        slopes.pop()
        bases.pop()
    slopes.append(slope)
    bases.append(base)
