"""How fast to send, learned from what the server refuses. No I/O, no clock: times are passed in.

Theory of operation. Some refusals (429) depend on our rate: the server has a limit, and we are above it. Others do not:
they come from other tenants, a limit of tokens per minute, or a busy replica. A single refusal does not show which it
is, but the refused share does: if there is a limit, the share falls when the rate falls; otherwise it stays. So every
cut of the rate is a trial::

    STEADY   the rate grows until more is refused than chance and the noise explain (the share refused at any rate)
    TRIAL    the rate is cut to what the server accepted, and stays until enough requests were answered:
               the share fell        the cut stays; if there are still too many refusals, the next trial begins
               it rose               the next trial begins
               it did not fall       the next trial begins; after two of these, the rate is restored to what it was
                                     before the first cut of the series, and the share is the noise for a minute

For example, 50 requests per second are sent, and the server accepts 20. Of 50 responses 30 are refusals (60 %), so the
rate is cut to 50 * (1 - 0.6) = 20. None of the next 12 is refused: the limit is found. If instead the server refuses
60 % at random, 7 of these 12 are refused too, so the rate is cut to 20 * (1 - 7 / 12) = 8, and 7 of the next 12 are
refused again. So the rate is 50 again, and during the next minute a trial begins only when more than 60 %, and more
than chance explains, is refused.

Small shares make small cuts, whose effect is lost in chance. So if the rate was cut by 3 % and again by 3 % for single
refusals, and there are still refusals below 90 % of the rate at which that began, these do not depend on the rate
either.

Near the rate that the server last accepted, the rate grows slowly, since the limit is probably still there; below and
above it grows fast. The more is refused, the sooner a trial ends, so the deepest cuts are the shortest.
"""

from __future__ import annotations

import math
from typing import Final

from asyncruns.fleet.pace_trial import DECISIVE, MOST, NOTHING, PROOF_RATE, WINDOW_S, Series, Trial, by_chance

LEAST_CUT: Final = 0.03  # of the rate
LEAST_CUT_PER_S: Final = 0.3  # low rates are cut by at least this: each time that the rate grows back costs a refusal
MOST_CUT: Final = 0.9  # of the rate; if more is refused, the share no longer shows what the server accepts
LEAST_ASKED_PER_S: Final = 1.0  # the least rate while all is refused, to learn when the server accepts requests again
WINDOW_ANSWERS: Final = 50  # the least for a window; the refused share is that of the last one or two windows
FEWEST_ANSWERS: Final = 50  # the refusals among fewer responses are divided by this: 1 of 10 counts as 2 %
REGAINED: Final = 0.99  # of the rate at which a series began; growing back to it ends the series
NOISE_FOR_S: Final = 60.0  # how long the noise is believed; then it is 0 again
LEAST_BASE_PER_S: Final = 5.0  # a fleet that sends less than its rate is cut from what it sends, but at least from this
# How the rate grows, by the rate that the server accepted. For example, at 20 per second: below 18.4 by 5 per second in
# each second, from 18.4 to 21.7 by 0.2, and above that it doubles every 2 s.
NEAR: Final = 0.92  # the slow region is from this part of the accepted rate to 1 / NEAR of it
NEAR_INCREASE_PER_S: Final = 0.01  # of the accepted rate, within the region
INCREASE_PER_S: Final = 0.25  # of the accepted rate, below it
DOUBLING_S: Final = 2.0  # above it
SLOWEST_PER_S: Final = 0.1  # no cut goes below this rate
FORGOTTEN_AT: Final = 4.0  # without a limit of ours, growing to this multiple of the accepted rate removes the limit


