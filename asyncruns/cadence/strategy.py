"""The interface of a strategy: it returns the pause to the next poll, and may learn how long runs take.

A strategy does no I/O and reads no clock: ages are passed in, and the caller sleeps.

Exponential backoff suits errors, not waiting: with the same number of polls it sees the end of a run later than a
fixed interval does. So a strategy starts with short pauses, for runs that end at once, and grows to a steady interval;
or it knows how long such runs take.
"""

from __future__ import annotations

from msgspec import Struct


class Course(Struct, frozen=True, kw_only=True, gc=False):
    """How far a run has come: all that a strategy bases a pause on.

    Attributes:
        polls: Number of successful polls since the stage began, or since something else happened at the server; 1
            after the first.
        age: Seconds since the stage began; by the server's clock if that says that it began before the watch.
        hint: The pause in seconds that the server asks for, if any.
        group: Runs with the same group share durations: for example, those of one assistant and model.
        stage: 0 before outputs of tools were submitted, 1 after.
        among: Number of runs that a poll shows, this one included.
    """

    polls: int
    age: float = 0.0
    hint: float | None = None
    group: tuple[str, ...] = ()
    stage: int = 0
    among: int = 1


class Strategy(Struct, frozen=True, kw_only=True, gc=False):
    """Computes the pauses between polls, in seconds; held by a `Cadence`.

    A strategy that does not learn overrides only `pause`.
    """

    def pause(self, course: Course) -> float:
        """Return the seconds from this poll to the next."""
        raise NotImplementedError

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that a run of this group left this stage when it was older than `after`, and at most `by`, in seconds.

        A strategy that does not learn ignores it.
        """

    def late(self, unseen: float) -> Strategy:
        """Return the strategy for a run that was `unseen` seconds old when its watch began, by the server's clock.

        All ages passed to it are by the server's clock. A strategy that does not learn returns itself.
        """
        return self

    def delay(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float | None:
        """Return how many seconds before the age `by` a run seen in the stage at `after` is expected to have left it.

        That is the delay that a poll at the age `by` ends. None if nothing is known about durations.
        """
        return None

    def age_of_delay(self, group: tuple[str, ...], stage: int, *, after: float, delay: float) -> float | None:
        """Return the age `by` at which `delay` reaches a number of seconds, to about 1 %.

        May be infinite. None if nothing is known about durations.
        """
        return None
