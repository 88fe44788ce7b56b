"""How fast to send, learned from what the server refuses. Sans-I/O; times are handed in.

Theory of operation. Some refusals (429) depend on our rate: the server has a limit and we are above it. Others do not:
other tenants, tokens per minute, a busy replica. One refusal does not say which it is, but the refused share does:
under a limit it falls when the rate falls, and otherwise it stays. So every cut is a trial::

    STEADY   the rate grows, until more is refused than the share that is known to be refused at any rate (the noise)
    TRIAL    the rate is cut to what the server took, and stays there until enough requests were answered:
               the share fell        the cut stays; if there are still refusals, the next trial begins
               it rose               the next trial begins
               it did not fall       the next trial begins; after two of these, the rate is restored to what it was
                                     before the first cut of the series, and that share is the noise for a minute

With numbers: 50 requests per second are sent and the server takes 20. Of 50 answers 30 are refused (60 %), so the rate
is cut to 50 * (1 - 0.6) = 20. Of the next 12 answers none is refused: the limit was found. If instead the server
refuses 60 % at random, 7 of those 12 are refused too, and of the 12 after these at a rate of 8, again 7. So the rate is
50 again, and within the next minute only more than 60 %, and what chance explains, begins another trial.

Small shares make small cuts, which chance may hide. So where 3 % and then 3 % again are cut for single refusals, and
there still are refusals at less than 90 % of the rate at which that began, these do not depend on the rate either.

Around the rate that the server took, the rate grows slowly, since the limit is likely still there; below and above that
region it grows fast. A trial ends sooner the more is refused, so the cuts that cost most last shortest.
"""

from __future__ import annotations

import math
from typing import Final

from asyncruns.fleet.trial import DECISIVE, MOST, NOTHING, PROOF_RATE, WINDOW_S, Series, Trial, by_chance

LEAST_CUT: Final = 0.03  # of the rate
LEAST_CUT_PER_S: Final = 0.3  # a low rate is cut by this much at least: each time that it grows back costs a refusal
MOST_CUT: Final = 0.9  # of the rate; where more is refused, the share no longer tells what the server takes
LEAST_ASKED_PER_S: Final = 1.0  # and still asked for, to learn when the server takes requests again
WINDOW_ANSWERS: Final = 50  # at least; the refused share is that of the last one or two windows
FEWEST_ANSWERS: Final = 50  # the share of fewer is taken as if there were so many
REGAINED: Final = 0.99  # of the rate at which a series began, ends it
NOISE_FOR_S: Final = 60.0
LEAST_BASE_PER_S: Final = 5.0  # a fleet that sends less than its rate is cut from what it sends, but from this at least
NEAR: Final = 0.92  # of the rate that the server took, and as much above it
NEAR_INCREASE_PER_S: Final = 0.01  # of the rate that the server took
INCREASE_PER_S: Final = 0.25  # of that rate, below that region
DOUBLING_S: Final = 2.0  # above it
SLOWEST_PER_S: Final = 0.1
FORGOTTEN_AT: Final = 4.0  # where no limit was given, there is none again at so many times what the server took


