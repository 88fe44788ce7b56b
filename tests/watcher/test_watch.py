"""Watching a run through the emulator, over real HTTP in virtual time."""

from __future__ import annotations

import math

import anyio
import pytest
from shells import Shell, watched

from asyncruns import (
    BearerAuth,
    Cancelled,
    Client,
    Completed,
    Ended,
    Expired,
    Failed,
    GaveUp,
    Incomplete,
    InvalidRequestError,
    NeedsCaller,
    Reason,
    RunExpiredError,
    RunFailedError,
    RunIncompleteError,
    RunNeedsCallerError,
    StatusChanged,
    Toolset,
    WatchGaveUpError,
)
from asyncruns.lifecycle import Call
from asyncruns.testing import Emulator, FunctionCall, Scenario
from asyncruns.watch.observers import Feed
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire import Run

TWO_CALLS = (FunctionCall("get_weather", {"city": "Paris"}), FunctionCall("add", {"a": 1, "b": 2}))


@pytest.fixture
def tools() -> Toolset:
    tools = Toolset()

    @tools.tool
    async def get_weather(city: str) -> str:
        await anyio.sleep(1.0)
        return f"Sunny in {city}"

    @tools.tool
    async def add(a: int, b: int) -> int:
        await anyio.sleep(1.0)
        return a + b

    return tools


async def start(emulator: Emulator, client: Client, **scenario: object) -> Run:
    emulator.script(Scenario(**scenario), assistant_id="asst_1")  # type: ignore[arg-type]
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hello"}])
    return await client.threads.runs.create(thread.id, assistant_id="asst_1")


@pytest.fixture
async def client(emulator: Emulator):  # type: ignore[no-untyped-def]
    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        yield client


async def test_the_first_call_of_the_readme(emulator: Emulator, client: Client, tools: Toolset) -> None:
    emulator.script(Scenario(rounds=(TWO_CALLS,), answer="21 degrees"), assistant_id="asst_1")
    outcome = await client.run(assistant_id="asst_1", message="Weather in Paris?", tools=tools)
    assert isinstance(outcome, Completed)
    assert await outcome.text() == "21 degrees"
    assert outcome.unwrap().status == outcome.status == "completed"
    assert [message.role for message in await outcome.messages()] == ["assistant"]
    (round_,) = emulator.submitted(outcome.run.id)
    assert sorted(round_.values()) == ["3", "Sunny in Paris"]


async def test_the_calls_of_a_round_run_at_the_same_time(
    shell: Shell, emulator: Emulator, client: Client, tools: Toolset
) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS,), queued=0.1, working=0.1)
    outcome = await watched(shell, client, run, tools=tools)
    assert outcome.elapsed < 2.0  # one second for both


async def test_a_message_on_an_existing_thread(emulator: Emulator, client: Client) -> None:
    emulator.script(Scenario(), assistant_id="asst_1")
    thread = await client.threads.create()
    outcome = await client.run(assistant_id="asst_1", message="Hello", thread_id=thread.id)
    assert outcome.unwrap().thread_id == thread.id
    assert len((await client.threads.messages.list(thread.id)).data) == 2


async def test_statuses_and_the_outcome_are_observed(
    shell: Shell, emulator: Emulator, client: Client, tools: Toolset
) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS,))
    statuses: list[str] = []
    ends: list[object] = []

    async def on_terminal(outcome: object) -> None:
        await anyio.sleep(0.5)
        ends.append(outcome)

    outcome = await watched(
        shell,
        client,
        run,
        tools=tools,
        on_status=lambda change: statuses.append(change.status),
        on_terminal=on_terminal,
    )
    assert statuses == ["queued", "in_progress", "requires_action", "queued", "in_progress", "completed"]
    assert ends == [outcome]


async def test_the_state_machine_in_the_open(shell: Shell, emulator: Emulator, client: Client, tools: Toolset) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS,))
    async with shell(client, run, tools=tools) as watcher:
        events = [event async for event in watcher]
        assert "completed" in repr(watcher)
    kinds = [type(event).__name__ for event in events]
    assert kinds.count("CallAnswered") == 2
    assert kinds.index("ActionRequired") < kinds.index("OutputsSubmitted") < kinds.index("Ended")
    assert isinstance(events[-1], Ended)


async def test_the_handler_answers_first_and_leaves_the_rest_to_the_toolset(
    shell: Shell, emulator: Emulator, client: Client, tools: Toolset
) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS, TWO_CALLS))
    asked: list[list[str]] = []

    async def handler(calls: list[Call]) -> list[dict[str, str]]:
        asked.append([call.name for call in calls])
        return [{"tool_call_id": call.id, "output": "Rain"} for call in calls if call.name == "get_weather"]

    outcome = await watched(shell, client, run, tools=tools, on_requires_action=handler)
    assert isinstance(outcome, Completed)
    assert asked == [["get_weather", "add"]] * 2
    assert [sorted(round_.values()) for round_ in emulator.submitted(run.id)] == [["3", "Rain"]] * 2


