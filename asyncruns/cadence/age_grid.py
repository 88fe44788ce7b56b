"""The ages at which durations are computed: close together for young runs, further and further apart for old ones.

An age has a position on the grid, a float whose whole part is the number of its cell. All cells have the same width on
a scale of log(1 s + age): 17 ms at the age of 0, 1.7 % of an age of minutes. For example, the age of 10 s is at
60 * log(11) = 143.9, in cell 143, which goes from 9.84 to 10.02 s.
"""

from __future__ import annotations

import math
from array import array
from itertools import accumulate, repeat
from operator import mul, sub
from typing import Final

SCALE_S: Final = 1.0  # below this age all cells have nearly the same width
PER_FOLD: Final = 60.0  # cells from one age to e times that age
CELLS: Final = 492  # lists of masses have one more cell, for runs older than the grid
AGES: Final = array("d", (SCALE_S * math.expm1(cell / PER_FOLD) for cell in range(CELLS + 1)))
END_S: Final = AGES[CELLS]  # an hour
_LAST: Final = math.nextafter(CELLS, 0.0)  # rounding must not move an age just below END_S past the last cell

# What is assumed about runs of language models before any was seen: the hazard, that is, the share of the runs still
# active that end per second, is PRIOR_SHAPE / (PRIOR_SCALE_S + age), and falls with age. A third are over in 2 s, half
# in 4 s, nine in ten in half a minute. The same tail goes on beyond the grid.
PRIOR_SHAPE: Final = 1.2
PRIOR_SCALE_S: Final = 5.0


def position(age: float) -> float:
    """Return the position of an age on the grid, from 0 to CELLS; NaN is at 0."""
    if age >= END_S:
        return float(CELLS)
    return min(math.log1p(age / SCALE_S) * PER_FOLD, _LAST) if age > 0.0 else 0.0


def prior() -> list[float]:
    """Return the share of runs that end in each cell, as assumed before any run was seen."""
    survival = [(1.0 + age / PRIOR_SCALE_S) ** -PRIOR_SHAPE for age in AGES]
    return [*map(sub, survival, survival[1:]), survival[-1]]


def smooth(masses: list[float], radius: int) -> list[float]:
    """Spread each cell's mass over `2 * radius` cells on either side, more to near ones; return shares of the whole.

    Mass that would cross an edge is lost; the other shares grow accordingly, so they still add up to 1.
    """
    # Two moving averages make a triangle: with a radius of 1, a mass of 9 in one cell becomes 3 3 3, then 1 2 3 2 1.
    # Each average is a difference of running sums, so its cost does not depend on the radius.
    width = 2 * radius + 1
    for _ in range(2):
        padded = list(accumulate([*repeat(0.0, radius + 1), *masses, *repeat(0.0, radius)]))
        masses = list(map(sub, padded[width:], padded))
    whole = 1.0 / sum(masses)
    return list(map(mul, masses, repeat(whole)))
