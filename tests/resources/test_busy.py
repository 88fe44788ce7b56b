"""A thread that another run holds: the error that names the run, and the wait until it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from lossy import LOST, POLL, RUNS, Fault, Faulty, answer, faulty_client, pass_on

from asyncruns import Client, InvalidRequestError, NotFoundError, PermissionDeniedError, ThreadBusyError
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.resources import RawResponse
from asyncruns.testing import Emulator, FunctionCall, Scenario
from asyncruns.wire import Run


@dataclass
class HeldThread:
    """A thread that a run holds; later runs are of an assistant whose runs take half a second."""

    emulator: Emulator
    client: Client
    faulty: Faulty
    thread_id: str
    holder: Run

    async def create(self, **more: Any) -> Run:
        given: dict[str, Any] = {"assistant_id": "asst_1", **more}
        run: Run = await self.client.threads.runs.create(self.thread_id, **given)
        return run

    def status(self, run: Run) -> str:
        return str(self.emulator.runs[run.id]["status"])


Hold = Callable[[Scenario], Awaitable[HeldThread]]


@pytest.fixture
async def hold(emulator: Emulator) -> AsyncIterator[Hold]:
    client, faulty = faulty_client(emulator)

    async def hold(scenario: Scenario) -> HeldThread:
        emulator.script(scenario, assistant_id="asst_holder")
        emulator.script(Scenario(), assistant_id="asst_1")
        thread_id = (await client.threads.create()).id
        run = await client.threads.runs.create(thread_id, assistant_id="asst_holder")
        return HeldThread(emulator, client, faulty, thread_id, run)

    async with client:
        yield hold


async def test_the_error_names_the_run_and_says_what_to_do(hold: Hold) -> None:
    stage = await hold(Scenario(end="never"))
    messages = stage.client.threads.messages
    calls = [
        stage.create(),
        messages.create(stage.thread_id, content="Hi"),
        stage.client.run(assistant_id="asst_1", message="Hi", thread_id=stage.thread_id),
        messages.with_raw_response.create(stage.thread_id, content="Hi"),
        stage.client.threads.runs.with_raw_response.create(stage.thread_id, assistant_id="asst_1"),
    ]
    for call in calls:
        with pytest.raises(ThreadBusyError, match='on_busy="wait"') as caught:
            await call
        error = caught.value
        assert (error.active_run_id, error.thread_id, error.status) == (stage.holder.id, stage.thread_id, 400)
    assert stage.faulty.times(POLL) == []


@pytest.mark.parametrize(
    ("holder", "ended_as", "seconds", "most_polls"),
    [
        pytest.param(Scenario(working=7.0), "completed", 7.0, 15, id="ends"),
        pytest.param(Scenario(end="failed"), "failed", 0.5, 5, id="fails"),
        pytest.param(Scenario(end="never", lifetime=20.0), "expired", 20.0, 30, id="expires"),
        pytest.param(Scenario(rounds=((FunctionCall("f"),),)), "expired", 600.0, 310, id="waits for its owner"),
    ],
)
async def test_a_create_waits_until_the_active_run_has_ended(
    hold: Hold,
    holder: Scenario,
    ended_as: str,
    seconds: float,
    most_polls: int,
) -> None:
    stage = await hold(holder)
    start = anyio.current_time()
    run = await stage.create(on_busy="wait")
    assert stage.status(stage.holder) == ended_as
    assert stage.status(run) == "queued"
    assert seconds <= anyio.current_time() - start <= seconds + 2.5
    assert len(stage.faulty.times(POLL)) <= most_polls
    assert len(stage.faulty.times(RUNS)) == 3


async def test_the_active_run_can_be_watched_by_its_ids_in_the_error(hold: Hold) -> None:
    stage = await hold(Scenario(working=7.0))
    with pytest.raises(ThreadBusyError) as caught:
        await stage.create()
    outcome = await stage.client.watch(thread_id=caught.value.thread_id, run_id=caught.value.active_run_id)
    assert outcome.unwrap().id == stage.holder.id
    assert stage.status(await stage.create()) == "queued"


async def test_the_active_run_can_be_cancelled_before_the_wait(hold: Hold) -> None:
    stage = await hold(Scenario(end="never"))
    with pytest.raises(ThreadBusyError) as caught:
        await stage.create()
    busy = caught.value
    await stage.client.threads.runs.cancel(busy.active_run_id, thread_id=busy.thread_id)
    run = await stage.create(on_busy="wait")
    assert (stage.status(stage.holder), stage.status(run)) == ("cancelled", "queued")


async def test_a_message_is_added_after_the_wait(hold: Hold) -> None:
    stage = await hold(Scenario(working=7.0))
    message = await stage.client.threads.messages.create(stage.thread_id, content="Hi", on_busy="wait")
    assert stage.status(stage.holder) == "completed"
    newest = await stage.client.threads.messages.list(stage.thread_id, limit=1)
    assert [found.id for found in newest.data] == [message.id]


async def test_run_waits_before_the_message_and_before_the_run(hold: Hold) -> None:
    stage = await hold(Scenario(working=7.0))
    outcome = await stage.client.run(
        assistant_id="asst_1", message="Hi", thread_id=stage.thread_id, on_busy="wait", timeout=5.0
    )
    assert outcome.status == "completed"


async def test_a_raw_create_waits_too(hold: Hold) -> None:
    stage = await hold(Scenario(working=7.0))
    raw = await stage.client.threads.runs.with_raw_response.create(
        stage.thread_id, assistant_id="asst_1", on_busy="wait"
    )
    assert type(raw) is RawResponse
    assert raw.parse().status == "queued"


async def test_callers_that_wait_at_the_same_time_take_turns(hold: Hold) -> None:
    stage = await hold(Scenario(working=3.0))
    runs = await asyncio.gather(*(stage.create(on_busy="wait") for _ in range(4)))
    assert len({run.id for run in runs}) == 4
    began = sorted(run.created_at for run in runs if isinstance(run.created_at, int))
    assert len(began) == 4
    assert [stage.status(run) for run in runs].count("queued") == 1


async def test_a_create_waits_for_a_run_that_came_first_as_well(hold: Hold) -> None:
    stage = await hold(Scenario(working=3.0))

    async def slip_in(inner: Transport, request: Request) -> Response:
        await stage.client.threads.runs.create(stage.thread_id, assistant_id="asst_holder")
        return await inner.send(request)

    stage.faulty.faults[RUNS] = [pass_on, slip_in]
    start = anyio.current_time()
    await stage.create(on_busy="wait")
    assert anyio.current_time() - start >= 6.0


async def test_polls_that_fail_do_not_end_the_wait(hold: Hold) -> None:
    stage = await hold(Scenario(working=100.0))
    faults: list[Fault] = [answer(500), LOST, answer(200, b"<html>"), answer(429), answer(503)]
    stage.faulty.faults[POLL] = [*faults, *[answer(502)] * 20]
    await stage.create(on_busy="wait")
    assert stage.status(stage.holder) == "completed"


async def test_a_deleted_run_that_holds_the_thread_does_not_cause_frequent_tries(hold: Hold) -> None:
    stage = await hold(Scenario(working=20.0))
    stage.faulty.lasting[POLL] = answer(404)
    await stage.create(on_busy="wait")
    assert stage.status(stage.holder) == "completed"
    assert len(stage.faulty.times(RUNS)) <= 14


async def test_waiting_raises_if_the_active_run_can_not_be_polled(hold: Hold) -> None:
    stage = await hold(Scenario(working=20.0))
    stage.faulty.lasting[POLL] = answer(403)
    with pytest.raises(ThreadBusyError, match=r"That run can't be polled: .* answered 403") as caught:
        await stage.create(on_busy="wait")
    assert isinstance(caught.value.__cause__, PermissionDeniedError)


async def test_cancelling_ends_the_wait_and_creates_nothing(hold: Hold) -> None:
    stage = await hold(Scenario(working=20.0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5.0):
            await stage.create(on_busy="wait")
    sent = len(stage.faulty.asked)
    await anyio.sleep(60.0)
    assert len(stage.faulty.asked) == sent
    assert list(stage.emulator.runs) == [stage.holder.id]


async def test_other_refusals_end_the_wait(hold: Hold) -> None:
    stage = await hold(Scenario(working=3.0))
    with pytest.raises(NotFoundError):
        await stage.create(on_busy="wait", assistant_id="asst_unknown")


@pytest.mark.parametrize("on_busy", ["cancel", "", None, True])
async def test_an_invalid_on_busy_is_refused(on_busy: Any) -> None:
    client = Client("http://127.0.0.1:9/v1")
    calls = [
        client.threads.runs.create("thread_1", assistant_id="a", on_busy=on_busy),
        client.threads.messages.create("thread_1", content="Hi", on_busy=on_busy),
        client.run(assistant_id="a", message="Hi", on_busy=on_busy),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError, match='on_busy must be "raise" or "wait"'):
            await call