async def test_a_handler_may_be_a_plain_function_that_returns_a_mapping(
    shell: Shell, emulator: Emulator, client: Client
) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS,))
    outcome = await watched(shell, client, run, on_requires_action=lambda calls: {call.id: {"n": 1} for call in calls})
    assert isinstance(outcome, Completed)
    assert set(emulator.submitted(run.id)[0].values()) == {'{"n":1}'}


async def test_a_handler_that_raises_ends_the_watch_with_its_error(
    shell: Shell, emulator: Emulator, client: Client
) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS,))

    def handler(calls: object) -> None:
        raise ValueError("mine")

    outcome = await watched(shell, client, run, on_requires_action=handler)
    assert isinstance(outcome, NeedsCaller)
    assert outcome.reason is Reason.HANDLER_FAILED
    with pytest.raises(RunNeedsCallerError, match="get_weather") as caught:
        outcome.unwrap()
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_handler_that_answers_other_calls_gets_an_error(
    shell: Shell, emulator: Emulator, client: Client
) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS,))
    outcome = await watched(shell, client, run, on_requires_action=lambda calls: {"call_x": "1"})
    assert isinstance(outcome, NeedsCaller)
    assert "call_x" in str(outcome.cause)


async def test_without_tools_the_watch_ends_and_the_caller_resumes_it(
    shell: Shell, emulator: Emulator, client: Client
) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS,))
    async with shell(client, run) as watcher:
        outcome = await watcher.wait()
        assert isinstance(outcome, NeedsCaller)
        assert [call.name for call in outcome.calls] == ["get_weather", "add"]
        await anyio.sleep(30.0)
        with pytest.raises(InvalidRequestError, match="call_x"):
            await watcher.submit({"call_x": "1"})
        await watcher.submit({call.id: "done" for call in outcome.calls})
        assert isinstance(await watcher.wait(), Completed)
    assert len(emulator.submitted(run.id)) == 1


async def test_a_run_that_waits_already_is_answered_on_the_first_poll(
    emulator: Emulator, client: Client, tools: Toolset
) -> None:
    run = await start(emulator, client, rounds=(TWO_CALLS,))
    await anyio.sleep(60.0)
    outcome = await client.threads.runs.watch(run.id, thread_id=run.thread_id, tools=tools)
    assert isinstance(outcome, Completed)


async def test_a_run_that_has_ended_already_takes_one_poll(shell: Shell, emulator: Emulator, client: Client) -> None:
    run = await start(emulator, client)
    await anyio.sleep(60.0)
    outcome = await watched(shell, client, thread_id=run.thread_id, run_id=run.id)
    assert isinstance(outcome, Completed)
    assert outcome.polls == 1
    assert (await watched(shell, client, outcome.run)).polls == 0


async def test_a_failed_run(shell: Shell, emulator: Emulator, client: Client) -> None:
    run = await start(emulator, client, end="failed", error_code="rate_limit_exceeded", error_message="try in 6s")
    outcome = await watched(shell, client, run)
    assert isinstance(outcome, Failed)
    assert outcome.error is not None
    assert outcome.error.code == "rate_limit_exceeded"
    with pytest.raises(RunFailedError, match="rate_limit_exceeded: try in 6s"):
        await outcome.text()


async def test_an_incomplete_run(shell: Shell, emulator: Emulator, client: Client) -> None:
    outcome = await watched(shell, client, await start(emulator, client, end="incomplete"))
    assert isinstance(outcome, Incomplete)
    with pytest.raises(RunIncompleteError, match="max_completion_tokens"):
        outcome.unwrap()


async def test_an_expiry_of_ten_minutes_is_seen(shell: Shell, emulator: Emulator, client: Client) -> None:
    outcome = await watched(shell, client, await start(emulator, client, end="never"))
    assert isinstance(outcome, Expired)
    assert 595 < outcome.elapsed < 610
    with pytest.raises(RunExpiredError):
        outcome.unwrap()


async def test_a_timeout_is_for_the_whole_watch(shell: Shell, emulator: Emulator, client: Client) -> None:
    run = await start(emulator, client, end="never")
    outcome = await watched(shell, client, run, timeout=12.5)
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.TIMEOUT
    assert outcome.elapsed == pytest.approx(12.5, abs=0.1)
    assert outcome.status == "in_progress"
    with pytest.raises(WatchGaveUpError, match=r"in_progress.*12\.5 s"):
        outcome.unwrap()
    assert (await client.threads.runs.retrieve(run.id, thread_id=run.thread_id)).status == "in_progress"


