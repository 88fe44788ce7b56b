"""What becomes of a call that had begun when the process ended, once its watch is resumed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from worlds import Crash

from asyncruns import (
    Call,
    Client,
    Completed,
    ConfigurationError,
    Fleet,
    GaveUp,
    MemoryJournal,
    NeedsCaller,
    Reason,
    Toolset,
)
from asyncruns.errors import CallNotAnsweredError, ToolError
from asyncruns.testing import Fault

UNKNOWN = {"error": "The outcome of this call is not known: the process that ran it ended."}


def tools(*, idempotent: bool = False, ran: list[str] | None = None, hangs: bool = False, **policies: Any) -> Toolset:
    toolset = Toolset(**{name: policy for name, policy in policies.items() if name != "own"})
    own = {"if_interrupted": policies["own"]} if "own" in policies else {}

    @toolset.tool(idempotent=idempotent, **own)
    async def pay(to: str) -> str:
        if ran is not None:
            ran.append(to)
        if hangs:
            await asyncio.Event().wait()
        return f"paid {to}"

    return toolset


async def test_by_default_the_model_reads_that_the_outcome_is_not_known(crash: Crash) -> None:
    await crash.during_calls(tools=tools(hangs=True))
    ran: list[str] = []
    outcome = await crash.resumed(tools=tools(ran=ran))
    assert isinstance(outcome, Completed)
    assert ran == []
    assert [json.loads(output) for output in crash.submitted()] == [UNKNOWN, UNKNOWN]
    assert len(crash.store) == 0


async def test_an_idempotent_call_runs_again(crash: Crash) -> None:
    await crash.during_calls(tools=tools(hangs=True, idempotent=True))
    ran: list[str] = []
    outcome = await crash.resumed(tools=tools(ran=ran, idempotent=True))
    assert isinstance(outcome, Completed)
    assert sorted(ran) == ["a", "b"]
    assert sorted(crash.submitted()) == ["paid a", "paid b"]


@pytest.mark.parametrize("where", ["if_interrupted", "own"])
async def test_a_call_runs_again_if_the_policy_says_so(crash: Crash, where: str) -> None:
    await crash.during_calls(tools=tools(hangs=True))
    ran: list[str] = []
    policies: dict[str, Any] = {where: "rerun"}
    await crash.resumed(tools=tools(ran=ran, **policies))
    assert sorted(ran) == ["a", "b"]


async def test_the_policy_of_a_tool_goes_before_idempotent(crash: Crash) -> None:
    await crash.during_calls(tools=tools(hangs=True))
    ran: list[str] = []
    await crash.resumed(tools=tools(ran=ran, idempotent=True, own="tell"))
    assert ran == []


async def test_a_surfaced_call_is_left_to_the_caller(crash: Crash) -> None:
    await crash.during_calls(tools=tools(hangs=True))
    outcome = await crash.resumed(tools=tools(if_interrupted="surface"))
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.HANDLER_FAILED
    assert isinstance(outcome.cause, CallNotAnsweredError)
    assert 'if_interrupted is "surface"' in str(outcome.cause)
    assert len(outcome.calls) == 2


async def test_a_function_finds_out_what_has_happened(crash: Crash) -> None:
    await crash.during_calls(tools=tools(hangs=True))

    async def was_paid(call: Call, error: Exception) -> str:
        assert isinstance(error, RuntimeError)
        return "It was paid." if '"a"' in call.arguments else "rerun"

    ran: list[str] = []
    await crash.resumed(tools=tools(ran=ran, if_interrupted=was_paid))
    assert ran == ["b"]
    assert sorted(crash.submitted()) == ["It was paid.", "paid b"]


async def test_a_function_that_fails_counts_as_tell(crash: Crash) -> None:
    await crash.during_calls(tools=tools(hangs=True))

    def was_paid(call: Call, error: Exception) -> str:
        raise ToolError("Ask the bank.")

    await crash.resumed(tools=tools(if_interrupted=was_paid))
    assert [json.loads(output) for output in crash.submitted()] == [{"error": "Ask the bank."}] * 2


async def test_an_output_that_was_recorded_is_sent_as_it_was(crash: Crash) -> None:
    toolset = Toolset()

    @toolset.tool
    async def pay(to: str) -> str:
        if to == "b":
            await asyncio.Event().wait()
        return f"paid {to} by the first process"

    await crash.during_calls(tools=toolset)
    await crash.resumed(tools=tools(own="rerun"))
    assert sorted(crash.submitted()) == ["paid a by the first process", "paid b"]


async def test_the_output_of_a_tool_that_is_gone_is_sent_all_the_same(crash: Crash) -> None:
    toolset = Toolset()

    @toolset.tool
    async def pay(to: str) -> str:
        if to == "b":
            await asyncio.Event().wait()
        return f"paid {to}"

    await crash.during_calls(tools=toolset)
    await crash.resumed(tools=Toolset())
    outputs = sorted(crash.submitted())
    assert outputs[0] == "paid a" or outputs[1] == "paid a"
    assert json.dumps(UNKNOWN).replace(" ", "") in [output.replace(" ", "") for output in outputs]


async def test_the_calls_of_a_handler_are_told(crash: Crash) -> None:
    async def hang(calls: list[Call]) -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    await crash.during_calls(on_requires_action=hang)
    asked: list[Call] = []
    await crash.resumed(on_requires_action=asked.extend)
    assert asked == []
    assert [json.loads(output) for output in crash.submitted()] == [UNKNOWN, UNKNOWN]


async def test_a_call_that_needs_its_caller_still_does_after_a_restart(crash: Crash) -> None:
    def refuse(calls: list[Call]) -> dict[str, str]:
        return {calls[0].id: "paid by a person"}  # and leaves the other one to the caller

    await crash.until_finished(on_requires_action=refuse)
    outcome = await crash.resumed(on_requires_action=refuse)
    assert isinstance(outcome, NeedsCaller)
    assert [output for _, output in outcome.outputs] == ["paid by a person"]
    assert len(outcome.calls) == 1
    assert len(crash.store) == 1  # until the run ends


def test_a_policy_must_be_one() -> None:
    with pytest.raises(ConfigurationError, match='if_interrupted must be "tell", "surface", "rerun" or a function'):
        Toolset(if_interrupted="again")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match='if_timeout must be "tell", "surface" or a function'):
        Toolset(if_timeout="rerun")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="if_interrupted must be"):
        tools(own="never")


@pytest.mark.parametrize(("status", "is_lost"), [(429, False), (500, True)])
async def test_a_submit_that_certainly_had_no_effect_is_sent_again(crash: Crash, status: int, *, is_lost: bool) -> None:
    crash.world.transport.inject(Fault(on="submit", status=status, headers={"Retry-After": "30"}, times=None))
    await crash.first(3.0, tools=tools(), on_lost_submit="resend")
    crash.world.transport.faults.clear()
    outcome = await crash.resumed(tools=tools())
    if is_lost and crash.world.wire == "responses":
        assert isinstance(outcome, GaveUp)
        assert outcome.reason is Reason.SUBMIT_LOST
        assert "The process ended while the outputs were being submitted" in str(outcome.cause)
    else:
        assert isinstance(outcome, Completed)
        assert sorted(crash.submitted()) == ["paid a", "paid b"]


async def test_a_submit_that_may_be_lost_is_sent_again_if_the_caller_says_so(crash: Crash) -> None:
    crash.world.transport.inject(Fault(on="submit", status=500, times=None))
    await crash.first(3.0, tools=tools(), on_lost_submit="resend")
    crash.world.transport.faults.clear()
    ran: list[str] = []
    outcome = await crash.resumed(tools=tools(ran=ran), on_lost_submit="resend")
    assert isinstance(outcome, Completed)
    assert sorted(crash.submitted()) == ["paid a", "paid b"]
    assert ran == []


async def test_a_run_that_the_client_cannot_watch_stays_in_the_journal(
    crash: Crash, caplog: pytest.LogCaptureFixture
) -> None:
    await crash.during_calls(tools=tools(hangs=True))
    other: Any = "responses" if crash.world.wire == "threads" else "batches"
    async with MemoryJournal(crash.store) as journal, Client(transport=crash.world.transport) as client:
        alone: Any = client.responses.continued() if other == "responses" else client.batches.alone
        async with Fleet(alone, journal=journal) as fleet:
            assert await fleet.resume() == []
    assert len(crash.store) == 1
    assert "is in the journal, and cannot be watched here" in caplog.text
