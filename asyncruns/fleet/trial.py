"""Whether a cut of the rate helped: a trial watches one cut, a series those of which none is known to have helped.

`pace.py` says what begins them and what follows from them. Sans-I/O; times are handed in.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

MOST: Final = 0.8  # refused: too few are left to tell what the server takes
NOTHING: Final = 0.95  # refused is as good as all: less is sent until something is taken, as nothing is lost by that
PROOF_RATE: Final = 0.9  # of the rate before; only when the share is the same there too, it does not depend on the rate
WINDOW_S: Final = 1.0  # at least: servers that count by the second refuse a second's excess in one go
AT_ONCE_ANSWERS: Final = 40  # of which MOST are refused end a trial before its second is over
TRIAL_REFUSALS: Final = 6.0  # a trial lasts until so many refusals are expected, at least 1 s, and
TRIAL_LEAST: Final = 12  # for so many answers at least, and
TRIAL_ANSWERS: Final = 120  # for so many answers at most, or
TRIAL_S: Final = 30.0
MORE_THAN_CHANCE: Final = 2  # refusals beyond chance end a trial at once: the share rose
SAME_PART: Final = 1 / 3  # of what a limit would take from the share; where it fell by less, the rest is the same
SAME_REFUSALS: Final = 2  # at least, for a share to be the same in one trial
SAME_TRIALS: Final = 2  # in a row in which the share does not fall show that it does not depend on the rate
SMALL_REFUSALS: Final = 3  # for small shares, whose cuts are small, on the way to PROOF_RATE: below a limit are none
DECISIVE: Final = 0.05  # of so large a share a trial sees enough: if it falls, there is a limit
BY_CHANCE: Final = 3.0  # standard deviations that are taken for chance


class Series(Struct):
    """Cuts of which none is known to have helped; one restoration undoes them together.

    Attributes:
        restored: The rate before the first of them.
        took: What the server took, as far as was known then.
        top: What was sent then.
        small_top: What was sent before the first cut for a small share, after those for large ones.
        begins: The number of the last answer that does not count: its request was sent before that cut.
        refused: How many requests were refused since.
        same: In how many trials the share did not fall.
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
        """Begin to count for small shares anew, after a cut for a large one to this rate."""
        self.small_top, self.begins, self.refused = rate, sent, 0

    def end_trial(self, *, fell: bool) -> None:
        """Count a trial, by whether the share fell in it."""
        self.same += not fell

    def is_same(self, rate: float) -> bool:
        """Whether enough trials, down to a rate that is low enough, show that the share does not depend on the rate."""
        return rate <= self.top * PROOF_RATE and self.same >= SAME_TRIALS

    def is_same_small(self, rate: float, share: float) -> bool:
        """Whether single refusals, at a rate that is low enough, show that of a small share."""
        return share < DECISIVE and rate <= self.small_top * PROOF_RATE and self.refused >= SMALL_REFUSALS


class Trial(Struct):
    """A cut whose effect is being watched.

    Attributes:
        base: What was sent before it.
        share: What was refused before it.
        begins: The number of the last answer that does not count: its request was sent before the cut.
        since: The time of the cut.
        refused: How many requests were refused since.
    """

    base: float
    share: float
    begins: int
    since: float
    refused: int = 0

    def refuse(self) -> None:
        """Count a refusal of what was sent since the cut."""
        self.refused += 1

    def rose(self, answers: int) -> bool:
        """Whether more of these answers are refusals than the share before the cut and chance explain."""
        return self.refused > MORE_THAN_CHANCE + by_chance(self.share * answers)

    def is_over(self, answers: int, now: float, *, rose: bool) -> bool:
        """Whether it has lasted for long enough, with so many answers."""
        is_many = answers >= AT_ONCE_ANSWERS and self.refused / answers >= MOST
        if not is_many and now - self.since < WINDOW_S:
            return False
        deciding = min(max(math.ceil(TRIAL_REFUSALS / self.share), TRIAL_LEAST), TRIAL_ANSWERS)
        return rose or answers >= deciding or now - self.since >= TRIAL_S

    def fell(self, share: float, rate: float, noise: float) -> bool:
        """Whether the share that is refused now, at this rate, is about what a limit would leave of it."""
        under_limit = max(noise, 1.0 - (1.0 - self.share) * self.base / rate)
        return self.refused < SAME_REFUSALS or share < under_limit + SAME_PART * (self.share - under_limit)


def by_chance(expected: float) -> float:
    """Return how many refusals there may be where so many are expected."""
    return expected + BY_CHANCE * math.sqrt(expected)
