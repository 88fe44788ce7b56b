"""Creating runs in a fleet: within its budget, watched from then on, and never lost silently."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from stage import ASSISTANT, MODEL, Stage, Tools, other_tasks
from windows import check_windows

from asyncruns import (
    APIStatusError,
    BadRequestError,
    Cancelled,
    Client,
    Completed,
    Ended,
    Fleet,
    GaveUp,
    InvalidRequestError,
    RateLimitError,
    Reason,
    RunRef,
    ThreadBusyError,
    Watch,
    WatchGaveUpError,
)
from asyncruns.fleet.creates import PendingRun
from asyncruns.fleet.member import Member
from asyncruns.fleet.permits import Permit
from asyncruns.http import Request
from asyncruns.testing import Fault, FunctionCall, Scenario
from asyncruns.watch.outcome import AnyOutcome

WIRES = pytest.mark.parametrize("wire", ["threads", "responses"])
CREATES = {"threads": "create_run", "responses": "create_response"}
BEGIN_OF = {"threads": {"assistant_id": ASSISTANT}, "responses": {"model": MODEL}}


@pytest.fixture(autouse=True)
def short_runs(stage: Stage) -> None:
    for begin in BEGIN_OF.values():
        stage.server.script(Scenario(queued=0.1, working=1.0, answer="Hello."), **begin)


def begin(fleet: Fleet[Any], wire: str = "threads", **more: Any) -> Watch[Any]:
    request: Any = {**BEGIN_OF[wire], "message": "Hi", **more}
    watch: Watch[Any] = fleet.run(**request)
    return watch


def times(stage: Stage) -> list[float]:
    return [seen.at for seen in stage.server.requests]


# What it returns


@WIRES
async def test_it_returns_a_watch_at_once_whose_ref_has_ids_when_the_run_is_created(stage: Stage, wire: str) -> None:
    async with Fleet(stage.client) as fleet:
        watch = begin(fleet, wire, label="row 7")
        assert (watch.ref, watch.ref.ids, watch.status, watch.outcome) == (watch.ref, (), "", None)
        assert watch.is_active
        assert repr(watch) == "<Watch (no id) not seen, creating, 0 polls>"
        assert fleet.statistics().creating == fleet.statistics().active == 1
        assert watch.explain().startswith("The run is not created yet; ")
        ref = await watch.created()
        assert (ref, ref.ids != ()) == (watch.ref, True)
        assert fleet.statistics().creating == 0
        outcome = await watch
        assert isinstance(outcome, Completed)
        assert (outcome.ref, outcome.label, await outcome.text()) == (ref, "row 7", "Hello.")
        assert await watch.created() == ref


async def test_it_takes_what_client_run_takes(stage: Stage) -> None:
    tools = Tools()
    stage.server.script(Scenario(rounds=((FunctionCall("f", {"n": 1}),),)), assistant_id="asst_2")
    thread = await stage.client.threads.create()
    async with Fleet(stage.client, tools=tools) as fleet:
        watch = begin(fleet, assistant_id="asst_2", thread_id=thread.id, parameters={"metadata": {"a": "b"}})
        outcome = await watch
    assert (outcome.ref.ids[0], outcome.unwrap().metadata["a"], tools.ran) == (thread.id, "b", 1)


async def test_the_definitions_of_the_tools_of_the_fleet_go_to_a_response(stage: Stage) -> None:
    async with Fleet(stage.client, tools=Tools()) as fleet:
        response = (await begin(fleet, "responses")).unwrap()
    assert [tool["name"] for tool in response.tools] == ["f"]


async def test_a_create_sees_the_context_variables_of_the_caller(stage: Stage) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="")
    seen: list[str] = []

    def look(request: Request) -> None:
        if request.method == "POST":
            seen.append(tenant.get())

    stage.transport.before = look
    async with Fleet(stage.client) as fleet:
        for name in ("a", "b"):
            tenant.set(name)
            await begin(fleet).created()
    assert seen == ["a", "a", "b", "b"]


WRONG: dict[str, dict[str, Any]] = {
    "assistant_id=, with or without thread_id=, or model= alone": {"model": MODEL},
    "fleet.run has no option 'temperature'; it is a parameter of the run": {"temperature": 1},
    "fleet.run has no option 'on_exit'": {"on_exit": "cancel"},
    "message must be a text": {"message": 7},
    "on_busy must be": {"on_busy": "never"},
    "timeout must be": {"timeout": "5"},
    "metadata: at most 16 pairs": {"parameters": {"metadata": {str(n): "x" for n in range(17)}}},
    "key= is searched for in the lists of a thread": {"key": "x"},
    "is not an id": {"thread_id": ".."},
}


@pytest.mark.parametrize("says", WRONG)
async def test_wrong_arguments_are_refused_at_once(stage: Stage, says: str) -> None:
    async with Fleet(stage.client) as fleet:
        with pytest.raises(InvalidRequestError, match=says):
            begin(fleet, **WRONG[says])
        assert fleet.statistics().active == 0
    assert stage.server.requests == []


async def test_a_client_that_cannot_create_is_refused(stage: Stage) -> None:
    async with Fleet(stage.client.responses.continued()) as fleet:
        with pytest.raises(InvalidRequestError, match="creates runs, and this is a ResponseClient: pass client="):
            begin(fleet)
        assert isinstance(await begin(fleet, "responses", client=stage.client), Completed)
    with pytest.raises(InvalidRequestError, match="was left"):
        begin(fleet)


# The budget


@WIRES
async def test_creates_polls_and_messages_together_stay_within_the_rate(stage: Stage, wire: str) -> None:
    async with Fleet(stage.client, requests_per_second=20) as fleet:
        watches = [begin(fleet, wire) for _ in range(40)]
        texts = await asyncio.gather(*[_text(watch) for watch in watches])
        assert texts == ["Hello."] * 40
        check_windows(times(stage), 20.0)
        took = times(stage)[-1] - times(stage)[0]
    assert len(stage.server.requests) > 18 * took, "the rate was not used"


async def _text(watch: Watch[Any]) -> str:
    return await (await watch).text()


async def test_no_more_requests_are_in_flight_than_allowed(stage: Stage) -> None:
    async with Fleet(stage.client, requests_per_second=None, max_in_flight=5) as fleet:
        assert await asyncio.gather(*[_text(begin(fleet)) for _ in range(60)]) == ["Hello."] * 60
    assert stage.transport.most_unanswered == 4, "a place is kept for submits"


async def test_many_creates_do_not_hold_up_polls_nor_the_reverse(stage: Stage) -> None:
    runs = await stage.runs(200, queued=0.0, working=20.0)
    stage.server.requests.clear()
    async with Fleet(stage.client, requests_per_second=20, on_exit="leave") as fleet:
        await fleet.add_many([RunRef("thread.run", (run.thread_id, run.id)) for run in runs])
        for _ in range(200):
            begin(fleet)
        await anyio.sleep(10.0)
        polls = stage.count("poll")
        assert 80 <= polls <= 120
        assert len(stage.server.requests) - polls >= 80


async def test_slow_creates_leave_places_in_flight_to_polls(stage: Stage) -> None:
    stage.server.inject(Fault(on="create_thread", delay_after=25.0, times=None))
    runs = await stage.runs(10, queued=0.0, working=5.0)
    async with Fleet(stage.client, requests_per_second=None, max_in_flight=10, on_exit="leave") as fleet:
        for _ in range(100):
            begin(fleet)
        await anyio.sleep(1.0)
        watches = [fleet.watch(run) for run in runs]
        with anyio.fail_after(30.0):
            outcomes = [await watch for watch in watches]
    assert {type(outcome) for outcome in outcomes} == {Completed}


async def test_a_create_that_is_refused_for_its_rate_slows_the_fleet_and_is_repeated(stage: Stage) -> None:
    client = Client(transport=stage.transport)
    stage.server.inject(Fault(on="create_thread", status=429, every=2, times=30))
    async with Fleet(client, requests_per_second=50) as fleet:
        outcomes = await asyncio.gather(*[begin(fleet) for _ in range(60)])
        assert fleet.statistics().throttled > 0.0
    assert {type(outcome) for outcome in outcomes} == {Completed}
    assert len(stage.server.runs) == 60


async def test_the_messages_of_an_outcome_are_fetched_within_the_budget_and_without_it_afterwards(stage: Stage) -> None:
    async with Fleet(stage.client, requests_per_second=2) as fleet:
        outcomes = [await begin(fleet) for _ in range(3)]
        began = anyio.current_time()
        await asyncio.gather(*[outcome.text() for outcome in outcomes for _ in range(4)])
        assert anyio.current_time() - began > 4.0
        waiting = [asyncio.create_task(outcomes[0].text()) for _ in range(20)]
        await anyio.sleep(0.1)
    began = anyio.current_time()
    assert await asyncio.gather(*waiting, outcomes[1].text()) == ["Hello."] * 21
    assert anyio.current_time() - began < 1.0


async def test_messages_that_cannot_be_fetched_raise_as_soon_as_without_a_fleet(stage: Stage) -> None:
    stage.server.inject(Fault(on="messages", status=500, times=None))
    async with Fleet(Client(transport=stage.transport)) as fleet:
        outcome = await begin(fleet)
        began = anyio.current_time()
        with pytest.raises(APIStatusError):
            await outcome.text()
        assert anyio.current_time() - began < 5.0


async def test_the_messages_of_a_response_that_was_given_up_are_fetched_within_the_budget(stage: Stage) -> None:
    response = await stage.response(working=5.0, answer="Hello.")
    stage.server.inject(Fault(on="poll", status=503, times=2))
    async with Fleet(stage.client, requests_per_second=1, on_exit="leave") as fleet:
        outcome = await fleet.watch(response_id=response.id, timeout=0)
        assert (type(outcome), outcome.run) == (GaveUp, None)
        stage.server.faults.clear()
        await anyio.sleep(10.0)
        began, asked = anyio.current_time(), stage.count("poll")
        fetched = await asyncio.gather(*[outcome.messages() for _ in range(5)])
        assert [message.text for (message,) in fetched] == ["Hello."] * 5
        assert anyio.current_time() - began > 3.0
    await outcome.messages()
    assert stage.count("poll") - asked == 6


async def test_a_caller_that_is_cancelled_while_it_waits_for_a_permit_takes_none(stage: Stage) -> None:
    async with Fleet(stage.client, requests_per_second=1) as fleet:
        outcome = await begin(fleet)
        asked = stage.count("messages")
        fetching = [asyncio.create_task(outcome.text()) for _ in range(10)]
        await anyio.sleep(1.5)
        for task in fetching:
            task.cancel()
        await asyncio.wait(fetching)
        assert fleet.statistics().due == 0
        await anyio.sleep(30.0)
        assert stage.count("messages") - asked <= 3
        assert fleet.statistics().in_flight == 0


# Failures


@WIRES
async def test_a_create_that_fails_is_an_outcome_for_everybody(stage: Stage, wire: str) -> None:
    seen: list[AnyOutcome[Any]] = []
    stage.server.inject(Fault(on=CREATES[wire], status=400, message="No."))  # type: ignore[arg-type]
    async with Fleet(stage.client, on_outcome=seen.append) as fleet:
        reading = asyncio.create_task(_first_of(fleet))
        watch = begin(fleet, wire, label={"row": 7})
        events = [event async for event in watch]
        outcome = await watch
        with pytest.raises(WatchGaveUpError, match=r"The run could not be created.* Cause: .*No\."):
            await watch.created()
        assert watch.explain().startswith("The run was not created: ")
        assert fleet.statistics().ended == 1
        assert fleet.statistics().active == fleet.statistics().creating == 0
        read = await reading
    assert (seen, [event.outcome for event in events if isinstance(event, Ended)]) == ([outcome], [outcome])
    assert read is outcome
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.ref.ids, outcome.refs, outcome.run) == (Reason.NOT_CREATED, (), (), None)
    assert isinstance(outcome.cause, BadRequestError)
    found = outcome.to_dict()
    assert (found["reason"], found["ref"]["ids"], found["label"]) == ("not_created", [], {"row": 7})
    assert not watch.is_active
    with pytest.raises(InvalidRequestError, match="has finished"):
        await watch.submit({"call_1": "x"})


async def _first_of(fleet: Fleet[Any]) -> AnyOutcome[Any]:
    with fleet.keep_open():
        return await anext(aiter(fleet))


async def test_a_create_that_breaks_unexpectedly_is_an_outcome_too(stage: Stage) -> None:
    def fail(request: Request) -> None:
        if request.method == "POST":
            raise LookupError("a bug")

    stage.transport.before = fail
    async with Fleet(stage.client) as fleet:
        outcome = await begin(fleet)
    assert isinstance(outcome.cause, LookupError)


async def test_a_lost_answer_to_a_create_is_adopted_in_a_fleet_as_well(stage: Stage) -> None:
    stage.server.inject(Fault(on="create_run", drop=True, acts=True, every=2, times=None))
    async with Fleet(stage.client) as fleet:
        outcomes = await asyncio.gather(*[begin(fleet) for _ in range(20)])
    assert {type(outcome) for outcome in outcomes} == {Completed}
    assert len(stage.server.runs) == 20


async def test_a_thread_that_is_busy_is_an_outcome(stage: Stage) -> None:
    run = await stage.run(end="never")
    async with Fleet(stage.client, on_exit="leave") as fleet:
        outcome = await begin(fleet, thread_id=run.thread_id)
    assert isinstance(outcome.cause, ThreadBusyError)


async def test_too_many_refusals_for_the_rate_end_as_an_outcome(stage: Stage) -> None:
    stage.server.inject(Fault(on="create_thread", status=429, times=None))
    async with Fleet(Client(transport=stage.transport), requests_per_second=5) as fleet:
        began = anyio.current_time()
        outcome = await begin(fleet)
        assert 45.0 < anyio.current_time() - began < 120.0
    assert isinstance(outcome.cause, RateLimitError)


# Cancelling, and leaving the fleet


async def test_a_watch_cancelled_before_its_create_was_sent_creates_nothing(stage: Stage) -> None:
    async with Fleet(stage.client, requests_per_second=0.5) as fleet:
        first, second = begin(fleet), begin(fleet)
        waiting = asyncio.create_task(second.created())
        await anyio.sleep(0.5)
        assert second.cancel()
        assert not second.cancel()
        for wait in (waiting, second.created(), second.wait()):
            with pytest.raises(asyncio.CancelledError):
                await wait
        assert fleet.statistics().active == 1
        await first
        assert await _all(fleet) == []
    assert len(stage.server.runs) == 1


async def _all(fleet: Fleet[Any]) -> list[AnyOutcome[Any]]:
    return [outcome async for outcome in fleet]


async def test_a_watch_cancelled_in_the_call_that_created_it_creates_nothing(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        begin(fleet).cancel()
    assert stage.server.requests == []


@WIRES
@pytest.mark.parametrize("on_exit", ["drain", "leave", "cancel"])
async def test_a_run_created_while_its_watch_is_cancelled_is_not_lost(
    stage: Stage, wire: str, on_exit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stage.server.inject(Fault(on=CREATES[wire], delay_after=2.0))  # type: ignore[arg-type]
    async with Fleet(stage.client, on_exit=on_exit) as fleet:
        watch = begin(fleet, wire)
        await anyio.sleep(1.0)
        watch.cancel()
        with anyio.move_on_after(10.0):
            await anyio.sleep(10.0)
        assert await _all(fleet) == []
    await _check_is_not_lost(stage, wire, on_exit, caplog)
    assert other_tasks() == []


async def _check_is_not_lost(stage: Stage, wire: str, on_exit: str, caplog: pytest.LogCaptureFixture) -> None:
    assert stage.count(CREATES[wire]) == 1
    assert stage.count("cancel") == (on_exit == "cancel")
    warned = [record for record in caplog.messages if "was being created when its watch ended" in record]
    assert len(warned) == (on_exit != "cancel")


@WIRES
@pytest.mark.parametrize("on_exit", ["leave", "cancel"])
async def test_a_run_created_while_the_fleet_is_left_is_not_lost(
    stage: Stage, wire: str, on_exit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[AnyOutcome[Any]] = []
    stage.server.inject(Fault(on=CREATES[wire], delay_after=4.0))  # type: ignore[arg-type]
    stage.server.script(Scenario(end="never"), **BEGIN_OF[wire])
    async with Fleet(stage.client, on_exit=on_exit, on_outcome=seen.append) as fleet:
        watch = begin(fleet, wire)
        await anyio.sleep(1.0)
        began = anyio.current_time()
    assert 3.0 <= anyio.current_time() - began < 6.0
    assert watch.ref.ids
    assert await watch.created() == watch.ref
    await _check_is_not_lost(stage, wire, on_exit, caplog)
    assert [type(outcome) for outcome in seen] == [Cancelled] * (on_exit == "cancel")
    assert other_tasks() == []


@pytest.mark.parametrize("on_exit", ["leave", "cancel"])
async def test_a_create_without_an_answer_delays_leaving_for_a_bounded_time(
    stage: Stage, on_exit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[AnyOutcome[Any]] = []
    stage.server.inject(Fault(on="create_run", delay_after=1000.0))
    async with Fleet(stage.client, on_exit=on_exit, on_outcome=seen.append) as fleet:
        watch = begin(fleet, label="x")
        await anyio.sleep(1.0)
        began = anyio.current_time()
    assert anyio.current_time() - began <= 10.1
    (outcome,) = seen
    assert (outcome, outcome.reason, outcome.label) == (await watch, Reason.NOT_CREATED, "x")
    assert "no answer came; it may go on" in caplog.text
    assert other_tasks() == []


@pytest.mark.parametrize("on_exit", ["leave", "cancel"])
async def test_creates_that_were_not_sent_finish_when_the_fleet_is_left(
    stage: Stage, on_exit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[AnyOutcome[Any]] = []
    async with Fleet(stage.client, on_exit=on_exit, on_outcome=seen.append, requests_per_second=4) as fleet:
        watches = [begin(fleet, label=number) for number in range(200)]
        await anyio.sleep(3.1)
    uncreated = [outcome for outcome in seen if outcome.reason is Reason.NOT_CREATED]
    created = [watch for watch in watches if watch.ref.ids]
    assert len(created) == len(stage.server.runs)
    assert len(uncreated) + len(created) == 200
    assert {outcome.cause for outcome in uncreated} == {None}
    assert caplog.text == "", "what was not sent is not in doubt"
    for outcome in uncreated:
        with pytest.raises(WatchGaveUpError, match="or was not, since the fleet was left"):
            outcome.unwrap()
    assert stage.count("cancel") == (len(created) if on_exit == "cancel" else 0)
    assert other_tasks() == []


@pytest.mark.slow
async def test_a_fleet_that_lives_long_does_not_grow_with_what_it_has_created(stage: Stage) -> None:
    def alive() -> int:
        gc.collect()
        return sum(isinstance(each, PendingRun | Permit | Member) for each in gc.get_objects())

    thread = await stage.client.threads.create()
    before = alive()
    async with Fleet(stage.client) as fleet:
        for number in range(50):
            await (await begin(fleet)).text()
            begin(fleet).cancel()
            await begin(fleet, thread_id=thread.id, key=f"job {number % 5}")
        assert alive() - before <= 2
        assert fleet.statistics().active == 0


async def test_draining_waits_for_creates_and_then_for_their_runs(stage: Stage) -> None:
    async with Fleet(stage.client, requests_per_second=10) as fleet:
        watches = [begin(fleet) for _ in range(20)]
    assert {type(watch.outcome) for watch in watches} == {Completed}


async def test_a_fleet_that_is_left_by_an_error_drops_creates(stage: Stage) -> None:
    watches: list[Watch[Any]] = []
    with pytest.raises(LookupError):
        async with Fleet(stage.client, requests_per_second=1) as fleet:
            watches += [begin(fleet) for _ in range(20)]
            raise LookupError
    assert [type(watch.outcome) for watch in watches] == [GaveUp] * 20
    assert stage.server.runs == {}


async def test_a_run_may_be_cancelled_before_it_is_created(stage: Stage) -> None:
    stage.server.script(Scenario(end="never"), assistant_id=ASSISTANT)
    async with Fleet(stage.client) as fleet:
        watch = begin(fleet)
        with pytest.raises(InvalidRequestError, match="not created yet"):
            await watch.submit({"call_1": "x"})
        watch.poll_now()
        await watch.cancel_run()
        assert isinstance(await watch, Cancelled)


async def test_a_run_with_a_key_that_is_watched_already_is_shared(stage: Stage) -> None:
    thread = await stage.client.threads.create()
    async with Fleet(stage.client) as fleet:
        watches = [begin(fleet, thread_id=thread.id, key="job-7", label=number) for number in range(3)]
        refs = {await watch.created() for watch in watches}
        outcomes = {await watch for watch in watches}
        assert len(refs) == len(outcomes) == len(stage.server.runs) == fleet.statistics().ended == 1
        assert fleet.statistics().active == 0
        assert await begin(fleet, thread_id=thread.id, key="job-7") not in outcomes
    assert len(stage.server.runs) == 1


@pytest.mark.parametrize("on", ["create_thread", "create_run"])
async def test_at_the_end_of_the_loop_creates_are_cancelled_like_everything_and_those_who_wait_are_told(
    stage: Stage, on: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stage.server.inject(Fault(on=on, delay_after=1000.0))
    async with Fleet(stage.client, on_exit="leave") as fleet:
        watch = begin(fleet)
        waiting = asyncio.create_task(watch.created(), name="waits")
        await anyio.sleep(1.0)
        for task in asyncio.all_tasks():  # as `asyncio.run` does
            if task is not asyncio.current_task() and task is not waiting:
                task.cancel()
        await asyncio.wait({waiting})
    if on == "create_thread":
        assert isinstance(await watch, GaveUp)
        assert isinstance(waiting.exception(), WatchGaveUpError)
    else:
        assert [waiting.result().ids[1]] == list(stage.server.runs), "it was found by its nonce"
        assert f"The run {watch.ref} was being created when its watch ended" in caplog.text
    assert other_tasks() == []


# Many


def requests(number: int, **more: Any) -> list[Any]:
    return [{"message": f"Question {n}", "label": n, **more} for n in range(number)]


@WIRES
async def test_each_request_becomes_a_run_with_its_label(stage: Stage, wire: str) -> None:
    async with Fleet(stage.client) as fleet:
        running = asyncio.create_task(fleet.run_many(requests(50), **BEGIN_OF[wire]))  # type: ignore[arg-type]
        outcomes = await _all(fleet)
        assert await running == 50
    assert sorted(outcome.label for outcome in outcomes) == list(range(50))
    assert {type(outcome) for outcome in outcomes} == {Completed}
    assert stage.count(CREATES[wire]) == 50


class Source:
    """An async generator of requests that notes how far it was read."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.read = 0
        self.closed = False

    async def each(self) -> AsyncIterator[Any]:
        try:
            for request in requests(self.number):
                self.read += 1
                yield request
                await asyncio.sleep(0)
        finally:
            self.closed = True


