"""What a fleet promises in addition to the promises of a single watch; `tests/watcher` tests those for fleets, too."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from msgspec.structs import replace
from stage import ASSISTANT, MODEL, ONE_CALL, Stage, Tools

from asyncruns import (
    BearerAuth,
    Cadence,
    Cancelled,
    Client,
    Completed,
    Ended,
    Fleet,
    GaveUp,
    InvalidRequestError,
    NeedsCaller,
    OutputsSubmitted,
    Reason,
    TokenUsage,
)
from asyncruns.http import Request
from asyncruns.testing import Emulator, Fault, Scenario
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import ModelResponse, Run

# The same run watched twice


async def test_a_run_that_is_watched_twice_is_polled_once_and_its_tools_are_those_of_the_first(stage: Stage) -> None:
    first_tools, second_tools = Tools(), Tools()
    run = await stage.run(rounds=(ONE_CALL,))
    events: list[list[Any]] = [[], []]
    ends: list[list[AnyOutcome[Any]]] = [[], []]

    async def read(watch: Any, seen: list[Any]) -> None:
        seen.extend([event async for event in watch])

    async with Fleet(stage.client, requests_per_second=None) as fleet:
        first = fleet.watch(run, tools=first_tools, on_terminal=ends[0].append)
        second = fleet.watch(run, tools=second_tools, on_terminal=ends[1].append)
        async with asyncio.TaskGroup() as group:
            for watch, seen in zip((first, second), events, strict=True):
                group.create_task(read(watch, seen))
        assert await first is await second
        assert first.polls == second.polls == stage.count("poll")
    assert (first_tools.ran, second_tools.ran) == (1, 0)
    assert stage.count("submit") == 1
    assert ends[0] == ends[1] == [first.outcome]
    for seen in events:
        assert isinstance(seen[-1], Ended)
        assert sum(isinstance(event, OutputsSubmitted) for event in seen) == 1


async def test_a_watch_that_is_cancelled_leaves_the_others_of_the_run(stage: Stage) -> None:
    tools = Tools(takes=10.0)
    run = await stage.run(rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=tools) as fleet:
        first, second = fleet.watch(run), fleet.watch(run)
        waiting = asyncio.create_task(first.wait())
        await anyio.sleep(5.0)
        assert first.cancel()
        assert not first.cancel()
        with pytest.raises(asyncio.CancelledError, match="was cancelled"):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(InvalidRequestError, match="cancelled"):
            await first.submit({"call_0": "out"})
        assert not first.is_active
        assert isinstance(await second, Completed)
    assert (tools.ran, tools.stopped) == (1, 0)


async def test_the_last_watch_of_a_run_that_is_cancelled_stops_its_tools_and_polls(stage: Stage) -> None:
    tools = Tools(takes=100.0)
    run = await stage.run(rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=tools) as fleet:
        first, second = fleet.watch(run), fleet.watch(run)
        await anyio.sleep(5.0)
        first.cancel()
        second.cancel()
        polls = stage.count("poll")
        await anyio.sleep(30.0)
        assert (tools.stopped, stage.count("poll"), stage.count("submit")) == (1, polls, 0)
        assert stage.count("cancel") == 0
        assert fleet.statistics().active == 0
    assert first.outcome is second.outcome is None


@pytest.mark.parametrize("wire", ["run", "response"])
async def test_a_pending_submit_of_a_cancelled_watch_is_completed_and_nothing_is_sent_after_it(
    stage: Stage, wire: str
) -> None:
    """Its response asks for a poll, or starts another response to poll; without a watch, neither is polled."""
    stage.server.inject(Fault(on="submit", delay_before=5.0))
    tools = Tools(takes=0.0)
    scenario: dict[str, Any] = {"rounds": (ONE_CALL, ONE_CALL)}
    run: Any = await (stage.run(**scenario) if wire == "run" else stage.response(**scenario))
    async with Fleet(stage.client, tools=tools, requests_per_second=None) as fleet:
        watch = fleet.watch(run)
        while not stage.count("submit"):
            await anyio.sleep(0.1)
        watch.cancel()
        polls = stage.count("poll")
        await anyio.sleep(60.0)
        assert (stage.count("poll"), stage.count("submit"), tools.ran) == (polls, 1, 1)
        statistics = fleet.statistics()
        assert (statistics.active, statistics.in_flight, statistics.ended) == (0, 0, 0)
        assert isinstance(await fleet.watch(watch.ref), Completed)  # may be watched again, from its current state
    assert stage.count("submit") == 2


async def test_a_watch_that_finished_before_its_submit_was_answered_is_not_joined(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", delay_after=10.0))
    response = await stage.response(rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=Tools(takes=0.0), requests_per_second=None) as fleet:
        given_up = await fleet.watch(response, timeout=3.0)
        assert isinstance(given_up, GaveUp)
        await anyio.sleep(30.0)
        (begun,) = {response.id, *stage.server.responses} - {response.id}
        outcome = await fleet.watch(await stage.client.responses.retrieve(begun))
    assert isinstance(outcome, Completed)
    assert fleet.statistics().active == 0


# Dialects


async def test_runs_and_responses_are_watched_through_one_client(stage: Stage) -> None:
    tools = Tools()
    run, response = await stage.run(rounds=(ONE_CALL,)), await stage.response(rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=tools) as fleet:
        outcomes = await asyncio.gather(fleet.watch(run), fleet.watch(response))
        assert isinstance(await fleet.watch(outcomes[1].ref), Completed)
    assert [type(outcome) for outcome in outcomes] == [Completed, Completed]
    assert [await outcome.text() for outcome in outcomes] == ["f: out 1"] * 2
    assert [len(outcome.refs) for outcome in outcomes] == [1, 2]
    assert tools.ran == 2


async def test_a_client_that_is_passed_to_a_watch_may_be_for_any_kind_of_run(stage: Stage) -> None:
    run, response = await stage.run(), await stage.response()
    async with Fleet(stage.client) as fleet:
        by_ids = fleet.watch(thread_id=run.thread_id, run_id=run.id, client=stage.client)
        by_id = fleet.watch(response_id=response.id, client=stage.client)
        outcomes = await asyncio.gather(by_ids, by_id)
        assert isinstance(await fleet.watch(response, client=stage.client), Completed)
    assert [type(outcome) for outcome in outcomes] == [Completed, Completed]


async def test_a_response_may_be_continued_with_parameters_that_it_does_not_echo(stage: Stage) -> None:
    response = await stage.response(rounds=(ONE_CALL,))
    connection = stage.client.responses.continued({"model": MODEL, "max_output_tokens": 77})
    async with Fleet(stage.client, tools=Tools()) as fleet:
        assert isinstance(await fleet.watch(response, client=connection), Completed)
    (submit,) = [seen for seen in stage.server.requests if seen.operation == "submit"]
    assert b'"max_output_tokens":77' in submit.body.replace(b" ", b"")


# The caller's part


async def test_after_needs_caller_the_caller_submits_and_gets_a_second_outcome(stage: Stage) -> None:
    run = await stage.run(rounds=(ONE_CALL,))
    seen: list[AnyOutcome[Any]] = []
    async with Fleet(stage.client, on_outcome=seen.append) as fleet:
        watch = fleet.watch(run)
        outcome = await watch
        assert isinstance(outcome, NeedsCaller)
        assert not watch.is_active
        await watch.submit({outcome.calls[0].id: "out"})
        assert watch.is_active
        assert watch.outcome is None
        assert fleet.statistics().ended == 0
        assert isinstance(await watch, Completed)
    assert [type(outcome) for outcome in seen] == [NeedsCaller, Completed]
    assert fleet.statistics().ended == 1


async def test_outputs_for_some_of_the_calls_keep_the_count_of_runs_right(stage: Stage) -> None:
    run, other = await stage.run(rounds=(ONE_CALL * 2,)), await stage.run(working=60.0)
    async with Fleet(stage.client) as fleet:
        watch, long = fleet.watch(run), fleet.watch(other)
        outcome = await watch
        assert isinstance(outcome, NeedsCaller)
        await watch.submit({outcome.calls[0].id: "out"})
        outcome = await watch
        assert isinstance(outcome, NeedsCaller)
        assert len(outcome.calls) == 1
        assert (fleet.statistics().active, fleet.statistics().ended) == (1, 1)
    assert isinstance(long.outcome, Completed)


async def test_a_run_can_be_cancelled_even_after_it_was_given_up(stage: Stage) -> None:
    runs = await stage.runs(2, end="never")
    async with Fleet(stage.client) as fleet:
        watch = fleet.watch(runs[0])
        await watch.cancel_run()
        assert isinstance(await watch, Cancelled)
        await watch.cancel_run()
        watch = fleet.watch(runs[1], timeout=5.0)
        assert (await watch).reason is Reason.TIMEOUT
        await watch.cancel_run()
        outcome = await watch
    assert isinstance(outcome, Cancelled)
    assert outcome.cancel_requested
    assert stage.count("cancel") == 2
    with pytest.raises(InvalidRequestError, match="through the client"):
        await watch.submit({"call_0": "out"})


async def test_a_watch_may_have_other_options_than_its_fleet(stage: Stage) -> None:
    runs = await stage.runs(2, end="never")
    async with Fleet(stage.client, timeout=5.0) as fleet:
        first, second = fleet.watch(runs[0]), fleet.watch(thread_id=runs[1].thread_id, run_id=runs[1].id, timeout=9.0)
        assert (await first).elapsed == pytest.approx(5.0, abs=0.1)
        assert (await second).elapsed == pytest.approx(9.0, abs=0.1)


async def test_a_watch_without_a_cadence_uses_that_of_its_fleet(stage: Stage) -> None:
    runs = await stage.runs(2, end="never")
    async with Fleet(stage.client, cadence=Cadence.fixed(7.0), on_exit="leave") as fleet:
        fleet.watch(runs[0], cadence=None)
        fleet.watch(runs[1])
        await anyio.sleep(60.0)
    assert stage.count("poll", runs[0]) == stage.count("poll", runs[1]) < 10


# Unexpected errors


async def test_a_run_that_cannot_be_read_is_refused_and_not_watched(stage: Stage) -> None:
    run: Any = replace(await stage.run(), last_error=3)
    async with Fleet(stage.client) as fleet:
        with pytest.raises(AttributeError):
            fleet.watch(run)
        assert fleet.statistics().active == 0


async def test_a_transport_that_raises_a_foreign_cancellation_breaks_one_watch_only(stage: Stage) -> None:
    runs = await stage.runs(3, working=30.0)

    def before(request: Request) -> None:
        if runs[0].id in request.path:
            raise asyncio.CancelledError

    stage.transport.before = before
    async with Fleet(stage.client) as fleet:
        watches = [fleet.watch(run) for run in runs]
    assert [type(watch.outcome) for watch in watches] == [GaveUp, Completed, Completed]
    assert watches[0].outcome is not None
    assert watches[0].outcome.reason is Reason.BROKE


async def test_a_fleet_with_a_task_cancelled_from_outside_raises(stage: Stage) -> None:
    runs = await stage.runs(3, working=30.0)
    watches: list[Any] = []
    with pytest.raises(RuntimeError, match="cancelled from outside"):
        async with Fleet(stage.client) as fleet:
            watches += [fleet.watch(run) for run in runs]
            await anyio.sleep(5.0)
            next(task for task in asyncio.all_tasks() if "_work" in task.get_name()).cancel()
    assert [watch.outcome for watch in watches] == [None] * 3


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"requests_per_second": 0}, "more than 0, or None"),
        ({"requests_per_second": float("inf")}, "more than 0, or None"),
        ({"requests_per_second": True}, "more than 0, or None"),
        ({"requests_per_second": "50"}, "more than 0, or None"),
        ({"max_in_flight": 0}, "1 or more"),
        ({"max_in_flight": 2.5}, "1 or more"),
        ({"on_exit": "stop"}, '"drain", "leave" or "cancel"'),
        ({"tools": [print]}, "Toolset"),
        ({"timeout": "5"}, "timeout must be 0 seconds"),
        ({"cadence": 2.0}, "Cadence.fixed"),
        ({"max_concurrent_calls": 0}, "1 or more"),
        ({"on_finish": print}, "no option 'on_finish'.*on_terminal"),
    ],
)
async def test_an_invalid_option_is_refused_and_the_error_says_what_is_allowed(
    stage: Stage, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Fleet(stage.client, **options)


async def test_a_watch_with_invalid_arguments_is_refused_and_not_started(stage: Stage) -> None:
    run = await stage.run()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"run": run, "on_exit": "cancel"}, "no option 'on_exit'"),
        ({"run": run, "timeout": -1}, "timeout"),
        ({"run": 7}, "a run, a response, a batch, a stream or a RunRef, or thread_id and run_id; got int"),
        ({"run": stage.client}, "got Client"),
        ({}, "thread_id"),
        ({"run_id": run.id}, "thread_id"),
    ]
    async with Fleet(stage.client) as fleet:
        for arguments, message in wrong:
            with pytest.raises(InvalidRequestError, match=message):
                fleet.watch(**arguments)
        with pytest.raises(InvalidRequestError, match="at_most"):
            await fleet.add_many([run], at_most=0)
        assert fleet.statistics().active == 0


async def test_a_fleet_watches_while_it_is_entered_and_says_so(stage: Stage) -> None:
    run = await stage.run()
    fleet = Fleet(stage.client)
    for early in (lambda: fleet.watch(run), lambda: anext(aiter(fleet)), lambda: fleet.add_many([run])):
        with pytest.raises(InvalidRequestError, match="async with Fleet"):
            await early()
    async with fleet:
        pass
    with pytest.raises(InvalidRequestError, match="was left; make a new one"):
        fleet.watch(run)
    with pytest.raises(InvalidRequestError, match="was left; make a new one"):
        await fleet.add_many([run])
    with pytest.raises(InvalidRequestError, match="entered once"):
        await fleet.__aenter__()


# Statistics and repr


async def test_statistics_add_up(stage: Stage) -> None:
    runs = [*await stage.runs(3), *await stage.runs(2, end="never")]
    async with Fleet(stage.client, on_exit="leave", requests_per_second=20.0) as fleet:
        for run in runs:
            fleet.watch(run)
        assert fleet.statistics().active == 5
        assert fleet.statistics().budget == 20.0
        await anyio.sleep(30.0)
        statistics = fleet.statistics()
        assert (statistics.active, statistics.ended) == (2, 3)
        assert statistics.polls == stage.count("poll")
        assert statistics.polls_per_run == sum(stage.count("poll", run) for run in runs[:3]) / 3
        assert (statistics.in_flight, statistics.due, statistics.lag, statistics.throttled) == (0, 0, 0.0, 0.0)
        assert repr(fleet) == f"<Fleet 2 active, 3 ended, {statistics.polls} polls, 0 in flight>"
    assert repr(fleet).endswith("0 in flight, not running>")


async def test_reprs_show_live_state_and_no_secret(emulator: Emulator) -> None:
    async with Client(emulator.base_url, auth=BearerAuth("sk-hidden")) as client:
        emulator.script(Scenario(end="never"), assistant_id=ASSISTANT)
        run = await client.threads.create_and_run(assistant_id=ASSISTANT)
        async with Fleet(client, on_exit="leave") as fleet:
            watch = fleet.watch(thread_id=run.thread_id, run_id=run.id)
            assert repr(watch) == f"<Watch {run.thread_id}/{run.id} not seen, polling, 0 polls>"
            await anyio.sleep(3.0)
            assert repr(watch) == f"<Watch {run.thread_id}/{run.id} in_progress, polling, {watch.polls} polls>"
            emulator.inject(Fault(on="poll", status=401))
            shown = [repr(await watch), repr(fleet), repr(watch), watch.explain(), repr(fleet.statistics())]
    assert not any("sk-hidden" in text for text in shown)


async def test_the_statistics_have_the_sum_of_the_tokens(stage: Stage) -> None:
    tools = Tools()
    runs: list[Run | ModelResponse] = [
        *await stage.runs(2, rounds=(ONE_CALL,)),
        await stage.response(rounds=(ONE_CALL,)),
    ]
    async with Fleet(stage.client, tools=tools) as fleet:
        assert fleet.statistics().usage == TokenUsage()
        for run in runs:
            fleet.watch(run)
        outcomes = [outcome async for outcome in fleet]
        total = sum((outcome.usage for outcome in outcomes), TokenUsage())
        assert fleet.statistics().usage == total
        assert total.total_tokens > 0


async def test_tokens_of_a_watch_that_is_reopened_count_once(stage: Stage) -> None:
    response = await stage.response(rounds=(ONE_CALL,))
    async with Fleet(stage.client, on_exit="leave") as fleet:
        watch = fleet.watch(response)
        first = await watch.wait()
        assert isinstance(first, NeedsCaller)
        assert fleet.statistics().usage == first.usage
        await watch.submit({first.calls[0].id: "done"})
        last = await watch.wait()
        assert isinstance(last, Completed)
        assert fleet.statistics().usage == last.usage
        assert last.usage.total_tokens > first.usage.total_tokens > 0