class Pace:
    """The rate that the server takes, at most a limit of ours.

    Args:
        limit: Requests per second; infinity for no limit of ours.

    Attributes:
        rate: Requests per second that are allowed now; infinity for no limit.
        sent: How many requests were sent.
        answered: How many of them were answered, or given up.
        refused: How many were refused for their number.
        noise: The share that is refused whatever the rate, as far as known.
    """

    __slots__ = (
        "_before",
        "_grown_at",
        "_limit",
        "_measured",
        "_noise_until",
        "_of_second",
        "_second",
        "_series",
        "_took",
        "_trial",
        "_window",
        "_window_at",
        "answered",
        "noise",
        "rate",
        "refused",
        "sent",
    )

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.rate: float = limit
        self._took = limit  # the rate that the server is known to take
        self._grown_at = -math.inf
        self._series: Series | None = None
        self._trial: Trial | None = None
        self.noise: float = 0.0
        self._noise_until = -math.inf
        self._before = (0, 0)  # answers and refusals of the window before this one
        self._window = (0, 0)  # answers and refusals until this window began
        self._window_at = -math.inf
        self._second = -math.inf  # since when `_of_second` counts
        self._of_second = 0
        self._measured = 0.0  # requests in the second before
        self.sent: int = 0
        self.answered: int = 0
        self.refused: int = 0

    # What happens

    def send(self, now: float) -> None:
        """Note that a request is sent."""
        if now - self._second >= 1.0:
            self._measured = self._of_second / (now - self._second) if self._second > -math.inf else 0.0
            self._second, self._of_second = now, 0
        self.sent += 1
        self._of_second += 1

    def answer(self) -> None:
        """Note that a request was answered, or given up."""
        self.answered += 1

    def refuse(self, now: float) -> None:
        """Note that the last answer was a refusal."""
        self.refused += 1
        trial, series = self._trial, self._series
        if series is not None and self.answered > series.begins:
            series.refuse()
        if trial is None:
            answers, refusals = self._recent(now)
            if self._is_excess(answers, refusals, now):
                self._cut(now, refusals / max(answers, FEWEST_ANSWERS))
        elif self.answered > trial.begins:
            trial.refuse()
            self._judge(trial, now)

    def at(self, now: float) -> float:
        """Return the rate at a time that is not before the last one."""
        trial = self._trial
        if trial is not None:
            if self.answered > trial.begins:
                self._judge(trial, now)
        else:
            if now - self._window_at >= WINDOW_S and self.answered - self._window[0] >= WINDOW_ANSWERS:
                self._before = self.answered - self._window[0], self.refused - self._window[1]
                self._begin_window(now)
            self._grow(now)
        return self.rate

    # The share

    def _begin_window(self, now: float) -> None:
        self._window = self.answered, self.refused
        self._window_at = now

    def _recent(self, now: float) -> tuple[int, int]:
        """Return how many answers there were of late, and how many of them were refusals."""
        return (
            self._before[0] + self.answered - self._window[0],
            self._before[1] + self.refused - self._window[1],
        )

    def _is_excess(self, answers: int, refusals: int, now: float) -> bool:
        """Whether more was refused than the noise and chance explain."""
        if now >= self._noise_until:
            self.noise = 0.0
        return refusals > by_chance(self.noise * answers)

    # Trials

    def _cut(self, now: float, share: float, to: float = 1.0 - LEAST_CUT) -> None:
        """Cut the rate to what the server took, and see what comes of it."""
        base = self._base(now)
        # What is noise is refused at any rate: the server took the others.
        taken = (1.0 - min(share, MOST_CUT)) / (1.0 - min(self.noise, MOST_CUT, share))
        to = max(min(to, 1.0 - LEAST_CUT_PER_S / base), 1.0 - MOST_CUT)
        if self._series is None:
            self._series = Series(restored=self.rate, took=self._took, top=base, small_top=base, begins=self.sent)
        self._trial = Trial(base=base, share=share, begins=self.sent, since=now)
        if share <= MOST:
            self._took = base * taken
        elif self._took == math.inf:
            self._took = base
        self._set(max(base * min(taken, to), LEAST_ASKED_PER_S if share >= NOTHING else 0.0), now)
        if share >= DECISIVE:
            self._series.begin_small(self.rate, self.sent)

    def _base(self, now: float) -> float:
        """Return the rate that a cut begins from: what is sent, where that is less than what is allowed."""
        lasts = now - self._second
        sent = max(self._measured, self._of_second / max(lasts, 1.0))
        if self._measured == 0.0 and lasts < 1.0 and self.rate < math.inf:
            return self.rate  # we have just begun
        return min(self.rate, max(1.05 * sent, LEAST_BASE_PER_S))

    def _judge(self, trial: Trial, now: float) -> None:
        """End a trial, if it has lasted for long enough."""
        answers = self.answered - trial.begins
        share = trial.refused / answers
        rose = trial.rose(answers)
        is_over = trial.is_over(answers, now, rose=rose)
        if trial.share >= NOTHING and trial.refused < answers:
            self._end_trial(now)  # all was refused before, so that says nothing of the rate: grow
            self._series = None
        elif is_over and share >= NOTHING:
            self._end_trial(now)
            self._cut(now, share)
        elif is_over:
            self._end_trial(now)
            if rose:
                self._cut(now, (trial.refused - 1) / (answers - 1))  # the last one counts for less: it ended the count
            elif self._series is not None:
                self._conclude(self._series, trial, share, answers, now)

    def _conclude(self, series: Series, trial: Trial, share: float, answers: int, now: float) -> None:
        """Keep the cut, undo it, or cut again, by whether the share fell with the rate."""
        fell = trial.fell(share, self.rate, self.noise)
        series.end_trial(fell=fell)
        if series.is_same(self.rate) and not fell:
            self._restore(series, share, now)
        elif trial.refused and series.is_same_small(self.rate, trial.share):
            self._restore(series, series.refused / (self.answered - series.begins), now)
        elif not fell:
            self._cut(now, share, PROOF_RATE)
        elif self._is_excess(answers, trial.refused, now):
            self._cut(now, share)
        elif trial.share >= DECISIVE:
            self._series = None

    def _restore(self, series: Series, noise: float, now: float) -> None:
        self._took = series.took
        self._set(series.restored, now)
        self.noise, self._noise_until = noise, now + NOISE_FOR_S
        self._series = None

    def _end_trial(self, now: float) -> None:
        self._trial = None
        self._before = 0, 0
        self._begin_window(now)
        self._grown_at = now

    # Growth

    def _set(self, rate: float, now: float) -> None:
        self.rate = min(max(rate, SLOWEST_PER_S), self._limit)
        self._grown_at = now

    def _grow(self, now: float) -> None:
        if self.rate >= self._limit or now <= self._grown_at:
            return
        if self.rate < self._took * NEAR:
            growth = self._took * INCREASE_PER_S
        elif self.rate <= self._took / NEAR:
            growth = self._took * NEAR_INCREASE_PER_S
        else:
            growth = self.rate * math.log(2.0) / DOUBLING_S
        self._set(self.rate + growth * (now - self._grown_at), now)
        if self._series is not None and self.rate >= self._series.top * REGAINED:
            self._series = None
        if self._limit == math.inf and self.rate >= self._took * FORGOTTEN_AT:
            self.rate = math.inf
        if self.rate >= self._limit:
            self._took = self._limit
