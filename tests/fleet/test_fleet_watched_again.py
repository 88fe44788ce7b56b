"""A watch is cancelled while its submit is pending, and the run is watched again: its tools have run already."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from stage import ONE_CALL, Stage, Tools

from asyncruns import Completed, Fleet, NeedsCaller, OutputsSubmitted, Reason
from asyncruns.testing import Fault, FunctionCall
from asyncruns.watch.handover import token_in, token_text, with_outputs

LATE_S = 3.0


async def submitted(stage: Stage, count: int = 1) -> None:
    """Wait until a submit was sent."""
    while stage.count("submit") < count:
        await anyio.sleep(0.005)


@pytest.mark.parametrize("wire", ["run", "response"])
@pytest.mark.parametrize("after", [0.0, 1.0, LATE_S + 0.5, LATE_S + 4.0])
@pytest.mark.parametrize("acts_at", ["first", "last"])
async def test_its_tools_do_not_run_again_and_nothing_is_submitted_twice(
    stage: Stage, wire: str, after: float, acts_at: str
) -> None:
    """The response comes late: the server acts at once, or only then."""
    late = {"delay_before": LATE_S} if acts_at == "last" else {"delay_after": LATE_S}
    stage.server.inject(Fault(on="submit", **late))  # type: ignore[arg-type]
    tools = Tools(takes=0.5)
    scenario: dict[str, Any] = {"rounds": (ONE_CALL,), "working": 2.0}
    run: Any = await (stage.run(**scenario) if wire == "run" else stage.response(**scenario))
    async with Fleet(stage.client, tools=tools, requests_per_second=None) as fleet:
        first = fleet.watch(run)
        await submitted(stage)
        first.cancel()
        assert fleet.statistics().active == 0
        await anyio.sleep(after)
        outcome = await fleet.watch(run)
        assert fleet.statistics().active == 0
    assert isinstance(outcome, Completed)
    assert (tools.ran, stage.count("submit")) == (1, 1)
    assert fleet.statistics().ended == 1
    assert await outcome.text() == "f: out 1"


async def test_a_poll_that_lags_behind_the_submit_does_not_run_tools_again(stage: Stage) -> None:
    tools = Tools(takes=0.5)
    run = await stage.run(rounds=(ONE_CALL,), working=2.0)
    async with Fleet(stage.client, tools=tools, requests_per_second=None) as fleet:
        first = fleet.watch(run)
        await submitted(stage)
        await anyio.sleep(0.1)
        stage.server.inject(Fault(on="poll", stale=1.0, times=2))
        first.cancel()
        assert isinstance(await fleet.watch(run), Completed)
    assert (tools.ran, stage.count("submit")) == (1, 1)


async def test_outputs_whose_response_was_lost_are_sent_again_unchanged(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", drop=True, delay_before=LATE_S))
    tools = Tools(takes=0.5)
    run = await stage.run(rounds=(ONE_CALL,), working=2.0)
    async with Fleet(stage.client, tools=tools, requests_per_second=None) as fleet:
        first = fleet.watch(run)
        await submitted(stage)
        first.cancel()
        await anyio.sleep(LATE_S + 1.0)
        assert isinstance(await fleet.watch(run), Completed)
    assert (tools.ran, stage.count("submit")) == (1, 2)


async def test_outputs_refused_without_a_watch_need_the_caller(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", status=401, delay_before=LATE_S))
    tools = Tools(takes=0.5)
    run = await stage.run(rounds=(ONE_CALL,))
    async with Fleet(stage.client, tools=tools, requests_per_second=None) as fleet:
        first = fleet.watch(run)
        await submitted(stage)
        first.cancel()
        await anyio.sleep(LATE_S + 1.0)
        outcome = await fleet.watch(run)
        assert (fleet.statistics().active, fleet.statistics().ended) == (0, 1)
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.SUBMIT_REFUSED
    assert [output for _, output in outcome.outputs] == ["out 1"]
    assert tools.ran == 1


async def test_the_next_round_is_answered_as_usual(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", delay_after=LATE_S))
    tools = Tools(takes=1.0)
    run = await stage.run(rounds=((FunctionCall("f", {"n": 1}),), (FunctionCall("f", {"n": 2}),)))
    async with Fleet(stage.client, tools=tools, requests_per_second=None) as fleet:
        first = fleet.watch(run)
        while tools.ran < 2:  # the second round begins before the response to the first submit
            await anyio.sleep(0.1)
        first.cancel()
        await anyio.sleep(0.1)
        assert tools.stopped == 1
        assert isinstance(await fleet.watch(run), Completed)
    assert (tools.ran, stage.count("submit")) == (3, 2)  # the tool that was stopped ran again


async def test_the_new_watch_is_like_any_other_and_may_be_cancelled_again(stage: Stage) -> None:
    stage.server.inject(Fault(on="submit", delay_before=LATE_S))
    tools = Tools(takes=0.5)
    run = await stage.run(rounds=(ONE_CALL,), working=2.0)
    async with Fleet(stage.client, tools=tools, requests_per_second=None) as fleet:
        watch = fleet.watch(run)
        await submitted(stage)
        for _ in range(3):
            watch.cancel()
            watch = fleet.watch(run)
            other = fleet.watch(run)
            assert fleet.statistics().active == 1
            await anyio.sleep(0.5)
            assert watch.polls == other.polls == stage.count("poll")
            other.cancel()
        assert isinstance(await watch, Completed)
    assert (tools.ran, stage.count("submit")) == (1, 1)


async def test_later_a_new_watch_starts_from_the_current_state_with_its_own_options(stage: Stage) -> None:
    tools = Tools(takes=0.5)
    runs = await stage.runs(2, rounds=(ONE_CALL, ONE_CALL))
    async with Fleet(stage.client, tools=tools, requests_per_second=None, on_exit="leave") as fleet:
        for run in runs:
            watch = fleet.watch(run)
            while len(stage.server.submitted(run.id)) < 1:
                await anyio.sleep(0.1)
            watch.cancel()
            await anyio.sleep(10.0)
        outcome = await fleet.watch(runs[0], tools=None)
        assert isinstance(outcome, NeedsCaller)
        assert len(fleet._hub.runner.roster._discarded) == 1


async def test_a_discarded_watch_with_two_refs_resumes_from_the_last_one(stage: Stage) -> None:
    """The first watch went on to the second response through its submit; another watch went on from there."""
    tools = Tools(takes=0.2)
    rounds = ((FunctionCall("f", {"n": 1}),), (FunctionCall("f", {"n": 2}),))
    run = await stage.response(rounds=rounds, working=0.3, queued=0.05)
    async with Fleet(stage.client, tools=tools, requests_per_second=None) as fleet:
        first = fleet.watch(run)
        await submitted(stage)
        first.cancel()
        await anyio.sleep(0.05)
        second = fleet.watch(first.ref)
        stage.server.inject(Fault(on="submit", delay_after=1.0))
        await submitted(stage, 2)
        second.cancel()
        assert isinstance(await fleet.watch(run), Completed)
    assert (tools.ran, stage.count("submit")) == (2, 2)


async def next_round(fleet: Fleet[Any], token: str, run: Any, output: str) -> str:
    """Return a token with the output of the open call of a run."""
    outcome = await (fleet.watch(token=token) if token else fleet.watch(run))
    assert isinstance(outcome, NeedsCaller)
    return token_text(with_outputs(token_in(outcome.token), [(outcome.calls[0], output, False)]))


async def test_a_token_brings_outputs_that_a_watch_that_was_left_does_not_have(stage: Stage) -> None:
    run = await stage.run(rounds=(ONE_CALL, ONE_CALL), working=0.1)
    async with (
        Fleet(stage.client, requests_per_second=None) as fleet,
        Fleet(stage.client, requests_per_second=None) as elsewhere,
    ):
        first = await next_round(fleet, "", run, "out 1")
        left = fleet.watch(token=first)
        async for event in left:
            if isinstance(event, OutputsSubmitted):
                break
        left.cancel()
        second = await next_round(elsewhere, left.token(), run, "out 2")
        assert isinstance(await fleet.watch(token=second), Completed)
    assert stage.count("submit") == 2


async def test_a_token_with_what_was_submitted_goes_on_with_the_watch_that_was_left(stage: Stage) -> None:
    run = await stage.run(rounds=(ONE_CALL,), working=2.0)
    async with Fleet(stage.client, requests_per_second=None) as fleet:
        token = await next_round(fleet, "", run, "out 1")
        left = fleet.watch(token=token)
        async for event in left:
            if isinstance(event, OutputsSubmitted):
                break
        left.cancel()
        stage.server.inject(Fault(on="poll", stale=1.0, times=2))
        assert isinstance(await fleet.watch(token=token), Completed)
    assert stage.count("submit") == 1
