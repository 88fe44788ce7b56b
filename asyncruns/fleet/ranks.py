"""How much a poll that is due is worth: by the delay that it is expected to end, in levels of twice the one below."""

from __future__ import annotations

import math
from typing import Final

from asyncruns.fleet.schedule import LEVELS
from asyncruns.lifecycle import RunLifecycle

TOP_DELAY_S: Final = 2.0  # so much expected delay is the highest level, half of it the one below, and so on


def rank_of(machine: RunLifecycle, now: float) -> int:
    """Return the level of a poll this run; that of one past its expiry is the highest."""
    delay = machine.delay(now)
    if now >= machine.expiry or delay >= TOP_DELAY_S:
        return LEVELS - 1
    if not delay > 0.0:
        return 0
    return max(LEVELS - 2 + math.frexp(delay / TOP_DELAY_S)[1], 0)


def reaches_at(machine: RunLifecycle, level: int) -> float:
    """Return when a poll this run is of this level."""
    return min(machine.delayed_at(math.ldexp(TOP_DELAY_S, level + 1 - LEVELS)), machine.expiry)
