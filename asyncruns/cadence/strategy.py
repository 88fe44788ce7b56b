"""What a strategy is: it returns the pause to the next poll, and may learn from how long runs took.

Exponential backoff is for errors, not for waiting: at the same number of polls it sees the end of a run later than a
fixed interval does. So a strategy starts short, for runs that end at once, and grows to a steady interval; or it knows
how long such runs take.
"""

from __future__ import annotations

from msgspec import Struct


class Course(Struct, frozen=True, kw_only=True, gc=False):
    """What a strategy may go by: how far a run has come.

    Attributes:
        polls: Good polls since the stage began, counted from 1.
        age: Seconds since the stage began; by the server's clock, where that says that it began before the watch.
        hint: The pause in seconds that the server asks for, if it does.
        group: What has durations of its own: the assistant and the model, say.
        stage: 0 before outputs of tools were submitted, 1 after.
    """

    polls: int
    age: float = 0.0
    hint: float | None = None
    group: tuple[str, ...] = ()
    stage: int = 0


class Strategy(Struct, frozen=True, kw_only=True, gc=False):
    """How long to wait between two polls, in seconds; what a `Cadence` holds.

    One that knows nothing of durations overrides `pause` alone.
    """

    def pause(self, course: Course) -> float:
        """Return the seconds from this poll to the next."""
        raise NotImplementedError

    def learn(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> None:
        """Note that a run of this group left this stage when it was older than `after`, and at most `by`, in seconds.

        A strategy that does not learn does nothing.
        """

    def late(self, unseen: float) -> Strategy:
        """Return the strategy for a run that was so many seconds old when its watch began, as the server's clock says.

        All ages that it is told are those by the server's clock. A strategy that does not learn returns itself.
        """
        return self

    def delay(self, group: tuple[str, ...], stage: int, *, after: float, by: float) -> float | None:
        """Return for how many seconds a run still in the stage at the age `after` is expected to have left it by `by`.

        That is the delay that a poll at the age `by` ends. None is that nothing is known of durations.
        """
        return None

    def age_of_delay(self, group: tuple[str, ...], stage: int, *, after: float, delay: float) -> float | None:
        """Return the age at which `delay` returns so much, to about a percent.

        It may be infinite. None is that nothing is known of durations.
        """
        return None
