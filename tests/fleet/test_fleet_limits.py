"""What the runs of a fleet share: limits, the budget, what the server allows; and what they do not: their errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import anyio
import pytest
from stage import ASSISTANT, ONE_CALL, Stage, Tools, other_tasks

from asyncruns import Cadence, Cancelled, Client, Completed, Fleet, GaveUp, Reason
from asyncruns.http import Request
from asyncruns.lifecycle import RunLifecycle, Tick
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.transport.auth import Auth

THREE_CALLS = tuple(FunctionCall("f", {"n": n}) for n in range(3))

# Calls


@pytest.mark.parametrize(("limit", "most"), [(None, 12), (2, 2), (1, 1)])
async def test_a_limit_of_calls_applies_to_all_runs_together(stage: Stage, limit: int | None, most: int) -> None:
    tools = Tools(takes=5.0)
    runs = await stage.runs(4, rounds=(THREE_CALLS,))
    async with Fleet(stage.client, tools=tools, max_concurrent_calls=limit) as fleet:
        outcomes = await asyncio.gather(*(fleet.watch(run) for run in runs))
    assert {type(outcome) for outcome in outcomes} == {Completed}
    assert (tools.ran, tools.most_running) == (12, most)


async def test_a_toolset_has_a_limit_of_its_own(stage: Stage) -> None:
    tools = Tools(takes=5.0, max_concurrency=3)
    runs = await stage.runs(4, rounds=(THREE_CALLS,))
    async with Fleet(stage.client, tools=tools, max_concurrent_calls=5) as fleet:
        await asyncio.gather(*(fleet.watch(run) for run in runs))
    assert (tools.ran, tools.most_running) == (12, 3)


@pytest.mark.parametrize(("of_fleet", "of_watch", "most"), [(None, 1, 4), (2, 1, 3), (2, 3, 4)])
async def test_a_watch_may_have_a_limit_in_addition_to_that_of_the_fleet(
    stage: Stage, of_fleet: int | None, of_watch: int, most: int
) -> None:
    """The runs have tools of their own, so that each can be counted."""
    limited, other = Tools(takes=5.0), Tools(takes=5.0)
    runs = await stage.runs(2, rounds=(THREE_CALLS,))
    async with Fleet(stage.client, max_concurrent_calls=of_fleet) as fleet:
        first = fleet.watch(runs[0], tools=limited, max_concurrent_calls=of_watch)
        second = fleet.watch(runs[1], tools=other)
        await asyncio.gather(first, second)
    assert limited.most_running == min(of_watch, of_fleet or of_watch)
    assert limited.most_running + other.most_running <= most
    assert limited.ran == other.ran == 3


# Requests


async def test_the_rate_holds_for_all_requests_together(stage: Stage) -> None:
    runs = await stage.runs(40, rounds=(ONE_CALL,), working=5.0)
    stage.server.requests.clear()
    async with Fleet(stage.client, tools=Tools(), requests_per_second=10.0) as fleet:
        for run in runs:
            fleet.watch(run)
    times = [seen.at for seen in stage.server.requests]
    assert stage.count("submit") == 40
    for first, eleventh in zip(times, times[10:], strict=False):
        assert eleventh - first >= 1.0 - 1e-6


async def test_no_more_requests_are_in_flight_than_allowed(stage: Stage) -> None:
    stage.server.inject(Fault(on="poll", delay_after=2.0, times=None))
    runs = await stage.runs(50)
    async with Fleet(stage.client, requests_per_second=None, max_in_flight=7) as fleet:
        for run in runs:
            fleet.watch(run)
    assert stage.transport.most_unanswered <= 7


async def test_submits_and_cancels_pass_polls_that_hang_in_all_places(stage: Stage) -> None:
    stuck = await stage.runs(20, end="never")
    for run in stuck:
        stage.server.inject(Fault(on="poll", run_id=run.id, delay_before=1e6, times=None))
    asking, going_on = await stage.run(rounds=(ONE_CALL,)), await stage.run(end="never")
    async with Fleet(stage.client, requests_per_second=None, max_in_flight=4, on_exit="leave") as fleet:
        needs_caller = fleet.watch(asking)
        calls = (await needs_caller).calls
        to_cancel = fleet.watch(going_on)
        for run in stuck:
            fleet.watch(run, timeout=None)
        await anyio.sleep(5.0)
        assert fleet.statistics().in_flight == 3  # one place is kept
        began = anyio.current_time()
        await needs_caller.submit({calls[0].id: "out"})
        await to_cancel.cancel_run()
        await anyio.sleep(1.0)
        assert stage.times("submit") == pytest.approx([began], abs=0.1)
        assert stage.times("cancel") == pytest.approx([began], abs=0.1)


async def test_submits_and_cancels_pass_the_polls_of_two_hundred_runs_in_a_small_budget(stage: Stage) -> None:
    asking, going_on = await stage.run(rounds=(ONE_CALL,)), await stage.run(end="never", lifetime=1e6)
    many = await stage.runs(200, end="never", lifetime=1e6)
    async with Fleet(stage.client, requests_per_second=1.0, on_exit="leave", timeout=None) as fleet:
        needs_caller = fleet.watch(asking)
        calls = (await needs_caller).calls
        for run in many:
            fleet.watch(run)
        to_cancel = fleet.watch(going_on)
        await anyio.sleep(100.0)
        began = anyio.current_time()
        await to_cancel.cancel_run()
        await needs_caller.submit({calls[0].id: "out"})
        await anyio.sleep(5.0)
        assert stage.times("cancel")[0] - began < 2.5
        assert stage.times("submit")[0] - began < 2.5
        await anyio.sleep(600.0)
        assert all(stage.count("poll", run) for run in many)  # no run is forgotten


# Trouble of one run


class Trouble(Exception):
    """Raised by the caller's own code."""


