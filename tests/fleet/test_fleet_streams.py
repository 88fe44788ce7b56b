"""A fleet that watches streams: how it begins, what it costs, and what is left when it goes wrong."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asyncruns import (
    APIError,
    Cancelled,
    Client,
    Completed,
    CurrentState,
    Ended,
    Fleet,
    GaveUp,
    InvalidRequestError,
    Reason,
    RunWatcher,
    TextAdded,
)
from asyncruns.testing import Fault, InMemoryTransport, Scenario

ANSWER = "The answer is rather long, so that it comes in pieces."


@pytest.fixture
def transport() -> InMemoryTransport:
    transport = InMemoryTransport(latency=0.01)
    transport.script(Scenario(answer=ANSWER, queued=0.5, working=5.0), assistant_id="asst_1")
    return transport


@pytest.fixture
async def client(transport: InMemoryTransport) -> AsyncIterator[Client]:
    async with Client(transport=transport) as client:
        yield client


async def streamed(client: Client) -> Any:
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hello"}])
    return await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)


async def text_of(watch: Any) -> str:
    return "".join([event.text async for event in watch.subscribe() if isinstance(event, CurrentState | TextAdded)])


async def test_streams_need_no_polls_and_subscribers_get_their_text(client: Client) -> None:
    async with Fleet(client) as fleet:
        watches = [fleet.watch(await streamed(client)) for _ in range(20)]
        assert await asyncio.gather(*(text_of(watch) for watch in watches)) == [ANSWER] * 20
        outcomes = [await watch for watch in watches]
    assert all(isinstance(outcome, Completed) for outcome in outcomes)
    assert sum(outcome.polls for outcome in outcomes) == 0
    assert len({outcome.ref for outcome in outcomes}) == 20


async def test_the_ref_is_known_when_the_stream_has_named_its_run(client: Client) -> None:
    async with Fleet(client) as fleet:
        watch = fleet.watch(await streamed(client))
        assert watch.ref.ids == ()
        ref = await watch.created()
        assert ref.ids
        assert fleet.poll_now(ref)
        assert (await watch).ref == ref


async def test_leaving_waits_until_subscribers_have_the_whole_text(
    client: Client, transport: InMemoryTransport
) -> None:
    transport.inject(Fault(on="create_run", stream="close", events=9))
    async with asyncio.TaskGroup() as group, Fleet(client) as fleet:
        text = group.create_task(text_of(fleet.watch(await streamed(client))))
    assert text.result() == ANSWER


async def test_a_stream_that_ends_before_it_names_its_run_is_an_outcome(
    client: Client, transport: InMemoryTransport
) -> None:
    transport.inject(Fault(on="create_run", stream="close", events=0))
    told: list[Any] = []
    async with Fleet(client, on_outcome=told.append) as fleet:
        outcome = await fleet.watch(await streamed(client), label="mine")
    assert isinstance(outcome, GaveUp)
    assert (outcome.reason, outcome.refs, outcome.label) == (Reason.NOT_CREATED, (), "mine")
    assert isinstance(outcome.cause, APIError)
    assert told == [outcome]


async def test_a_stream_that_is_watched_already_is_refused_at_once(client: Client) -> None:
    stream = await streamed(client)
    async with Fleet(client) as fleet, RunWatcher(client, stream):
        with pytest.raises(InvalidRequestError, match="by its ids"):
            fleet.watch(stream)


async def test_a_stream_of_another_kind_of_run_is_refused_at_once(client: Client) -> None:
    stream = await streamed(client)
    async with Fleet(client) as fleet:
        with pytest.raises(InvalidRequestError, match=r"of a thread\.run, but this client watches a response"):
            fleet.watch(stream, client=client.responses.continued())
    await stream.close()


async def test_the_stream_of_a_run_that_is_watched_already_shares_its_watch(client: Client) -> None:
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hello"}])
    stream = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
    (run,) = [run async for run in client.threads.runs.list(thread.id)]
    async with Fleet(client) as fleet:
        first = fleet.watch(run)
        await anyio.sleep(0.1)
        second = fleet.watch(stream)
        outcomes = await first, await second
    assert outcomes[0] == outcomes[1]
    assert fleet.statistics().ended == 1


@pytest.mark.parametrize("after", [0.0, 0.005, 2.0])
async def test_leaving_with_cancel_cancels_the_run_of_a_stream(client: Client, after: float) -> None:
    stream = await streamed(client)
    async with Fleet(client, on_exit="cancel") as fleet:
        watch = fleet.watch(stream)
        await anyio.sleep(after)
    assert isinstance(watch.outcome, Cancelled)


async def test_leaving_closes_the_streams(client: Client, transport: InMemoryTransport) -> None:
    for after in (0.0, 0.005, 0.02, 2.0):
        async with Fleet(client, on_exit="leave") as fleet:
            for _ in range(3):
                fleet.watch(await streamed(client))
            await anyio.sleep(after)
    gc.collect()


async def test_a_cancelled_watch_closes_its_stream_and_the_run_goes_on(client: Client) -> None:
    async with Fleet(client, on_exit="leave") as fleet:
        watch = fleet.watch(await streamed(client))
        ref = await watch.created()
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch
        assert isinstance(await fleet.watch(ref), Completed)


async def test_a_silent_stream_is_checked_by_polls(client: Client, transport: InMemoryTransport) -> None:
    transport.inject(Fault(on="create_run", stream="silence", events=4))
    async with Fleet(client) as fleet:
        watch = fleet.watch(await streamed(client))
        events = [event async for event in watch]
        assert isinstance(events[-1], Ended)
        outcome = await watch
    assert isinstance(outcome, Completed)
    assert 1 <= outcome.polls <= 4
    assert outcome.elapsed < 15.0