async def test_requests_are_read_as_the_budget_allows(stage: Stage) -> None:
    source = Source(1000)
    async with Fleet(stage.client, requests_per_second=10, on_exit="leave") as fleet:
        running = asyncio.create_task(fleet.run_many(source.each(), assistant_id=ASSISTANT))
        await anyio.sleep(10.0)
        assert 20 < source.read < 100
        assert len(asyncio.all_tasks()) < 60, "a task for each create that is not even begun"
    with pytest.raises(InvalidRequestError, match="was left"):
        await running
    assert source.closed


async def test_no_more_runs_than_at_most_are_created_and_watched_at_once(stage: Stage) -> None:
    source = Source(30)
    async with Fleet(stage.client) as fleet:
        running = asyncio.create_task(fleet.run_many(source.each(), assistant_id=ASSISTANT, at_most=4))
        while not running.done():
            assert fleet.statistics().active <= 4
            await anyio.sleep(0.05)
    assert fleet.statistics().ended == 30


async def test_a_slow_reader_slows_the_creates_down(stage: Stage) -> None:
    source = Source(30)
    read = 0
    async with Fleet(stage.client) as fleet:
        running = asyncio.create_task(fleet.run_many(source.each(), assistant_id=ASSISTANT, at_most=5))
        async for _ in fleet:
            read += 1
            assert source.read - read <= 6
            await anyio.sleep(1.0)
        assert (await running, read) == (30, 30)


