"""What a cadence is: it gives the pause to the next look, and may learn from how long runs took.

Exponential backoff is for errors, not for waiting: at the same number of polls it sees the end of a run later than a
fixed interval does. So a cadence starts short, for runs that end at once, and grows to a steady interval; or it knows
how long such runs take.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from msgspec import Struct

from asyncruns.errors import ConfigurationError

HINT_FLOOR_S: Final = 0.05
HINT_CEILING_S: Final = 60.0
HINTED_GROWTH: Final = 1.5


class Course(Struct, frozen=True, kw_only=True, gc=False):
    """What a cadence may go by: how far a run has come.

    Attributes:
        looks: Good looks since the stage began, counted from 1.
        age: Seconds since the stage began; by the server's clock, where that says that it began before the watch.
        hint: The pause in seconds that the server asks for, if it does.
        group: What has durations of its own: the assistant and the model, say.
        stage: 0 before outputs of tools were submitted, 1 after.
    """

    looks: int
    age: float = 0.0
    hint: float | None = None
    group: tuple[str, ...] = ()
    stage: int = 0


class Cadence(Struct, frozen=True, kw_only=True, gc=False):
    """How long to wait between two looks, in seconds.

    Make one with `Cadence.hinted()`, `Cadence.fixed()`, `Cadence.backoff()` or `Cadence.learned()`.
    """

    @classmethod
    def hinted(cls, interval: float = 1.0, *, start: float = 0.25) -> Cadence:
        """Follow the server's hints; without one, start short and grow to the interval.

        Args:
            interval: The steady pause in seconds. One second is what hand-written loops use, so servers expect it.
            start: The first pause in seconds.
        """
        require_positive(interval=interval, start=start)
        return Steps(start=start, growth=HINTED_GROWTH, interval=interval, hints="replace")

    @classmethod
    def fixed(cls, interval: float) -> Cadence:
        """Look every `interval` seconds, whatever the server hints."""
        require_positive(interval=interval)
        return Steps(start=interval, growth=1.0, interval=interval, hints="ignore")

    @classmethod
    def backoff(cls, start: float = 0.5, *, growth: float = 1.5, ceiling: float = 10.0) -> Cadence:
        """Let each pause be longer than the one before; a server's hint is the least pause.

        Args:
            start: The first pause in seconds.
            growth: The factor from one pause to the next, at least 1.
            ceiling: The longest pause in seconds.
        """
        require_positive(start=start, ceiling=ceiling)
        if not 1.0 <= growth < math.inf:
            raise ConfigurationError(f"growth must be a finite factor of at least 1, got {growth!r}")
        return Steps(start=start, growth=growth, interval=ceiling, hints="least")

    @classmethod
    def learned(cls, poll_worth: float = 0.05, *, floor: float = 0.1, ceiling: float = 30.0) -> Cadence:
        """Look when runs of that group are likely to end, as learned from those that ended.

        It is shared: give the same one to all the watches that are to learn from each other. It begins with what is
        usual for runs of language models, and a new group with what all groups have shown.

        Args:
            poll_worth: How many seconds of delay one look may cost. At 0.05, runs that end at random after 10 s on
                average are looked at each second; a fourth of it doubles the looks.
            floor: The shortest pause in seconds.
            ceiling: The longest pause in seconds.
        """
        from asyncruns.cadence.learned import Learned

        require_positive(poll_worth=poll_worth, floor=floor, ceiling=ceiling)
        if floor > ceiling:
            raise ConfigurationError(f"floor must not be more than the ceiling of {ceiling!r} seconds, got {floor!r}")
        return Learned(poll_worth=poll_worth, floor=floor, ceiling=ceiling)

    def pause(self, course: Course) -> float:
        """Give the seconds from this look to the next."""
        raise NotImplementedError

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that a run of this group left this stage when it was older than `after`, and at most `by`, in seconds.

        A cadence that does not learn does nothing.
        """

    def late(self, unseen: float) -> Cadence:
        """Return the cadence for a run that was so many seconds old when its watch began, as the server's clock says.

        All ages that it is told are those by the server's clock. A cadence that does not learn returns itself.
        """
        return self

    def delay(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float | None:
        """Give for how many seconds a run still in the stage at the age `after` is expected to have left it by `by`.

        That is the delay that a look at the age `by` ends. None is that nothing is known of durations.
        """
        return None

    def age_of_delay(self, group: tuple[str, ...], stage: int, *, after: float, delay: float) -> float | None:
        """Give the age at which `delay` gives so much, to about a percent.

        It may be infinite. None is that nothing is known of durations.
        """
        return None

    def chance(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float | None:
        """Give the probability that a run still in the stage at the age `after` has left it by the age `by`.

        None is that nothing is known of durations.
        """
        return None

    def age_at(self, group: tuple[str, ...], stage: int, *, after: float, chance: float) -> float | None:
        """Give the age at which a run still in the stage at the age `after` has left it with that probability.

        It may be infinite. None is that nothing is known of durations.
        """
        return None


class Steps(Cadence, frozen=True, kw_only=True, gc=False):
    """Pauses by the number of looks alone, and by what the server hints.

    Attributes:
        start: The first pause.
        growth: The factor from one pause to the next.
        interval: Where the growth ends.
        hints: Whether a server's hint replaces all of that, is the least pause, or is ignored.
    """

    start: float
    growth: float
    interval: float
    hints: Literal["replace", "least", "ignore"]

    def pause(self, course: Course) -> float:
        """Give the pause after the look number `course.looks`, in seconds.

        A hint is clamped to 0.05 to 60 s: servers send zero, negative ones and hours.
        """
        hint = course.hint
        if hint is not None and self.hints == "replace":
            return min(max(HINT_FLOOR_S, hint), HINT_CEILING_S)
        # Growth is an overflow after days of looks, or at once with an absurd factor.
        try:
            pause = min(self.start * self.growth ** max(course.looks - 1, 0), self.interval)
        except OverflowError:
            pause = self.interval
        if hint is None or self.hints == "ignore" or not hint > pause:
            return pause
        return max(pause, min(hint, HINT_CEILING_S))


def require_positive(**seconds: float) -> None:
    """Raise a ConfigurationError for what is not a positive, finite number of seconds."""
    for name, value in seconds.items():
        if not 0 < value < math.inf:
            raise ConfigurationError(f"{name} must be more than 0 seconds and finite, got {value!r}")
