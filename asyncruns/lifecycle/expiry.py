"""Which expiry of a run is believed: the one place where the server's times are held against each other.

The server tells `expires_at`, `created_at` and its clock, and any of them may be wrong: a naive local time, a constant,
the clock of a proxy. Rules, in their order:

1. `expires_at` counts from the server's clock, anchored to ours when the answer came.
2. The first few answers must agree on it. One that does not fit to the others is outvoted; if no two agree, the
   server's clock tells nothing.
3. It must be ahead when it is first told. A server gives up an expired run within a minute, so a run that is shown as
   going on has an expiry that is wrong, or none that the server keeps to.
4. Where these do not hold, or the server tells no time at all: the life that the server gives the run, from its
   creation to its expiry, counts from when that was first told. The two times are of the same clock, so it does not
   matter how wrong that is; and the run can only be older, so it has no more time than that.
5. A life of no time, or of more than a day, is none that anybody meant: then no expiry is known.
"""

from __future__ import annotations

from typing import Final

from asyncruns.lifecycle.values import AnySnapshot

ESTIMATES: Final = 3  # of the expiry on our clock: as many answers are held against each other
AGREE_S: Final = 60.0  # answers may be so far apart: the default wait goes on for as long after the expiry
LONGEST_LIFE_S: Final = 86_400.0


def believed_expiry(estimates: tuple[float, ...], told_at: float, snapshot: AnySnapshot) -> float | None:
    """Return when the run expires by our clock, in seconds; None where that is not known.

    Args:
        estimates: The expiry on our clock as each of the first answers tells it, sorted; none without a server's clock.
        told_at: When this expiry was first told.
        snapshot: The last answer.
    """
    if estimates and _agree(estimates):
        estimate = estimates[len(estimates) // 2]
        if estimate > told_at:
            return estimate
    if snapshot.expires_at is None or snapshot.created_at is None:
        return None
    life = snapshot.expires_at - snapshot.created_at
    return told_at + life if 0.0 < life <= LONGEST_LIFE_S else None


def _agree(estimates: tuple[float, ...]) -> bool:
    """Return whether the median is one of two that agree; of fewer than three, the latest is taken meanwhile."""
    if len(estimates) < ESTIMATES:
        return True
    low, median, high = estimates
    return min(median - low, high - median) <= AGREE_S
