"""Tools as activities: each call runs at most once, and the model reads what it would read of a plain watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from typing import Any

import flows
import pytest
from dev_server import Stage
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import WorkerConfig

from asyncruns import Call, Completed, NeedsCaller, Reason, RunRef, ToolContext, ToolError, Toolset
from asyncruns.temporal import AsyncRunsPlugin, running
from asyncruns.temporal.messages import CALL, CREATE, FOLLOW_UP
from asyncruns.testing import Fault, FunctionCall, Scenario

pytestmark = pytest.mark.real_time

AT_ONCE = {"graceful_shutdown_timeout": timedelta(milliseconds=50)}
"""Options of a worker that cancels its activities when it is stopped."""


def of(*calls: FunctionCall) -> Scenario:
    """Return a scenario with one round of calls."""
    return Scenario(queued=0.02, working=0.02, rounds=(calls,))


def city(name: str, where: str = "Paris") -> FunctionCall:
    return FunctionCall(name, {"city": where})


class Shop:
    """Tools that note which calls they were executed for."""

    def __init__(self, **policies: Any) -> None:
        self.called: list[str] = []
        self.begun = asyncio.Event()
        self.is_open = False
        self.tools = Toolset([self.pay, self.closed, self.refuse, self.hang], **policies)

    async def pay(self, city: str, context: ToolContext[Any]) -> dict[str, Any]:
        self.called.append(context.call.id)
        return {"paid": city, "for": context.value, "metadata": dict(context.metadata)}

    async def closed(self, city: str, context: ToolContext[Any]) -> str:
        self.called.append(context.call.id)
        if not self.is_open:
            raise RuntimeError("a secret")
        return "open"

    async def refuse(self, city: str) -> str:
        raise ToolError(f"not in {city}")

    async def hang(self, city: str, context: ToolContext[Any]) -> str:
        self.called.append(context.call.id)
        self.begun.set()
        if not self.is_open:
            await asyncio.sleep(60)
        return "woken"


@pytest.mark.slow
async def test_the_model_reads_what_it_reads_of_a_plain_watch(stage: Stage) -> None:
    shop = Shop()
    wrong = FunctionCall("pay", {"town": 1})
    scenario = of(city("pay"), city("closed"), city("refuse"), city("unknown"), wrong, FunctionCall("pay", "{"))
    stage.emulator.script(scenario, assistant_id="asst_1")
    stage.emulator.script(scenario, model="gpt")
    async with stage.worker(tools=shop.tools):
        for new in (stage.new_run, stage.new_response):
            run, other = await new(), await new()
            found, plain = await asyncio.gather(
                stage.run(flows.Ask.run, RunRef.of(run), {}), stage.client.watch(other, tools=shop.tools)
            )
            assert isinstance(found, Completed)
            told, expected = (stage.emulator.submitted(each.ref.ids[-1]) for each in (found, plain))
            assert [list(each.values()) for each in told] == [list(each.values()) for each in expected]
    assert len(shop.called) == len(set(shop.called)) == 8


@pytest.mark.slow
async def test_a_surfaced_call_is_left_to_the_caller_and_the_token_goes_on(stage: Stage) -> None:
    shop = Shop(if_exception="surface")
    stage.emulator.script(of(city("pay"), city("closed")), assistant_id="asst_1")
    stage.emulator.script(of(city("pay"), city("closed")), model="gpt")
    async with stage.worker(tools=shop.tools):
        for new in (stage.new_run, stage.new_response):
            shop.is_open, shop.called = False, []
            found = await stage.run(flows.Ask.run, RunRef.of(await new()), {})
            assert isinstance(found, NeedsCaller)
            assert found.reason is Reason.HANDLER_FAILED
            assert [call.name for call in found.calls] == ["closed"]
            assert len(found.outputs) == 1
            assert "closed" in str(found.cause)
            assert "secret" not in str(found.cause)
            shop.is_open = True
            again = await stage.run(flows.GoOn.run, found.token, {})
            assert isinstance(again, Completed)
            assert again.refs[0] == found.ref
            assert len(shop.called) == 3
            assert len({*shop.called}) == 2  # only the call that was left ran again


@pytest.mark.slow
async def test_toolsets_are_found_by_name_and_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "NOT_BEGUN_S", 0.1)
    shop, other = Shop(), Shop(name="other")
    stage.emulator.script(of(city("pay")), assistant_id="asst_1")
    ref = RunRef.of(await stage.new_run())
    async with stage.worker(tools=shop.tools):
        handle = await stage.start(flows.Ask.run, ref, {"tools": "other"})
        while not any(each.operation == "poll" for each in stage.emulator.requests):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # the call is tried, and fails, some times
    assert shop.called == []
    async with stage.worker(tools=shop.tools, toolsets=[other.tools]):
        assert isinstance(await handle.result(), Completed)
    assert (len(shop.called), len(other.called)) == (0, 1)


async def test_tools_get_a_context_made_on_the_worker(stage: Stage) -> None:
    shop = Shop()
    stage.emulator.script(of(city("pay")), assistant_id="asst_1")
    async with stage.worker(tools=shop.tools, context_factory=lambda ref, label: f"{label} of {ref.ids[-1]}"):
        run = await stage.new_run(metadata={"user": "u1"})
        await stage.run(flows.Ask.run, RunRef.of(run), {"label": "A"})
    (output,) = stage.emulator.submitted(run.id)[0].values()
    assert output == f'{{"paid":"Paris","for":"A of {run.id}","metadata":{{"user":"u1"}}}}'


@pytest.mark.slow
async def test_a_context_that_cannot_be_made_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "NOT_BEGUN_S", 0.1)
    shop, tries = Shop(), 0

    def context(ref: RunRef, label: object) -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("the database is away")
        return "found"

    stage.emulator.script(of(city("pay")), assistant_id="asst_1")
    async with stage.worker(tools=shop.tools, context_factory=context):
        run = await stage.new_run()
        assert isinstance(await stage.run(flows.Ask.run, RunRef.of(run), {}), Completed)
    (output,) = stage.emulator.submitted(run.id)[0].values()
    assert '"for":"found"' in output
    assert (tries, len(shop.called)) == (3, 1)


def look_it_up(call: Call, error: Exception) -> str:
    return f"looked up after: {type(error).__name__}"


UNKNOWN = "The outcome of this call is not known"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "runs", "output"),
    [
        ("tell", 1, UNKNOWN),
        ("rerun", 2, "woken"),
        (look_it_up, 1, "looked up after: RuntimeError"),
        ("surface", 1, None),
    ],
    ids=["tell", "rerun", "function", "surface"],
)
async def test_a_call_that_was_interrupted_is_decided_by_its_policy(
    stage: Stage, policy: Any, runs: int, output: str | None
) -> None:
    shop = Shop(if_interrupted=policy)
    stage.emulator.script(of(city("hang"), city("pay")), assistant_id="asst_1")
    ref = RunRef.of(await stage.new_run())
    async with stage.worker(tools=shop.tools, worker=AT_ONCE):
        handle = await stage.start(flows.Ask.run, ref, {})
        await shop.begun.wait()
        while len(shop.called) < 2:
            await asyncio.sleep(0.01)
    shop.is_open = True
    async with stage.worker(tools=shop.tools):
        found = await handle.result()
    if output is None:
        assert isinstance(found, NeedsCaller)
        assert [call.name for call in found.calls] == ["hang"]
        assert len(found.outputs) == 1
    else:
        assert isinstance(found, Completed)
        assert output in next(iter(stage.emulator.submitted(ref.ids[-1])[0].values()))
    assert len(shop.called) == runs + 1


@pytest.mark.slow
async def test_heartbeats_keep_a_slow_tool_alive(stage: Stage) -> None:
    called: list[str] = []
    tools = Toolset()

    @tools.tool
    def block(city: str) -> str:
        called.append(city)
        time.sleep(0.8)
        return "done"

    @tools.tool
    async def wait(city: str) -> str:
        called.append(city)
        await asyncio.sleep(0.8)
        return "done"

    stage.emulator.script(of(city("block", "A"), city("wait", "B")), assistant_id="asst_1")
    async with stage.worker(tools=tools):
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"heartbeat_timeout": 0.4})
    assert isinstance(found, Completed)
    assert sorted(called) == ["A", "B"]
    assert set(stage.emulator.submitted(run.id)[0].values()) == {"done"}


async def test_without_tools_all_calls_are_the_callers(stage: Stage) -> None:
    stage.emulator.script(of(city("pay"), city("pay")), assistant_id="asst_1")
    async with stage.worker(plugin=AsyncRunsPlugin(stage.client)):
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"tools": None})
    assert isinstance(found, NeedsCaller)
    assert found.reason is Reason.UNANSWERED
    assert len(found.calls) == 2


def cut_off(body: dict[str, Any]) -> dict[str, Any]:
    """Let the model not finish its first call."""
    first, *others = body.get("output") or [{}]
    return {**body, "output": [{**first, "status": "incomplete"}, *others]} if "call_id" in first else body


@pytest.mark.parametrize("options", [{"tools": None}, {}])
async def test_beside_a_handler_the_model_reads_of_a_call_that_was_cut(stage: Stage, options: dict[str, Any]) -> None:
    stage.emulator.script(of(city("pay"), city("pay")), model="gpt")
    stage.emulator.inject(Fault(on="poll", rewrite=cut_off, times=None))
    async with stage.worker():
        found = await stage.run(flows.Handled.run, RunRef.of(await stage.new_response()), "largely", options)
    assert isinstance(found, Completed)
    told, handled = stage.emulator.submitted(found.ref.ids[-1])[0].values()
    assert "cut off" in told
    assert handled.startswith("xxx")


async def test_without_a_toolset_all_calls_are_the_callers_by_default(stage: Stage) -> None:
    stage.emulator.script(of(city("pay")), assistant_id="asst_1")
    stage.emulator.script(of(city("pay")), model="gpt")
    async with stage.worker(toolsets=[Shop(name="other").tools]):
        for run in (await stage.new_run(), await stage.new_response()):
            found = await stage.run(flows.Ask.run, RunRef.of(run), {})
            assert isinstance(found, NeedsCaller)
            assert found.reason is Reason.UNANSWERED
            assert found.cause is None


def name_of(given: Callable[..., Any]) -> str:
    return str(getattr(given, "__temporal_activity_definition").name)


class Without(AsyncRunsPlugin):
    """A plugin whose workers lack an activity."""

    lacks = ""

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        config = super().configure_worker(config)
        activities = [each for each in config.get("activities", ()) if name_of(each) != self.lacks]
        return {**config, "activities": activities}


@pytest.mark.slow
@pytest.mark.parametrize("lacks", [CALL, FOLLOW_UP, CREATE])
async def test_a_worker_that_cannot_begin_is_waited_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    monkeypatch.setattr(running, "NOT_BEGUN_S", 0.1)
    shop = Shop()
    stage.emulator.script(of(city("pay")), model="gpt")
    other = Without(stage.client, tools=shop.tools)
    other.lacks = lacks
    async with stage.worker(plugin=other):
        handle = await stage.start(flows.AskNew.run, {"model": "gpt", "message": "Hi"})
        async with asyncio.timeout(60):
            while not await has_failed(handle):
                await asyncio.sleep(0.05)
    async with stage.worker(tools=shop.tools):
        assert isinstance(await handle.result(), Completed)
    assert len(shop.called) == 1


async def has_failed(handle: WorkflowHandle[Any, Any]) -> bool:
    history = await handle.fetch_history()
    return any(each.HasField("activity_task_failed_event_attributes") for each in history.events)


def test_pauses_grow() -> None:
    assert list(islice(running.pauses(10.0), 7)) == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_what_may_have_begun_does_not_run_again() -> None:
    def failed(kind: str, message: str) -> bool:
        error = ActivityError(
            "",
            scheduled_event_id=1,
            started_event_id=2,
            identity="",
            activity_type="",
            activity_id="",
            retry_state=None,
        )
        error.__cause__ = ApplicationError(message, type=kind)
        return running.has_not_begun(error)

    assert failed("NotFoundError", "Activity function asyncruns.call is not registered on this worker, available: x")
    assert not failed("NotFoundError", "GET /threads/thread_1 answered 404")
    assert not failed("WorkerShutdown", "is not registered on this worker")


async def test_the_context_gets_the_label_of_a_token(stage: Stage) -> None:
    shop = Shop()
    stage.emulator.script(of(city("pay")), assistant_id="asst_1")
    async with stage.worker(tools=shop.tools, context_factory=lambda ref, label: str(label)):
        run = await stage.new_run()
        found = await stage.run(flows.Ask.run, RunRef.of(run), {"tools": None, "label": "A"})
        again = await stage.run(flows.GoOn.run, found.token, {})
    assert again.label == "A"
    (output,) = stage.emulator.submitted(run.id)[0].values()
    assert '"for":"A"' in output