@pytest.mark.parametrize("where", ["transport", "poll", "read", "submit", "cancel", "tick"])
async def test_an_unexpected_error_finishes_its_own_watch_only(
    stage: Stage, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = await stage.runs(5, rounds=(ONE_CALL,), working=2.0)
    broken = runs[2]

    def is_broken(ref: Any) -> bool:
        return broken.id in ref.ids

    def fail_in_transport(request: Request) -> None:
        if where == "transport" and broken.id in request.path:
            raise Trouble(where)

    stage.transport.before = fail_in_transport
    dialect = stage.client.dialect
    if where in ("poll", "submit", "cancel", "read"):
        method = getattr(dialect, where)

        def fail(first: Any, *others: Any, **options: Any) -> Any:
            if (broken.id in first.path) if where == "read" else is_broken(first):
                raise Trouble(where)
            return method(first, *others, **options)

        monkeypatch.setattr(dialect, where, fail)
    if where == "tick":
        monkeypatch.setattr(RunLifecycle, "receive", broken_by_ticks(RunLifecycle.receive))
    async with Fleet(stage.client, tools=Tools()) as fleet:
        watches = [fleet.watch(run, timeout=5.0 if run is broken and where == "tick" else None) for run in runs]
        if where == "cancel":
            await watches[2].cancel_run()
        outcome = await watches[2]
        assert isinstance(outcome, GaveUp)
        assert outcome.reason is Reason.BROKE
        assert isinstance(outcome.cause, Trouble)
        assert "broke" in caplog.text
        polls = stage.count("poll", broken)
        await anyio.sleep(60.0)
        assert stage.count("poll", broken) == polls
        others = await asyncio.gather(*(watch for watch in watches if watch is not watches[2]))
        assert fleet.statistics().active == 0
        assert fleet.statistics().in_flight == 0
    assert [type(outcome) for outcome in others] == [Completed] * 4
    assert other_tasks() == []


def broken_by_ticks(receive: Any) -> Any:
    def broken(self: Any, event: object) -> Any:
        if isinstance(event, Tick):
            raise Trouble("tick")
        return receive(self, event)

    return broken


class BrokenAuth(Auth):
    """A credential that signs a number of requests, and then raises an unexpected error."""

    def __init__(self, requests: int) -> None:
        self.left = requests

    def ready(self) -> Mapping[str, str]:
        self.left -= 1
        if self.left < 0:
            raise Trouble("the vault is on fire")
        return {"Authorization": "Bearer sk-hidden"}

    def secrets(self) -> tuple[str, ...]:
        return ("sk-hidden",)


async def test_a_broken_credential_finishes_the_watches_that_need_it(emulator: Emulator) -> None:
    emulator.script(Scenario(working=20.0), assistant_id=ASSISTANT)
    async with Client(emulator.base_url) as client, Client(emulator.base_url, auth=BrokenAuth(5)) as broken:
        runs = [await client.threads.create_and_run(assistant_id=ASSISTANT) for _ in range(4)]
        async with Fleet(client) as fleet:
            bad = [fleet.watch(run, client=broken) for run in runs[:2]]
            good = [fleet.watch(run) for run in runs[2:]]
            outcomes = await asyncio.gather(*bad)
            assert [type(outcome) for outcome in await asyncio.gather(*good)] == [Completed] * 2
    for outcome in outcomes:
        assert outcome.reason is Reason.BROKE
        assert isinstance(outcome.cause, Trouble)


async def test_an_unexpected_error_during_a_submit_finishes_the_watch_for_good(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", delay_before=5.0))
    run = await stage.run(rounds=(ONE_CALL,))

    def fail_in_polls(request: Request) -> None:
        if request.method == "GET" and stage.count("submit"):
            raise Trouble

    stage.transport.before = fail_in_polls
    async with Fleet(stage.client, tools=Tools(takes=0.0), cadence=Cadence.fixed(1.0)) as fleet:
        watch = fleet.watch(run)
        outcome = await watch
        assert outcome.reason is Reason.BROKE
        polls = watch.polls
        await anyio.sleep(30.0)
        assert watch.polls == polls
        assert await watch is outcome
        statistics = fleet.statistics()
        assert (statistics.active, statistics.ended, statistics.in_flight) == (0, 1, 0)


async def test_runs_that_wait_long_for_their_turn_are_not_given_up_because_of_occasional_failures(
    stage: Stage,
) -> None:
    runs = await stage.runs(200, working=400.0)
    stage.server.inject(Fault(on="poll", status=503, every=3, times=None))
    async with Fleet(stage.client, requests_per_second=1.0, timeout=None) as fleet:
        watches = [fleet.watch(run) for run in runs]
    # Each is polled about every 200 s, and some fail twice in a row; other runs got responses in between.
    assert {type(watch.outcome) for watch in watches} == {Completed}


async def test_runs_that_wait_long_for_their_turn_are_given_up_if_no_run_gets_a_response(stage: Stage) -> None:
    runs = await stage.runs(200, working=400.0)
    stage.server.inject(Fault(on="poll", status=503, times=None))
    began = anyio.current_time()
    async with Fleet(stage.client, requests_per_second=1.0, timeout=None) as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert {watch.outcome.reason for watch in watches if watch.outcome} == {Reason.UNREACHABLE}
    assert anyio.current_time() - began < 600.0


async def test_after_a_sleep_each_run_has_its_last_poll_however_long_the_budget_takes(stage: Stage) -> None:
    runs = await stage.runs(300, working=100.0)
    hanging = await stage.run(working=100.0)

    def before(request: Request) -> None:
        if hanging.id in request.path and anyio.current_time() > 7000.0:
            stage.server.inject(Fault(on="poll", delay_before=1e6))

    stage.transport.before = before
    loop: Any = asyncio.get_running_loop()
    async with Fleet(stage.client, requests_per_second=10.0) as fleet:
        watches = [fleet.watch(run) for run in [*runs, hanging]]
        await anyio.sleep(60.0)
        loop._virtual.now += 7200.0
        began = anyio.current_time()
    outcomes = [watch.outcome for watch in watches]
    assert {type(outcome) for outcome in outcomes[:-1]} == {Completed}
    assert isinstance(outcomes[-1], GaveUp)
    assert anyio.current_time() - began < 300 / 10.0 + 6.0


# A server that throttles


def rates(times: list[float], seconds: float) -> list[float]:
    """Return how many there were per second, in each slice of some seconds."""
    slices = int((times[-1] - times[0]) / seconds) + 1
    counts = [0] * slices
    for at in times:
        counts[int((at - times[0]) / seconds)] += 1
    return [count / seconds for count in counts]


@pytest.mark.slow
@pytest.mark.parametrize(("per_second", "times", "back_after"), [(50.0, 30, 30.0), (None, 150, 120.0)])
async def test_refusals_slow_the_whole_fleet_and_it_recovers(
    stage: Stage, per_second: float | None, times: int, back_after: float
) -> None:
    runs = await stage.runs(100, end="never", lifetime=1e6)
    async with Fleet(
        stage.client, requests_per_second=per_second, on_exit="leave", cadence=Cadence.fixed(1.0), timeout=None
    ) as fleet:
        for run in runs:
            fleet.watch(run)
        await anyio.sleep(20.0)
        before = fleet.statistics().budget
        stage.server.requests.clear()
        stage.server.inject(Fault(on="poll", status=429, times=times))
        await anyio.sleep(2.0)
        slowed = fleet.statistics()
        await anyio.sleep(back_after)
        after = fleet.statistics()
    assert before == per_second
    assert slowed.budget is not None
    assert slowed.budget < 0.75 * (per_second or 100.0)
    assert slowed.throttled > 0.0
    assert after.budget == per_second
    sent = rates(stage.times("poll"), 5.0)
    # Per second; each of the 100 runs is polled once a second, if the budget allows it.
    assert sent[-2] == pytest.approx(per_second or 100.0, rel=0.15)


async def test_a_retry_after_holds_back_its_own_run_and_no_other(stage: Stage) -> None:
    runs = await stage.runs(50, end="never")
    async with Fleet(stage.client, on_exit="leave", cadence=Cadence.fixed(1.0)) as fleet:
        for run in runs:
            fleet.watch(run)
        await anyio.sleep(10.0)
        stage.server.requests.clear()
        stage.server.inject(Fault(on="poll", status=429, headers={"Retry-After": "7"}))
        await anyio.sleep(30.0)
    (refused,) = [seen for seen in stage.server.requests if seen.status == 429]
    later = [seen.at for seen in stage.server.requests if seen.run_id == refused.run_id and seen.at > refused.at]
    assert later[0] - refused.at >= 7.0
    assert max(second - first for first, second in pairwise(stage.times("poll"))) < 0.5


async def test_a_retry_after_of_many_in_a_row_holds_back_every_run(stage: Stage) -> None:
    runs = await stage.runs(100, end="never")
    async with Fleet(stage.client, on_exit="leave", cadence=Cadence.fixed(1.0)) as fleet:
        for run in runs:
            fleet.watch(run)
        await anyio.sleep(10.0)
        stage.server.requests.clear()
        stage.server.inject(Fault(on="poll", status=429, headers={"Retry-After": "7"}, times=22))
        await anyio.sleep(30.0)
    assert max(second - first for first, second in pairwise(stage.times("poll"))) >= 6.9


@pytest.mark.slow
@pytest.mark.parametrize("retry_after", ["0", "1", "5"])
@pytest.mark.parametrize("every", [14, 7, 3])
async def test_refusals_at_any_rate_keep_no_watch_from_its_outcome(stage: Stage, every: int, retry_after: str) -> None:
    runs = await stage.runs(100, working=30.0)
    stage.server.inject(Fault(on="poll", status=429, headers={"Retry-After": retry_after}, every=every, times=None))
    began = anyio.current_time()
    async with Fleet(stage.client) as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert {type(watch.outcome) for watch in watches} == {Completed}
    assert anyio.current_time() - began < 90.0


async def test_the_default_wait_lasts_until_the_budget_allows_a_poll(stage: Stage) -> None:
    runs = await stage.runs(100, working=5.0, lifetime=20.0)
    async with Fleet(stage.client, requests_per_second=1.0) as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert {type(watch.outcome) for watch in watches} == {Completed}


async def test_a_timeout_of_the_caller_does_not_wait_for_the_budget(stage: Stage) -> None:
    runs = await stage.runs(100, working=5.0)
    began = anyio.current_time()
    async with Fleet(stage.client, requests_per_second=1.0, timeout=20.0) as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert {getattr(watch.outcome, "reason", None) for watch in watches} == {None, Reason.TIMEOUT}
    assert anyio.current_time() - began < 30.0


async def test_a_server_that_throttles_other_runs_counts_as_up(stage: Stage) -> None:
    """Polls that the budget holds back do not count as an outage, although the only responses are refusals."""
    runs = await stage.runs(200, end="never", lifetime=1e6)
    for run in runs[1:]:
        stage.server.inject(Fault(on="poll", run_id=run.id, status=429, times=None))
    stage.server.inject(Fault(on="poll", run_id=runs[0].id, status=503, times=None))
    async with Fleet(stage.client, requests_per_second=1.0, timeout=None, on_exit="leave") as fleet:
        watches = [fleet.watch(run) for run in runs]
        await anyio.sleep(1000.0)
        assert watches[0].outcome is None


async def test_the_fleet_slows_down_to_what_the_server_says_is_left(stage: Stage) -> None:
    headers = {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "20",
        "x-ratelimit-reset-requests": "10s",
    }
    runs = await stage.runs(50, end="never")
    async with Fleet(stage.client, on_exit="leave", cadence=Cadence.fixed(1.0)) as fleet:
        for run in runs:
            fleet.watch(run)
        await anyio.sleep(5.0)
        stage.server.requests.clear()
        stage.server.inject(Fault(on="poll", headers=headers))
        await anyio.sleep(1.0)
        assert fleet.statistics().budget == pytest.approx(2.0, abs=3.0)
        await anyio.sleep(60.0)
        assert fleet.statistics().budget == 100.0
    times = stage.times("poll")
    assert max(later - earlier for earlier, later in pairwise(times)) < 2.0


async def test_cancels_are_sent_while_the_server_throttles(stage: Stage) -> None:
    run = await stage.run(end="never")
    stage.server.inject(Fault(on="cancel", status=429, times=2))
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(run)
        await watch.cancel_run()
        assert isinstance(await watch, Cancelled)
    assert stage.count("cancel") == 3