class Pace:
    """The rate that the server accepts, up to a limit of ours.

    Args:
        limit: Requests per second; infinity for no limit of ours.

    Attributes:
        rate: Requests per second that are allowed now; infinity if there is no limit.
        sent: Number of requests sent so far.
        answered: Number of these that were answered, or given up.
        refused: Number of these that were refused with 429.
        noise: The share that is refused at any rate, as far as known.
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
        self._took = limit  # the rate that the server is known to accept
        self._grown_at = -math.inf  # the time up to which the rate includes its growth
        self._series: Series | None = None
        self._trial: Trial | None = None
        self.noise: float = 0.0
        self._noise_until = -math.inf
        self._before = (0, 0)  # responses and refusals in the last window
        self._window = (0, 0)  # responses and refusals in all, when this window began
        self._window_at = -math.inf
        self._second = -math.inf  # when the current second began
        self._of_second = 0  # requests since then
        self._measured = 0.0  # requests per second in the last second
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
        """Note that a request is no longer in flight: it was answered, or given up."""
        self.answered += 1

    def refuse(self, now: float) -> None:
        """Note that the last response was a refusal."""
        self.refused += 1
        trial, series = self._trial, self._series
        # Only requests sent after the cut show its effect. `begins` requests had been sent before it, so the first
        # response that counts has the number `begins` + 1.
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
        """Return the rate at a time; times must not go backwards."""
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
        """Return the number of recent responses, and how many of them were refusals."""
        return (
            self._before[0] + self.answered - self._window[0],
            self._before[1] + self.refused - self._window[1],
        )

    def _is_excess(self, answers: int, refusals: int, now: float) -> bool:
        """Whether more was refused than noise and chance explain."""
        if now >= self._noise_until:
            self.noise = 0.0
        return refusals > by_chance(self.noise * answers)

    # Trials

    def _cut(self, now: float, share: float, to: float = 1.0 - LEAST_CUT) -> None:
        """Cut the rate to what the server accepted, and begin a trial.

        Args:
            now: The time.
            share: The share that was refused.
            to: The rate after the cut is at most this part of the rate before it.
        """
        base = self._base(now)
        # Noise is refused at any rate, so it is left out. With 20 % noise and 60 % refused, the server accepted
        # 0.4 / 0.8 = 50 % of what it did not refuse as noise.
        taken = (1.0 - min(share, MOST_CUT)) / (1.0 - min(self.noise, MOST_CUT, share))
        to = max(min(to, 1.0 - LEAST_CUT_PER_S / base), 1.0 - MOST_CUT)
        if self._series is None:
            self._series = Series(restored=self.rate, took=self._took, top=base, small_top=base, begins=self.sent)
        self._trial = Trial(base=base, share=share, begins=self.sent, since=now)
        # With a larger share, hardly anything was accepted: keep the rate that was known before.
        if share <= MOST:
            self._took = base * taken
        elif self._took == math.inf:
            self._took = base
        self._set(max(base * min(taken, to), LEAST_ASKED_PER_S if share >= NOTHING else 0.0), now)
        if share >= DECISIVE:
            self._series.begin_small(self.rate, self.sent)

    def _base(self, now: float) -> float:
        """Return the rate from which to cut: what is sent if that is less than what is allowed, otherwise the rate."""
        lasts = now - self._second
        sent = max(self._measured, self._of_second / max(lasts, 1.0))
        if self._measured == 0.0 and lasts < 1.0 and self.rate < math.inf:
            return self.rate  # too early to measure what is sent
        # 5 % more than was sent, so that a fleet that sends nearly at its full rate is cut from that rate.
        return min(self.rate, max(1.05 * sent, LEAST_BASE_PER_S))

    def _judge(self, trial: Trial, now: float) -> None:
        """End a trial if it has lasted long enough."""
        answers = self.answered - trial.begins
        share = trial.refused / answers
        rose = trial.rose(answers)
        is_over = trial.is_over(answers, now, rose=rose)
        if trial.share >= NOTHING and trial.refused < answers:
            self._end_trial(now)  # all was refused before, which shows nothing about a limit: grow
            self._series = None
        elif is_over and share >= NOTHING:
            self._end_trial(now)
            self._cut(now, share)
        elif is_over:
            self._end_trial(now)
            if rose:
                # Without the last refusal: the trial ended because of it, so counting it would bias the share.
                self._cut(now, (trial.refused - 1) / (answers - 1))
            elif self._series is not None:
                self._conclude(self._series, trial, share, answers, now)

    def _conclude(self, series: Series, trial: Trial, share: float, answers: int, now: float) -> None:
        """Keep the cut, undo it, or cut again, depending on whether the share fell with the rate."""
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
        elif trial.share >= DECISIVE:  # the limit is found; after a smaller share, the series goes on
            self._series = None

    def _restore(self, series: Series, noise: float, now: float) -> None:
        """Undo all cuts of the series, and take the share that was refused for noise."""
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
        """Raise the rate, by the time that has passed since it was last raised."""
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