@pytest.mark.parametrize("bad", [{"label": 3}, {"message": "x", "key": "y"}, {"message": "x", "tool": 1}, 7, ["x"]])
async def test_a_bad_request_raises_with_its_number_and_those_before_go_on(stage: Stage, bad: Any) -> None:
    source: list[Any] = [*requests(3), bad, *requests(5)]
    async with Fleet(stage.client) as fleet:
        with pytest.raises(InvalidRequestError, match="Request 4 is invalid: "):
            await fleet.run_many(iter(source), assistant_id=ASSISTANT)
        assert len(await _all(fleet)) == 3


@pytest.mark.parametrize("given", ["text", {"message": "x"}, 7])
async def test_what_is_no_iterable_of_requests_is_refused(stage: Stage, given: Any) -> None:
    async with Fleet(stage.client) as fleet:
        with pytest.raises(InvalidRequestError, match=r"For one: fleet\.run"):
            await fleet.run_many(given, assistant_id=ASSISTANT)
        with pytest.raises(InvalidRequestError, match="at_most"):
            await fleet.run_many([], at_most=0)


async def test_cancelling_run_many_closes_its_source_and_what_was_begun_goes_on(stage: Stage) -> None:
    source = Source(1000)
    async with Fleet(stage.client, requests_per_second=20) as fleet:
        running = asyncio.create_task(fleet.run_many(source.each(), assistant_id=ASSISTANT))
        await anyio.sleep(5.0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert source.closed
        outcomes = await _all(fleet)
    assert len(outcomes) == len(stage.server.runs)
    assert source.read - 1 <= len(outcomes) <= source.read


async def test_faults_of_many_kinds_double_no_run_and_lose_none(stage: Stage) -> None:
    client = Client(transport=stage.transport, max_retries=6)  # each fifth create may fail several times
    stage.server.inject(
        Fault(on="create_run", drop=True, acts=True, every=7, times=None),
        Fault(on="create_run", drop=True, every=11, times=None),
        Fault(on="create_run", status=500, every=13, times=None),
        Fault(on="create_thread", status=429, every=5, times=None),
        Fault(on="poll", status=502, every=9, times=None),
    )
    async with Fleet(client, requests_per_second=200) as fleet:
        running = asyncio.create_task(fleet.run_many(requests(300), assistant_id=ASSISTANT))
        outcomes = []
        async for outcome in fleet:
            if outcome.reason is Reason.NOT_CREATED:  # three tries in a row certainly had no effect
                begin(fleet, label=outcome.label)
            else:
                outcomes.append(outcome)
        assert await running == 300
    assert sorted(outcome.label for outcome in outcomes) == list(range(300))
    completed = sum(isinstance(outcome, Completed) for outcome in outcomes)
    # By chance, all tries of one create may be lost: then there is no run, and the outcome says so.
    assert sum(outcome.reason is Reason.NOT_CREATED for outcome in outcomes) == 300 - completed <= 10
    assert len(stage.server.runs) == completed


# More will come


async def test_an_iteration_goes_on_while_the_fleet_is_kept_open(stage: Stage) -> None:
    async def produce() -> None:
        with fleet.keep_open(), fleet.keep_open():
            for number in range(4):
                begin(fleet, label=number)
                await anyio.sleep(60.0)

    async with Fleet(stage.client) as fleet:
        producing = asyncio.create_task(produce())
        draining = asyncio.create_task(fleet.drain())
        assert [outcome.label async for outcome in fleet] == [0, 1, 2, 3]
        await asyncio.wait({producing, draining}, timeout=0.0)
        assert producing.done()
        assert draining.done()
        assert await _all(fleet) == []


async def test_a_consumer_that_keeps_the_fleet_open_reads_until_it_is_left(stage: Stage) -> None:
    async def consume() -> list[AnyOutcome[Any]]:
        with fleet.keep_open():
            return await _all(fleet)

    async with Fleet(stage.client, on_exit="leave") as fleet:
        consuming = asyncio.create_task(consume())
        await anyio.sleep(100.0)
        begin(fleet)
        await anyio.sleep(100.0)
        assert not consuming.done()
    assert len(await consuming) == 1


async def test_leaving_does_not_wait_for_a_block_of_the_task_that_leaves(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        kept = fleet.keep_open()
        kept.__enter__()
        watch = begin(fleet)
        with pytest.raises(InvalidRequestError, match=r"leave keep_open\(\) before"):
            await fleet.drain()
    assert isinstance(watch.outcome, Completed)
    kept.__exit__(None, None, None)
    with pytest.raises(InvalidRequestError, match="was left"), fleet.keep_open():
        pass


async def test_leaving_waits_for_the_blocks_of_other_tasks(stage: Stage) -> None:
    async def produce() -> Watch[Any]:
        with fleet.keep_open():
            await anyio.sleep(50.0)
            return begin(fleet)

    async with Fleet(stage.client) as fleet:
        producing = asyncio.create_task(produce())
        await anyio.sleep(1.0)
    assert isinstance((await producing).outcome, Completed)


async def test_a_fleet_that_was_not_entered_cannot_be_kept_open(stage: Stage) -> None:
    with pytest.raises(InvalidRequestError, match="Enter the fleet first"), Fleet(stage.client).keep_open():
        pass


async def test_adding_exactly_as_many_runs_as_may_be_watched_returns_at_once(stage: Stage) -> None:
    runs = await stage.runs(5, end="never")
    async with Fleet(stage.client, on_exit="leave") as fleet:
        with anyio.fail_after(1.0):
            assert await fleet.add_many(runs, at_most=5) == 5
            assert await fleet.run_many(iter([]), at_most=5) == 0


async def test_an_outcome_does_not_keep_its_fleet(stage: Stage) -> None:
    async with Fleet(stage.client) as fleet:
        outcome = await begin(fleet)
    gone = weakref.ref(fleet._hub.runner)
    del fleet
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None
    assert await outcome.text()


async def test_a_create_that_is_given_up_twice_keeps_the_time_of_all_cancels(stage: Stage) -> None:
    """Once as its watch is cancelled, and once as the fleet is left, while its run is being cancelled."""
    stage.server.script(Scenario(queued=0.1, working=500.0), assistant_id=ASSISTANT)
    stage.server.inject(Fault(on="create_run", delay_after=2.0, skip=100))
    async with Fleet(stage.client, on_exit="cancel", requests_per_second=20) as fleet:
        watches = [begin(fleet) for _ in range(100)]
        for watch in watches:
            await watch.created()
        late = begin(fleet)
        await anyio.sleep(0.6)
        late.cancel()
        await anyio.sleep(1.95)
    assert {type(watch.outcome) for watch in watches} == {Cancelled}
