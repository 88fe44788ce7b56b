"""Durations for learned cadences to learn, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random

from asyncruns.cadence import Cadence
from asyncruns.cadence.cadence import strategy_of
from asyncruns.cadence.learned_pauses import LearnedPauses
from asyncruns.cadence.strategy import Course, Strategy

GROUP = ("asst_1", "a-model")


def learned(poll_worth: float = 0.05, **bounds: float) -> LearnedPauses:
    """Return the strategy of a new learned cadence."""
    strategy = strategy_of(Cadence.learned(poll_worth, **bounds))
    assert isinstance(strategy, LearnedPauses)
    return strategy


def chance(
    strategy: LearnedPauses, group: tuple[str, ...] = GROUP, stage: int = 0, *, after: float, by: float
) -> float:
    """Return the probability that a run still in the stage at the age `after` has left it by the age `by`."""
    return strategy.learned.durations(group, stage).chance(after, by)


def teach(strategy: Strategy, ages: Iterable[float], group: tuple[str, ...] = GROUP, stage: int = 0) -> None:
    """End runs at ages that are known exactly."""
    for age in ages:
        strategy.learn(group, stage, after=math.nextafter(age, 0.0), by=age)


def lognormal(median: float, sigma: float, count: int, seed: int = 1) -> list[float]:
    random = Random(seed)
    return [median * math.exp(random.gauss(0.0, sigma)) for _ in range(count)]


def two_humps(count: int, seed: int = 1) -> list[float]:
    random = Random(seed)
    return [(2.0 if random.random() < 0.6 else 45.0) * math.exp(random.gauss(0.0, 0.3)) for _ in range(count)]


def polls(strategy: Strategy, until: float, group: tuple[str, ...] = GROUP, stage: int = 0) -> list[float]:
    """Return the ages at which a run that does not end is polled."""
    ages: list[float] = []
    age = 0.0
    while age < until:
        age += strategy.pause(Course(polls=len(ages) + 1, age=age, group=group, stage=stage))
        ages.append(age)
    return ages


def delay(strategy: Strategy, ages: list[float]) -> float:
    """Return the mean time from the end of a run to the poll that sees it."""
    seen = polls(strategy, max(ages))
    return sum(next(poll for poll in seen if poll >= age) - age for age in ages) / len(ages)


def watch(strategy: Strategy, ends: Iterable[float]) -> None:
    """Poll runs one after the other, and learn from what the polls show."""
    for end in ends:
        seen = [0.0, *polls(strategy, end)]
        strategy.learn(GROUP, 0, after=seen[-2] if len(seen) > 1 else 0.0, by=seen[-1])
