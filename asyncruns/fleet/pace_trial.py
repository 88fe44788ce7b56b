"""Whether a cut of the rate helped: a trial observes one cut; a series is cuts of which none is known to have helped.

`pace.py` begins them and acts on their results. No I/O, no clock: times are passed in.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

# Refused shares
MOST: Final = 0.8  # above it, too few requests are accepted to show what the server accepts
NOTHING: Final = 0.95  # as good as all: send less until something is accepted, since nothing is lost by that
DECISIVE: Final = 0.05  # large enough for one trial to decide: if it falls, there is a limit
# How long a trial lasts: until 6 refusals are expected, but for 12 to 120 responses and 1 to 30 s. After 60 % refused
# that is 12 responses (6 / 0.6 = 10 is less), after 20 % it is 30, after 3 % it is 120.
TRIAL_REFUSALS: Final = 6.0
TRIAL_LEAST: Final = 12
TRIAL_ANSWERS: Final = 120
WINDOW_S: Final = 1.0  # servers that count by the second refuse all that is too much for a second in one go
TRIAL_S: Final = 30.0
AT_ONCE_ANSWERS: Final = 40  # this many responses, MOST of them refusals, end a trial before its first second is over
MORE_THAN_CHANCE: Final = 2  # this many refusals more than chance explains: the share rose, which ends a trial
# When a share is the same as before the cut
SAME_PART: Final = 1 / 3  # of what a limit would take from the share; if more than this is left, the share did not fall
SAME_REFUSALS: Final = 2  # with fewer in a trial, the share counts as fallen
SAME_TRIALS: Final = 2  # this many without a fall in a series show that the share does not depend on the rate
PROOF_RATE: Final = 0.9  # of the rate before the cuts; only at or below it does an unchanged share prove that
SMALL_REFUSALS: Final = 3  # for small shares, with small cuts: below a limit there are none on the way to PROOF_RATE
BY_CHANCE: Final = 3.0  # standard deviations that count as chance


class Series(Struct):
    """Cuts of which none is known to have helped; they are undone together.

    Rates are in requests per second.

    Attributes:
        restored: The rate before the first of them.
        took: The rate that the server was known to accept then.
        top: The rate that was sent then.
        small_top: The rate from which cuts for small shares began, after those for large ones.
        begins: Number of requests sent before these cuts began; responses up to this number do not count.
        refused: Number of refusals that counted since.
        same: Number of trials in which the share did not fall.
    """

    restored: float
    took: float
    top: float
    small_top: float
    begins: int
    refused: int = 0
    same: int = 0

    def refuse(self) -> None:
        """Count a refusal that came since the series began."""
        self.refused += 1

    def begin_small(self, rate: float, sent: int) -> None:
        """Restart the count for small shares, after a cut to this rate for a large one."""
        self.small_top, self.begins, self.refused = rate, sent, 0

    def end_trial(self, *, fell: bool) -> None:
        """Count a trial, if the share did not fall in it."""
        self.same += not fell

    def is_same(self, rate: float) -> bool:
        """Whether enough trials, down to a low enough rate, show that the share does not depend on the rate."""
        return rate <= self.top * PROOF_RATE and self.same >= SAME_TRIALS

    def is_same_small(self, rate: float, share: float) -> bool:
        """Whether single refusals at a low enough rate show that a small share does not depend on the rate."""
        return share < DECISIVE and rate <= self.small_top * PROOF_RATE and self.refused >= SMALL_REFUSALS


class Trial(Struct):
    """A cut whose effect is being observed.

    Attributes:
        base: The rate that was sent before it, in requests per second.
        share: The share that was refused before it.
        begins: Number of requests sent before it; responses up to this number do not count.
        since: The time of the cut.
        refused: Number of refusals that counted since.
    """

    base: float
    share: float
    begins: int
    since: float
    refused: int = 0

    def refuse(self) -> None:
        """Count the refusal of a request that was sent after the cut."""
        self.refused += 1

    def rose(self, answers: int) -> bool:
        """Whether more of these responses are refusals than the share before the cut and chance explain."""
        return self.refused > MORE_THAN_CHANCE + by_chance(self.share * answers)

    def is_over(self, answers: int, now: float, *, rose: bool) -> bool:
        """Whether the trial has lasted long enough, with this many responses."""
        is_many = answers >= AT_ONCE_ANSWERS and self.refused / answers >= MOST
        if not is_many and now - self.since < WINDOW_S:
            return False
        deciding = min(max(math.ceil(TRIAL_REFUSALS / self.share), TRIAL_LEAST), TRIAL_ANSWERS)
        return rose or answers >= deciding or now - self.since >= TRIAL_S

    def fell(self, share: float, rate: float, noise: float) -> bool:
        """Whether the share that is refused now, at this rate, is about what a limit would leave of it.

        For example, 60 % of 50 per second were refused, so a limit would be 20. At a rate of 25 it would still refuse
        1 - 20 / 25 = 20 %. The share fell if it is less than 20 % and a third of the other 40 %: less than 33 %.
        """
        under_limit = max(noise, 1.0 - (1.0 - self.share) * self.base / rate)
        return self.refused < SAME_REFUSALS or share < under_limit + SAME_PART * (self.share - under_limit)


def by_chance(expected: float) -> float:
    """Return how many refusals chance explains if a number is expected: 30 + 3 * sqrt(30) = 46 if 30 are expected."""
    return expected + BY_CHANCE * math.sqrt(expected)
