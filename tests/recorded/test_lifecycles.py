"""Each recorded lifecycle of a run, replayed to a real client and watched until its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import pytest
from recordings import Exchange, Lifecycle, lifecycles
from replay_server import ReplayServer

from asyncruns import (
    BadRequestError,
    BearerAuth,
    Cadence,
    Call,
    Cancelled,
    Client,
    Completed,
    Ended,
    GaveUp,
    Reason,
    RunRef,
    RunWatcher,
    StatusChanged,
    Toolset,
)
from asyncruns.lifecycle.policy import CANCEL_BOUND_S
from asyncruns.resources.run_parameters import RunParameters
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Run

LIFECYCLES: Final = lifecycles()
WITH_CALLS: Final = [each for each in LIFECYCLES if each.calls]
CUT_OFF: Final = [each for each in LIFECYCLES if each.statuses[-1] in ("in_progress", "cancelling")]
REFUSED_SUBMIT: Final = next(each for each in LIFECYCLES if each.run_id == "run_7OCeXpg2TO4D1566u1fgb71P")

ENDS: Final[Mapping[str, type[Any]]] = {"completed": Completed, "cancelled": Cancelled}
TIMEOUT_S: Final = 60.0  # longer than any recording
EXPIRY_AND_GRACE_S: Final = 600.0 + 60.0  # from the creation
TICK_S: Final = 1.0  # the resolution of `Date`


def by_name(cases: Sequence[Lifecycle]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("lifecycle", cases, ids=str)


def client_of(server: ReplayServer, lifecycle: Lifecycle) -> Client:
    # Some were created with fewer tokens than is allowed today, and one with metadata that is not a string.
    return Client(server.base_url, auth=BearerAuth("test"), version=lifecycle.version, validate=False)


def creation_of(lifecycle: Lifecycle) -> dict[str, Any]:
    """Return the recorded body without `stream: false`, which some clients send although it is the default."""
    body: dict[str, Any] = dict(lifecycle.create.request_body)
    assert body.pop("stream", False) is False
    return body


async def created(client: Client, lifecycle: Lifecycle) -> Run:
    body = creation_of(lifecycle)
    assistant_id = body.pop("assistant_id")
    return await client.threads.runs.create(
        lifecycle.thread_id, assistant_id=assistant_id, **cast("RunParameters", body)
    )


async def watched(
    client: Client, run: Run | RunRef, lifecycle: Lifecycle, options: WatchOptions
) -> tuple[list[str], AnyOutcome[Run]]:
    """Watch the run; cancel it as soon as the watch reports the status in which it was cancelled in the recording."""
    statuses: list[str] = []
    cancelled_in = lifecycle.statuses[lifecycle.statuses.index("cancelling") - 1] if lifecycle.cancels else None
    async with RunWatcher(client, run, **options) as watcher:
        async for event in watcher:
            if isinstance(event, StatusChanged):
                statuses.append(event.status)
                if event.status == cancelled_in:
                    await watcher.cancel_run()
            if isinstance(event, Ended):
                return statuses, event.outcome
    raise AssertionError("the watch has no end")


def check_end(outcome: AnyOutcome[Run], lifecycle: Lifecycle, given_up: Reason = Reason.TIMEOUT) -> None:
    last = lifecycle.statuses[-1]
    assert type(outcome) is ENDS.get(last, GaveUp)
    assert outcome.reason == (None if last in ENDS else given_up)
    assert outcome.status == last
    assert outcome.cancel_requested == bool(lifecycle.cancels)
    assert outcome.run is not None
    assert outcome.run.id == lifecycle.run_id


def recorded_submit(lifecycle: Lifecycle) -> Exchange:
    (submit,) = lifecycle.posted("/submit_tool_outputs")
    return submit


def recorded_tools(lifecycle: Lifecycle, asked: list[str]) -> Toolset:
    """Return the tools of the recording: `sql_tool` is called once and returns the recorded output."""
    tools = Toolset()
    outputs = [each["output"] for each in recorded_submit(lifecycle).request_body["tool_outputs"]]

    @tools.tool
    async def sql_tool(input: str) -> str:
        asked.append(input)
        return str(outputs[len(asked) - 1])

    return tools


def test_the_recordings_are_all_here() -> None:
    assert len(LIFECYCLES) == 34
    assert len(WITH_CALLS) == 3
    assert [len(each.calls) for each in WITH_CALLS] == [1, 1, 1]
    assert len(CUT_OFF) == 14
    assert sum(bool(each.cancels) for each in LIFECYCLES) == 5
    assert {each.statuses[-1] for each in LIFECYCLES} == {"completed", "cancelled", "in_progress", "cancelling"}
    assert all(each.create.method == "POST" and each.create.status == 200 for each in LIFECYCLES)


@by_name(LIFECYCLES)
async def test_a_watch_reports_the_recorded_statuses_and_ends_as_recorded(lifecycle: Lifecycle) -> None:
    options: WatchOptions = {"timeout": TIMEOUT_S}
    asked: list[str] = []
    if lifecycle.calls:
        options["tools"] = recorded_tools(lifecycle, asked)
    observed: list[str] = []
    options["on_status"] = lambda change: observed.append(change.status)
    async with ReplayServer(lifecycle) as server, client_of(server, lifecycle) as client:
        run = await created(client, lifecycle)
        statuses, outcome = await watched(client, run, lifecycle, options)

    assert tuple(statuses) == lifecycle.statuses
    assert tuple(observed) == lifecycle.statuses
    check_end(outcome, lifecycle)
    assert asked == [json.loads(call["function"]["arguments"])["input"] for call in lifecycle.calls]
    assert server.polls_left == 0
    assert server.unrecorded == []
    assert server.requests[0].body == creation_of(lifecycle)
    assert {each.beta for each in server.requests} == {f"assistants={lifecycle.version}"}
    assert len(server.received("POST", "/cancel")) == len(lifecycle.cancels)


@by_name(WITH_CALLS)
async def test_outputs_of_a_toolset_are_submitted_once_and_as_recorded(lifecycle: Lifecycle) -> None:
    tools = recorded_tools(lifecycle, [])
    async with ReplayServer(lifecycle) as server, client_of(server, lifecycle) as client:
        run = await created(client, lifecycle)
        outcome = await client.watch(run, tools=tools)

    assert type(outcome) is Completed
    (submit,) = server.received("POST", "/submit_tool_outputs")
    assert submit.body == recorded_submit(lifecycle).request_body


@by_name(WITH_CALLS)
async def test_outputs_of_a_handler_are_submitted_once_and_as_recorded(lifecycle: Lifecycle) -> None:
    rounds: list[Sequence[Call]] = []

    async def answer(calls: Sequence[Call]) -> list[dict[str, str]]:
        rounds.append(calls)
        return list(recorded_submit(lifecycle).request_body["tool_outputs"])

    async with ReplayServer(lifecycle) as server, client_of(server, lifecycle) as client:
        run = await created(client, lifecycle)
        statuses, outcome = await watched(client, run, lifecycle, {"on_requires_action": answer})

    assert tuple(statuses) == lifecycle.statuses
    assert type(outcome) is Completed
    ((call,),) = rounds
    (recorded,) = lifecycle.calls
    assert (call.id, call.name, call.arguments) == (recorded["id"], *recorded["function"].values())
    (submit,) = server.received("POST", "/submit_tool_outputs")
    assert submit.body == recorded_submit(lifecycle).request_body


@by_name(CUT_OFF)
async def test_a_run_that_never_ends_is_given_up_a_minute_after_its_expiry_or_its_cancel(lifecycle: Lifecycle) -> None:
    async with ReplayServer(lifecycle) as server, client_of(server, lifecycle) as client:
        run = await created(client, lifecycle)
        async with asyncio.timeout(2 * EXPIRY_AND_GRACE_S):  # an endless watch must fail and not hang
            statuses, outcome = await watched(client, run, lifecycle, {"cadence": Cadence.fixed(10.0)})

    assert tuple(statuses) == lifecycle.statuses
    check_end(outcome, lifecycle, Reason.CANCEL_UNCONFIRMED if lifecycle.cancels else Reason.TIMEOUT)
    # The runs expire ten minutes after their creation, and the watch began within two seconds of it. A cancel that was
    # accepted has a minute to take effect.
    bound = CANCEL_BOUND_S if lifecycle.cancels else EXPIRY_AND_GRACE_S
    assert bound - 2 - TICK_S <= outcome.elapsed <= bound + 2 + TICK_S


@by_name(LIFECYCLES)
async def test_a_watch_by_ids_misses_at_most_the_status_that_only_the_creation_showed(lifecycle: Lifecycle) -> None:
    options: WatchOptions = {"timeout": TIMEOUT_S}
    if lifecycle.calls:
        options["tools"] = recorded_tools(lifecycle, [])
    async with ReplayServer(lifecycle) as server, client_of(server, lifecycle) as client:
        await created(client, lifecycle)
        ref = RunRef("thread.run", (lifecycle.thread_id, lifecycle.run_id))
        statuses, outcome = await watched(client, ref, lifecycle, options)

    assert tuple(statuses) in (lifecycle.statuses, lifecycle.statuses[1:])
    check_end(outcome, lifecycle)
    assert server.polls_left == 0
    assert server.unrecorded == []


async def test_a_late_submit_raises_what_the_server_said() -> None:
    refused = recorded_submit(REFUSED_SUBMIT)
    (update,) = REFUSED_SUBMIT.posted("")
    async with ReplayServer(REFUSED_SUBMIT) as server, client_of(server, REFUSED_SUBMIT) as client:
        run = await created(client, REFUSED_SUBMIT)
        outcome = await client.watch(run)
        with pytest.raises(BadRequestError) as caught:
            await client.threads.runs.submit_tool_outputs(
                run.id, thread_id=run.thread_id, tool_outputs=refused.request_body["tool_outputs"]
            )
        updated = await client.threads.runs.update(run.id, thread_id=run.thread_id, **update.request_body)

    assert type(outcome) is Completed
    assert caught.value.detail == 'Runs in status "completed" do not accept tool outputs.'
    assert caught.value.detail == refused.body["error"]["message"]
    assert caught.value.request_id == refused.headers["x-request-id"]
    assert updated.metadata == {"modified": "True"}  # it was sent as a boolean
    assert [each.body for each in server.received("POST", "/submit_tool_outputs")] == [refused.request_body]
    assert server.received("POST", run.id)[0].body == update.request_body
    assert server.unrecorded == []
