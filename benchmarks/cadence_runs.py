"""Simulated runs that have only a duration, and cadences that poll them: no I/O, no clock."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from random import Random
from statistics import fmean
from typing import NamedTuple

from asyncruns import Cadence
from asyncruns.cadence.cadence import strategy_of
from asyncruns.cadence.strategy import Course

GROUP = ("asst_1", "a-model")


def lognormal(random: Random, median: float, sigma: float) -> float:
    return median * math.exp(random.gauss(0.0, sigma))


FAMILIES: dict[str, Callable[[Random], float]] = {
    "lognormal, 4 s": lambda random: lognormal(random, 4.0, 0.8),
    "lognormal, 20 s": lambda random: lognormal(random, 20.0, 0.5),
    "two humps": lambda random: lognormal(random, 2.0 if random.random() < 0.6 else 45.0, 0.3),
    "exponential": lambda random: random.expovariate(1 / 10.0),
    "gamma": lambda random: random.gammavariate(9.0, 30.0 / 9.0),
}


class Seen(NamedTuple):
    """The mean number of polls and the mean delay per run, until its end is seen."""

    polls: float
    delay: float

    def cost(self, poll_worth: float) -> float:
        return self.delay + poll_worth * self.polls


def draw(family: str, seed: str, count: int) -> list[float]:
    random = Random(f"{family}, {seed}")
    return [FAMILIES[family](random) for _ in range(count)]


def poll_at(cadence: Cadence, durations: list[float]) -> Seen:
    """Poll runs by a cadence that does not learn from them, so that all are polled at the same ages."""
    strategy = strategy_of(cadence)
    polls: list[float] = []
    age, oldest = 0.0, max(durations)
    while age < oldest:
        age += strategy.pause(Course(polls=len(polls) + 1, age=age, group=GROUP))
        polls.append(age)
    first = [bisect_left(polls, duration) for duration in durations]
    delays = [polls[poll] - duration for poll, duration in zip(first, durations, strict=True)]
    return Seen(fmean(first) + 1, fmean(delays))


def watch(cadence: Cadence, duration: float) -> None:
    """Poll one run until it has ended, and let the cadence learn from these polls."""
    strategy = strategy_of(cadence)
    polls, before, age = 0, 0.0, 0.0
    while age < duration:
        polls, before = polls + 1, age
        age += strategy.pause(Course(polls=polls, age=age, group=GROUP))
    strategy.learn(GROUP, 0, after=before, by=age)


def taught(poll_worth: float, durations: list[float]) -> Cadence:
    """Return a cadence that has learned exact durations."""
    cadence = Cadence.learned(poll_worth)
    for duration in durations:
        strategy_of(cadence).learn(GROUP, 0, after=math.nextafter(duration, 0.0), by=duration)
    return cadence


def with_polls(
    make: Callable[[float], Cadence], polls: float, durations: list[float], knob: float, within: float
) -> tuple[Cadence, float]:
    """Search the value of `knob` at which a cadence takes about `polls` polls per run; a smaller value takes more.

    Args:
        make: Makes a cadence from a value of the knob.
        polls: Polls per run.
        durations: The runs.
        knob: The first guess.
        within: Relative tolerance of the polls, such as 0.01.

    Returns:
        The cadence, and the value of the knob.
    """
    low, high = 0.0, math.inf
    cadence = make(knob)
    for _ in range(30):
        found = poll_at(cadence, durations).polls
        if abs(found / polls - 1.0) <= within:
            break
        low, high = (knob, high) if found > polls else (low, knob)
        further = knob * (found / polls) ** 1.7
        knob = further if low < further < high else (low + high) / 2
        cadence = make(knob)
    return cadence, knob
