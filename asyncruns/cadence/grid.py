"""The ages at which durations are reckoned: close together for the young, further and further apart for the old.

An age has a position on the grid, a float whose whole part is the number of its cell. Cells are all as wide on a scale
of the logarithm of (1 s + age): 17 ms at the age of 0, 1.7 % of an age of minutes.
"""

from __future__ import annotations

import math
from array import array
from itertools import accumulate, repeat
from operator import mul, sub
from typing import Final

SCALE_S: Final = 1.0  # below this age the cells are nearly of the same width
PER_FOLD: Final = 60.0  # cells from one age to e times that age
CELLS: Final = 492  # and one more, for what is older than the grid
AGES: Final = array("d", (SCALE_S * math.expm1(cell / PER_FOLD) for cell in range(CELLS + 1)))
END_S: Final = AGES[CELLS]  # an hour
_LAST: Final = math.nextafter(CELLS, 0.0)  # as rounding may take the last age before the end past it

# What runs of language models are like before any was seen: hazard PRIOR_SHAPE / (PRIOR_SCALE_S + age), which falls
# with age. A third are over in 2 s, half in 4 s, nine in ten in half a minute. The tail is so beyond the grid, too.
PRIOR_SHAPE: Final = 1.2
PRIOR_SCALE_S: Final = 5.0


def position(age: float) -> float:
    """Give where an age is on the grid, from 0 to CELLS; what is no number is at 0."""
    if age >= END_S:
        return float(CELLS)
    return min(math.log1p(age / SCALE_S) * PER_FOLD, _LAST) if age > 0.0 else 0.0


def prior() -> list[float]:
    """Give the share of runs that end in each cell, before any was seen."""
    survival = [(1.0 + age / PRIOR_SCALE_S) ** -PRIOR_SHAPE for age in AGES]
    return [*map(sub, survival, survival[1:]), survival[-1]]


def smooth(masses: list[float], radius: int) -> list[float]:
    """Spread each cell's mass over twice `radius` cells on either side, the nearer the more; give shares of the whole.

    What would go over the edges is lost, so the shares of the rest are larger.
    """
    width = 2 * radius + 1
    for _ in range(2):
        padded = list(accumulate([*repeat(0.0, radius + 1), *masses, *repeat(0.0, radius)]))
        masses = list(map(sub, padded[width:], padded))
    whole = 1.0 / sum(masses)
    return list(map(mul, masses, repeat(whole)))
