"""What learned cadences are taught in these tests."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random

from asyncruns.cadence import Cadence, Course

GROUP = ("asst_1", "a-model")


def teach(cadence: Cadence, ages: Iterable[float], group: tuple[str, ...] = GROUP, stage: int = 0) -> None:
    """Let runs end at exact ages."""
    for age in ages:
        cadence.learn(group, stage, after=math.nextafter(age, 0.0), by=age)


def lognormal(median: float, sigma: float, count: int, seed: int = 1) -> list[float]:
    random = Random(seed)
    return [median * math.exp(random.gauss(0.0, sigma)) for _ in range(count)]


def two_humps(count: int, seed: int = 1) -> list[float]:
    random = Random(seed)
    return [(2.0 if random.random() < 0.6 else 45.0) * math.exp(random.gauss(0.0, 0.3)) for _ in range(count)]


def looks(cadence: Cadence, until: float, group: tuple[str, ...] = GROUP, stage: int = 0) -> list[float]:
    """Give the ages at which a run is looked at that does not end."""
    ages: list[float] = []
    age = 0.0
    while age < until:
        age += cadence.pause(Course(looks=len(ages) + 1, age=age, group=group, stage=stage))
        ages.append(age)
    return ages


def delay(cadence: Cadence, ages: list[float]) -> float:
    """Give the mean time from the end of a run to the look that sees it."""
    seen = looks(cadence, max(ages))
    return sum(next(look for look in seen if look >= age) - age for age in ages) / len(ages)


def watch(cadence: Cadence, ends: Iterable[float]) -> None:
    """Look at runs one after the other, and learn what is seen of them."""
    for end in ends:
        seen = [0.0, *looks(cadence, end)]
        cadence.learn(GROUP, 0, after=seen[-2] if len(seen) > 1 else 0.0, by=seen[-1])
