"""Polls that show other runs, too: whatever happens, no run is in flight twice, and none is forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncruns.fleet.budget import Budget
from asyncruns.fleet.schedule import Schedule, Slot


class Run(Slot):
    """A run whose poll shows all runs of its page."""

    __slots__ = ("page", "since")

    def __init__(self, page: list[Run]) -> None:
        super().__init__()
        self.page = page
        page.append(self)
        self.since = 0.0

    def companions(self, now: float) -> Iterable[Run]:
        return [run for run in self.page if run is not self and not run.is_polling]

    def delay(self, now: float) -> float:
        return max(now - self.since, 0.0)

    def delayed_at(self, delay: float) -> float:
        return self.since + delay


def of_pages(*sizes: int, rate: float | None = None, in_flight: int = 64) -> tuple[Schedule[Run], list[list[Run]]]:
    schedule: Schedule[Run] = Schedule(Budget(rate, in_flight))
    pages: list[list[Run]] = [[] for _ in sizes]
    for page, size in zip(pages, sizes, strict=True):
        for _ in range(size):
            schedule.poll(Run(page), 10.0)
    return schedule, pages


def land(schedule: Schedule[Run], leader: Run, *, at: float) -> None:
    """Let an answer come that shows the whole page; each run is to be polled again at a time."""
    schedule.landed(leader, was_poll=True)
    for run in leader.page:
        if run is not leader and run.is_polling:
            schedule.companion_landed(run)
    for run in leader.page:
        schedule.poll(run, at)


def test_one_poll_is_sent_for_each_page() -> None:
    schedule, pages = of_pages(100, 100, 1)
    plan = schedule.plan(10.0, 8)
    assert [run.page for run in plan.polls] == pages
    assert schedule.due == 0
    assert schedule.budget.in_flight == 3
    assert all(run.is_polling for page in pages for run in page)
    assert schedule.plan(10.0, 8).polls == []


def test_more_runs_than_come_due_at_once_are_taken_along() -> None:
    schedule, _ = of_pages(1000)
    assert len(schedule.plan(10.0, 8).polls) == 1
    assert schedule.plan(10.0, 8).polls == []
    assert schedule.plan(1e6, 8).wake_at == math.inf


def test_runs_that_were_not_due_are_taken_along_and_planned_anew() -> None:
    schedule, ((first, second),) = of_pages(2)
    schedule.poll(second, 50.0)
    assert schedule.plan(10.0, 8).polls == [first]
    land(schedule, first, at=20.0)
    assert schedule.plan(15.0, 8).polls == []
    assert schedule.plan(20.0, 8).polls == [first]


def test_permits_and_pages_alternate() -> None:
    schedule, pages = of_pages(50, 50)
    for number in range(3):
        schedule.permit(number)
    plan = schedule.plan(10.0, 8)
    assert len(plan.polls) == len(pages)
    assert plan.permits == [0, 1, 2]


def test_a_poll_planned_while_its_page_is_in_flight_waits_for_the_answer() -> None:
    schedule, ((first, second),) = of_pages(2)
    assert schedule.plan(10.0, 8).polls == [first]
    schedule.poll(second, 11.0)
    assert schedule.plan(12.0, 8).polls == []
    schedule.landed(first, was_poll=True)
    schedule.companion_landed(second)
    assert schedule.plan(12.0, 8).polls == [second]


def test_a_run_that_goes_while_its_page_is_in_flight_is_forgotten() -> None:
    schedule, ((first, second),) = of_pages(2)
    schedule.plan(10.0, 8)
    schedule.remove(second)
    schedule.landed(first, was_poll=True)
    schedule.companion_landed(second)
    assert schedule.plan(1e6, 8).polls == []


@pytest.mark.slow
@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    rate=st.sampled_from([None, 1.0, 20.0]),
    in_flight=st.sampled_from([1, 2, 10]),
    draws=st.lists(st.tuples(st.sampled_from(["plan", "land", "move", "go", "first", "permit"]), st.integers(0, 999))),
)
def test_no_run_is_in_flight_twice_and_none_is_forgotten(
    sizes: list[int], rate: float | None, in_flight: int, draws: list[tuple[str, int]]
) -> None:
    schedule, pages = of_pages(*sizes, rate=rate, in_flight=in_flight)
    runs = [run for page in pages for run in page]
    gone: set[Run] = set()
    out: list[Run] = []
    permitted, now = 0, 10.0
    for what, number in [*draws, *[("plan", 500), ("land", 0)] * 200]:
        run = runs[number % len(runs)]
        match what:
            case "plan":
                now += number / 100
                was_polling = {run for run in runs if run.is_polling}
                plan = schedule.plan(now, 8)
                assert was_polling.isdisjoint(plan.polls)
                assert len(set(plan.polls)) == len(plan.polls)
                out += plan.polls
                permitted += len(plan.permits)
            case "land" if out:
                land(schedule, out.pop(number % len(out)), at=now + number / 100)
                for run in gone:
                    schedule.remove(run)
            case "move" if run not in gone:
                schedule.poll(run, now + number / 100 - 2.0)
            case "go":
                gone.add(run)
                schedule.remove(run)
            case "first":
                schedule.poll_first(run, now)
            case "permit":
                schedule.permit(object())
            case _ if permitted:
                schedule.permit_landed()
                permitted -= 1
            case _:
                pass
        assert schedule.budget.in_flight == len(out) + permitted <= in_flight
        assert schedule.due == len(list(schedule.waiting())) == sum(run.is_due for run in runs)
        assert not any(run.is_due and run.is_polling for run in runs)
    for run in set(runs) - gone:
        assert run.is_due or run.is_polling or run.poll_at < math.inf, "a run was forgotten"