async def test_a_cancel_through_the_watcher(shell: Shell, emulator: Emulator, client: Client) -> None:
    run = await start(emulator, client, end="never")
    statuses: list[str] = []
    async with shell(client, run, on_status=lambda change: statuses.append(change.status)) as watcher:
        await anyio.sleep(5.0)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, Cancelled)
    assert outcome.cancel_requested
    assert statuses == ["queued", "in_progress", "cancelling", "cancelled"]


async def test_a_cancel_that_loses_or_hangs_is_bounded_and_the_outcome_is_true(
    shell: Shell, emulator: Emulator, client: Client
) -> None:
    async def cancelled(run: Run) -> AnyOutcome[Run]:
        async with shell(client, run, timeout=None) as watcher:
            await anyio.sleep(2.0)
            await watcher.cancel_run()
            return await watcher.wait()

    lost = await cancelled(await start(emulator, client, working=20.0, cancelling=60.0))
    assert isinstance(lost, Completed)
    assert lost.cancel_requested
    stuck = await cancelled(await start(emulator, client, end="never", cancelling=math.inf))
    assert isinstance(stuck, GaveUp)
    assert (stuck.reason, stuck.status) == (Reason.CANCEL_UNCONFIRMED, "cancelling")
    assert stuck.cancel_requested
    assert stuck.elapsed == pytest.approx(62.0, abs=1.0)


async def test_a_cancel_by_another_stops_the_tools(shell: Shell, emulator: Emulator, client: Client) -> None:
    run = await start(emulator, client, rounds=((FunctionCall("slow"),),))
    stopped = anyio.Event()

    async def slow() -> None:
        try:
            await anyio.sleep(300.0)
        finally:
            stopped.set()

    async with shell(client, run, tools=Toolset([slow])) as watcher:
        await anyio.sleep(10.0)
        await client.threads.runs.cancel(run.id, thread_id=run.thread_id)
        assert isinstance(await watcher.wait(), Cancelled)
        await anyio.sleep(0.001)  # so that the tool is cancelled
        assert stopped.is_set()


async def test_tools_that_would_outlast_the_run_are_answered_in_time(
    shell: Shell, emulator: Emulator, client: Client
) -> None:
    run = await start(emulator, client, rounds=((FunctionCall("slow"), FunctionCall("quick")),))

    async def slow() -> None:
        await anyio.sleep(3600.0)

    outcome = await watched(shell, client, run, tools=Toolset({"slow": slow, "quick": lambda: "done"}))
    assert isinstance(outcome, Completed)
    outputs = list(emulator.submitted(run.id)[0].values())
    assert "done" in outputs
    assert any("did not finish in time" in output for output in outputs)


@pytest.mark.parametrize(("second", "ran"), [({"n": 2}, [1, 2]), ({"n": 1}, [1])], ids=["another", "the same"])
async def test_a_server_may_use_the_same_id_in_every_round(
    shell: Shell, emulator: Emulator, client: Client, second: dict[str, int], ran: list[int]
) -> None:
    rounds = ((FunctionCall("f", {"n": 1}),), (FunctionCall("f", second),))
    run = await start(emulator, client, rounds=rounds, reuse_call_ids=True)
    seen: list[int] = []

    async def f(n: int) -> int:
        seen.append(n)
        return n

    assert isinstance(await watched(shell, client, run, tools=Toolset([f])), Completed)
    assert seen == ran
    assert emulator.submitted(run.id) == [{"call_0": "1"}, {"call_0": str(second["n"])}]


async def test_what_tools_do_wrong_never_ends_the_watch(shell: Shell, emulator: Emulator, client: Client) -> None:
    calls = (
        FunctionCall("unknown"),
        FunctionCall("multi_tool_use.parallel", "{}"),
        FunctionCall("number", "not json"),
        FunctionCall("number", "[1]"),
        FunctionCall("number", ""),
        FunctionCall("broken"),
        FunctionCall("binary"),
    )
    run = await start(emulator, client, rounds=(calls,))

    async def broken() -> None:
        raise RuntimeError("the password is hunter2")

    tools = Toolset({"number": lambda: 5, "broken": broken, "binary": lambda: b"\xff\x00"})
    outcome = await watched(shell, client, run, tools=tools)
    assert isinstance(outcome, Completed)
    outputs = list(emulator.submitted(run.id)[0].values())
    assert len(outputs) == 7
    assert "5" in outputs
    assert not any("hunter2" in output for output in outputs)


async def test_a_status_replaces_an_unread_one_only_when_the_reader_is_far_behind() -> None:
    feed: Feed[str] = Feed()

    def changed(number: int) -> StatusChanged[str]:
        return StatusChanged(status=str(number), phase=None, previous=None, run="run")  # type: ignore[arg-type]

    with feed.reader():
        for number in range(300):
            feed.put(changed(number))
        read = [(await feed.get()).status for _ in range(256)]  # type: ignore[union-attr]
    assert read[:3] == ["0", "1", "2"]
    assert read[-1] == "299"
