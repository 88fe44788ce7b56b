"""Which expiry of a run to believe: the one place that compares the server's times with each other.

The server sends `expires_at`, `created_at` and its clock, and any of them may be wrong: a naive local time, a constant,
the clock of a proxy. The rules, in order:

1. `expires_at` is relative to the server's clock, which is anchored to ours when the answer arrives: with 1600 for the
   expiry, 1100 for the server's clock and 150 for ours, the run expires at 650 by our clock.
2. The first few answers must agree on it. One that differs from the others is outvoted; if no two agree, the server's
   clock is not used.
3. It must be in the future when it first appears. A server ends an expired run within a minute, so if a run goes on
   after its expiry, that expiry is wrong or not enforced.
4. If these rules fail, or the server sends no clock, its life (`expires_at - created_at`) counts from when this expiry
   first appeared. Both times are of the same clock, so it does not matter how wrong that clock is. The run can only be
   older than that, so it has at most this much time.
5. A life of zero or less, or of more than a day, cannot be meant: then the expiry is not known.
"""

from __future__ import annotations

from typing import Final

from asyncruns.lifecycle.values import AnySnapshot

ESTIMATES: Final = 3  # answers that are compared: enough to outvote one
AGREE_S: Final = 60.0  # how far answers that agree may differ; the default wait goes on for as long after the expiry
LONGEST_LIFE_S: Final = 86_400.0  # a day


def believed_expiry(estimates: tuple[float, ...], told_at: float, snapshot: AnySnapshot) -> float | None:
    """Return when the run expires by our clock, in seconds; None if that is not known.

    Args:
        estimates: The expiry by our clock according to each of the first answers, sorted; empty if the server sends
            no clock.
        told_at: When this expiry first appeared in an answer, by our clock.
        snapshot: The last answer.
    """
    # Of two estimates this takes the later one: better to wait too long than to give up too early.
    if estimates and _agree(estimates):
        estimate = estimates[len(estimates) // 2]
        if estimate > told_at:
            return estimate
    if snapshot.expires_at is None or snapshot.created_at is None:
        return None
    life = snapshot.expires_at - snapshot.created_at
    return told_at + life if 0.0 < life <= LONGEST_LIFE_S else None


def _agree(estimates: tuple[float, ...]) -> bool:
    """Return whether the median agrees with another estimate. Fewer than three are not compared yet."""
    if len(estimates) < ESTIMATES:
        return True
    # With 690, 700 and 300 (one clock is wrong by 400 s), sorted to 300, 690, 700: the median 690 agrees with 700.
    low, median, high = estimates
    return min(median - low, high - median) <= AGREE_S
