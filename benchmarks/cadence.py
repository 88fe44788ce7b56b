"""Compare the delays of the learned cadence with those of a fixed interval and exponential backoff, at equal polls.

    python benchmarks/cadence.py

A simulation: only the pauses of the real cadences, with durations drawn from five families. The learned cadence is
taught 500 exact durations, then polls 4,000 new runs; each figure is the median of five seeds. The delay is the time
from the end of a run to the poll that sees it. Mean delays are compared at equal numbers of polls per run:

    fixed            The learned cadence takes about ten polls per run: its `poll_worth` is fitted on a separate sample.
                     The fixed interval is fitted on the measured runs themselves, so that it takes as many polls.
    backoff          From 0.5 s, by a factor of 1.5, up to 10 s. The learned cadence is fitted to take as many polls.
    scaled backoff   The same, with all pauses multiplied by one factor, so that it takes as many polls as the learned
                     cadence: ten.

Then two cases that a table of durations cannot show: learning only from its own polls, from the first run on; and 500
runs of one family followed by runs of another. There the figure is the cost, that is, the mean delay plus `poll_worth`
times the mean number of polls, divided by the cost of a cadence that was taught 500 exact durations of the family.
Exits with 1 if a goal is missed. Writes `results/cadence.json` and `results/cadence.png` beside this file.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

from cadence_plot import plot
from cadence_runs import FAMILIES, draw, poll_at, taught, watch, with_polls

from asyncruns import Cadence

HERE = Path(__file__).parent
SEEDS = 5
TAUGHT = 500
FRESH = 4_000
POLLS = 10.0
# Tolerances of the polls per run. Ten polls need only be met roughly, as the others are then fitted to the result.
ABOUT, NEAR, NEARER = 0.02, 0.01, 0.001
ONLINE_AT = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
ONLINE_SEEDS = 3
SHIFTS = (
    ("lognormal, 4 s", "gamma"),
    ("gamma", "lognormal, 4 s"),
    ("lognormal, 20 s", "two humps"),
    ("two humps", "lognormal, 20 s"),
)
SHIFT_STEP, SHIFT_RUNS = 5, 200
SHIFT_WITHIN = 1.2
WITHIN_DELAY, WITHIN_COST = "runs until the delay is within 20 %", "runs until the cost is within 20 %"
GOALS = {
    "fixed, geometric mean": 0.78,
    "fixed, worst": 1.05,
    "backoff, geometric mean": 0.4,
    "scaled backoff, geometric mean": 0.4,
}

Figures = dict[str, float]


def backoff(factor: float) -> Cadence:
    return Cadence.backoff(0.5 * factor, growth=1.5, ceiling=10.0 * factor)


def compare(family: str, seed: int, poll_worth: float) -> Figures:
    """Compare at ten polls per run, and at as many as backoff takes; `poll_worth` is a first guess, to save time."""
    known, other, fresh = (draw(family, f"{what} {seed}", FRESH) for what in ("known", "other", "fresh"))
    known = known[:TAUGHT]
    learned, worth = with_polls(lambda worth: taught(worth, known), POLLS, other, poll_worth, ABOUT)
    seen = poll_at(learned, fresh)
    fixed = poll_at(with_polls(Cadence.fixed, seen.polls, fresh, 1.0, NEARER)[0], fresh)
    scaled = poll_at(with_polls(backoff, seen.polls, fresh, 1.0, NEARER)[0], fresh)
    plain = poll_at(backoff(1.0), fresh)
    polls = poll_at(backoff(1.0), other).polls
    guess = worth * (seen.polls / polls) ** 1.7
    as_many, _ = with_polls(lambda worth: taught(worth, known), polls, other, guess, NEAR)
    then = poll_at(as_many, fresh)
    return {
        "poll_worth": worth,
        "polls": seen.polls,
        "delay": seen.delay,
        "fixed polls": fixed.polls,
        "fixed delay": fixed.delay,
        "fixed": seen.delay / fixed.delay,
        "scaled backoff delay": scaled.delay,
        "scaled backoff": seen.delay / scaled.delay,
        "backoff polls": plain.polls,
        "backoff delay": plain.delay,
        "polls beside backoff": then.polls,
        "delay beside backoff": then.delay,
        "backoff": then.delay / plain.delay,
    }


def compare_all() -> dict[str, Figures]:
    figures: dict[str, Figures] = {}
    for family in FAMILIES:
        found: list[Figures] = []
        for seed in range(SEEDS):
            found.append(compare(family, seed, found[-1]["poll_worth"] if found else 0.05))
        figures[family] = {name: statistics.median(one[name] for one in found) for name in found[0]}
        print(f"{family:<16}" + "".join(f" {figures[family][name]:14.3f}" for name in COLUMNS), flush=True)
    return figures


COLUMNS = ("polls", "delay", "fixed", "backoff", "scaled backoff")


def online(family: str, seed: int, poll_worth: float) -> list[float]:
    """Return the cost after each number of runs in ONLINE_AT, relative to a cadence that was taught exact durations."""
    fresh = draw(family, f"fresh {seed}", FRESH)
    reference = poll_at(taught(poll_worth, draw(family, f"known {seed}", TAUGHT)), fresh).cost(poll_worth)
    cadence, found = Cadence.learned(poll_worth), []
    for run, duration in enumerate([*draw(family, f"online {seed}", ONLINE_AT[-1]), 0.0]):
        if run in ONLINE_AT:
            found.append(poll_at(cadence, fresh).cost(poll_worth) / reference)
        watch(cadence, duration)
    print(f"learning from its own polls, {family}, {seed}", flush=True)
    return found


def shift(before: str, after: str, seed: int, poll_worth: float) -> list[tuple[float, float]]:
    """Return delay and cost at each step after a shift, relative to a cadence that was taught the new durations."""
    fresh = draw(after, f"fresh {seed}", FRESH)
    reference = poll_at(taught(poll_worth, draw(after, f"known {seed}", TAUGHT)), fresh)
    cadence, found = Cadence.learned(poll_worth), []
    for duration in draw(before, f"before {seed}", TAUGHT):
        watch(cadence, duration)
    for run, duration in enumerate(draw(after, f"after {seed}", SHIFT_RUNS)):
        if run % SHIFT_STEP == 0:
            seen = poll_at(cadence, fresh)
            found.append((seen.delay / reference.delay, seen.cost(poll_worth) / reference.cost(poll_worth)))
        watch(cadence, duration)
    return found


def median_of(rows: list[list[float]]) -> list[float]:
    return [round(statistics.median(column), 3) for column in zip(*rows, strict=True)]


def adapted_after(ratios: list[float]) -> float:
    """Return the number of runs after which the ratio is within the limit, and still is one step later."""
    good = [ratio <= SHIFT_WITHIN for ratio in ratios]
    return next((n * SHIFT_STEP for n in range(len(good) - 1) if good[n] and good[n + 1]), float("inf"))


def measure_shifts(worths: dict[str, float]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for before, after in SHIFTS:
        rows = [shift(before, after, seed, worths[after]) for seed in range(ONLINE_SEEDS)]
        delays, costs = ([[pair[n] for pair in row] for row in rows] for n in (0, 1))
        found[f"{before} -> {after}"] = {
            WITHIN_DELAY: statistics.median(map(adapted_after, delays)),
            WITHIN_COST: statistics.median(map(adapted_after, costs)),
            "delay": median_of(delays),
            "cost": median_of(costs),
        }
        print(f"{before} -> {after}: within 20 % after {found[f'{before} -> {after}'][WITHIN_COST]} runs", flush=True)
    return found


def report(figures: dict[str, Figures]) -> dict[str, object]:
    worths = {family: found["poll_worth"] for family, found in figures.items()}
    ratios = {name: [found[name] for found in figures.values()] for name in ("fixed", "backoff", "scaled backoff")}
    reached = {f"{name}, geometric mean": statistics.geometric_mean(found) for name, found in ratios.items()}
    reached |= {"fixed, worst": max(ratios["fixed"])}
    by_family = {
        family: median_of([online(family, seed, worths[family]) for seed in range(ONLINE_SEEDS)]) for family in FAMILIES
    }
    return {
        "what": "mean delay of the learned cadence over that of another at as many polls; medians of seeds",
        "seeds": SEEDS,
        "taught": TAUGHT,
        "fresh": FRESH,
        "python": platform.python_version(),
        "version": version("asyncruns"),
        "goals": GOALS,
        "reached": {name: round(reached[name], 3) for name in GOALS},
        "families": {
            family: {name: round(value, 4) for name, value in found.items()} for family, found in figures.items()
        },
        "online": {"runs": ONLINE_AT, "cost": by_family},
        "shift": {"step": SHIFT_STEP, "pairs": measure_shifts(worths)},
    }


def main() -> None:
    print(f"{'':<16}" + "".join(f" {name:>14}" for name in COLUMNS))
    result = report(compare_all())
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "cadence.json").write_text(json.dumps(result, indent=2) + "\n")
    reached = result["reached"]
    assert isinstance(reached, dict)
    missed = [name for name, goal in GOALS.items() if reached[name] > goal]
    for name, goal in GOALS.items():
        print(f"{name:<32} {reached[name]:.3f}, goal {goal}{', missed' if name in missed else ''}")
    plot(result, results / "cadence.png")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
