"""How much a due poll is worth: a level, by the delay that the poll is expected to end.

The delay is how long the run is expected to have been over before the poll shows it. Each level begins at twice the
delay of the one below: level 7 at 2 s, level 6 at 1 s, level 5 at 0.5 s, down to level 1 at 31 ms; below is level 0.
"""

from __future__ import annotations

import math
from typing import Final

from asyncruns.fleet.schedule import LEVELS
from asyncruns.lifecycle import RunLifecycle

TOP_DELAY_S: Final = 2.0  # the expected delay at which the highest level begins


def rank_of(machine: RunLifecycle, now: float) -> int:
    """Return the level of a poll of this run; the highest for a run past its expiry."""
    delay = machine.delay(now)
    if now >= machine.expiry or delay >= TOP_DELAY_S:
        return LEVELS - 1
    if not delay > 0.0:
        return 0
    # frexp(0.5) is (0.5, 0), so a delay of 1 s is on level 6; frexp(0.49) is (0.98, -1): level 5.
    return max(LEVELS - 2 + math.frexp(delay / TOP_DELAY_S)[1], 0)


def reaches_at(machine: RunLifecycle, level: int) -> float:
    """Return when a poll of this run reaches this level; may be infinite."""
    return min(machine.delayed_at(math.ldexp(TOP_DELAY_S, level + 1 - LEVELS)), machine.expiry)
