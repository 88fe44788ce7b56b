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
    RunRef,
    RunWatcher,
    StatusChanged,
    TextAdded,
    Toolset,
    Watch,
)
from asyncruns._loop import loop_time
from asyncruns.abc import ByteStream, Transport
from asyncruns.http import Request, Response
from asyncruns.streams.event_stream import source_of
from asyncruns.testing import Fault, FunctionCall, InMemoryTransport, Scenario

ANSWER = "The answer is rather long, so that it comes in pieces."


@pytest.fixture
def transport() -> InMemoryTransport:
    transport = InMemoryTransport(latency=0.01)
    transport.script(Scenario(answer=ANSWER, queued=0.5, working=5.0), assistant_id="asst_1")
    transport.script(Scenario(answer=ANSWER, queued=0.5, working=5.0), model="gpt-test")
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


# What must not go wrong


class Open(Transport):
    """Counts the streams that are open."""

    def __init__(self, inner: InMemoryTransport) -> None:
        self.inner = inner
        self.streams = 0

    async def send(self, request: Request) -> Response:
        return await self.inner.send(request)

    async def stream(self, request: Request) -> Response | ByteStream:
        answer = await self.inner.stream(request)
        return answer if isinstance(answer, Response) else Counted(answer, self)

    async def aclose(self) -> None:
        await self.inner.aclose()


class Counted(ByteStream):
    def __init__(self, inner: ByteStream, of: Open) -> None:
        self.inner, self.of, self.is_open = inner, of, True
        of.streams += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def read(self) -> bytes:
        return await self.inner.read()

    async def aclose(self) -> None:
        self.of.streams -= self.is_open
        self.is_open = False
        await self.inner.aclose()


@pytest.fixture
def opened(transport: InMemoryTransport) -> Open:
    return Open(transport)


@pytest.mark.parametrize("events", [4, 5, 6, 7])
async def test_outputs_that_are_submitted_without_a_stream_harm_no_other_watch(
    client: Client, transport: InMemoryTransport, events: int
) -> None:
    calls = ((FunctionCall("f", {}),),)
    transport.script(Scenario(answer=ANSWER, queued=0.5, working=5.0, rounds=calls), assistant_id="asst_1")
    transport.inject(Fault(on="create_run", stream="silence", events=events))
    tools = Toolset()
    tools.tool(lambda **given: "7", name="f", parameters={"type": "object"})
    async with Fleet(client, tools=tools) as fleet:
        watches = [fleet.watch(await streamed(client)) for _ in range(2)]
        await watches[0].created()
        await anyio.sleep(5.8)
        assert fleet.poll_now(watches[0].ref)
        assert [type(await watch) for watch in watches] == [Completed] * 2


async def test_an_unexpected_error_in_one_stream_finishes_its_watch_only(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text_in(event: object) -> str:
        raise ValueError(event)

    broken = await streamed(client)
    monkeypatch.setattr(source_of(broken), "text_in", text_in)
    async with Fleet(client) as fleet:
        watches = fleet.watch(broken), fleet.watch(await streamed(client))
        outcomes = [await watch for watch in watches]
        assert [event async for event in watches[0].subscribe()][-1].outcome is outcomes[0]  # type: ignore[union-attr]
    assert outcomes[0].reason is Reason.BROKE
    assert isinstance(outcomes[1], Completed)


@pytest.mark.parametrize("steps", range(8))
async def test_a_watch_that_is_cancelled_while_it_begins_closes_its_stream(opened: Open, steps: int) -> None:
    async with Client(transport=opened) as client, Fleet(client, on_exit="leave") as fleet:
        watch = fleet.watch(await streamed(client))
        for _ in range(steps):
            await asyncio.sleep(0)
        watch.cancel()
        await anyio.sleep(1.0)
        assert opened.streams == 0
        assert fleet.statistics().active == 0


async def test_a_fleet_that_is_left_at_once_does_not_wait_for_a_silent_stream(
    opened: Open, transport: InMemoryTransport
) -> None:
    transport.inject(Fault(on="create_run", stream="silence", events=0))
    async with Client(transport=opened) as client:
        began = loop_time()
        async with Fleet(client, on_exit="leave") as fleet:
            fleet.watch(await streamed(client))
        assert loop_time() - began < 6.0
        assert opened.streams == 0


@pytest.mark.parametrize("first", ["the run", "another stream"])
async def test_the_stream_of_a_run_that_is_watched_serves_its_subscribers(opened: Open, first: str) -> None:
    async with Client(transport=opened) as client:
        create = client.responses.create
        await client.threads.create()
        response: Any = await create(model="gpt-test", input="Hello", background=True, stream=True)
        await anext(response)
        await response.close()
        ref = RunRef.of(response)
        async with Fleet(client) as fleet, asyncio.TaskGroup() as group:
            known: Watch[Any] = fleet.watch(ref)
            if first == "another stream":
                known = fleet.watch(await client.responses.retrieve(ref.ids[0], stream=True))
                await known.created()
            watch = fleet.watch(await client.responses.retrieve(ref.ids[0], stream=True))
            texts = [group.create_task(text_shown(each)) for each in (known, watch)]
            outcome = await watch
        answer = await outcome.text()
        assert [text.result() for text in texts] == [answer] * 2
        assert opened.streams == 0


async def text_shown(watch: Any) -> str:
    """Return what a page would show: each state replaces the text."""
    shown = ""
    async for event in watch.subscribe():
        if isinstance(event, CurrentState):
            shown = event.text
        elif isinstance(event, TextAdded):
            shown += event.text
    return shown


@pytest.mark.parametrize("events", range(6, 11))
async def test_a_subscriber_that_begins_while_the_rest_is_fetched_gets_it(
    client: Client, transport: InMemoryTransport, events: int
) -> None:
    transport.inject(Fault(on="create_run", stream="close", events=events), Fault(on="messages", delay_after=2.0))
    async with Fleet(client) as fleet:
        watch = fleet.watch(await streamed(client))
        early = asyncio.create_task(text_shown(watch))
        await watch
        assert await text_shown(watch) == ANSWER
        assert await early == ANSWER


async def test_text_that_is_missing_is_said_to_be(client: Client, transport: InMemoryTransport) -> None:
    transport.inject(Fault(on="create_run", stream="close", events=8))
    async with Fleet(client) as fleet:
        watch = fleet.watch(await streamed(client))
        await watch  # nobody subscribes, so the rest of the text is not fetched
        await anyio.sleep(1.0)
        state, ended = [event async for event in watch.subscribe()]
    assert isinstance(state, CurrentState)
    assert state.text != ANSWER
    assert not state.is_whole
    assert isinstance(ended, Ended)


async def test_a_stream_that_breaks_before_a_reopened_watch_ends_has_one_end(
    client: Client, transport: InMemoryTransport
) -> None:
    calls = ((FunctionCall("f", {}),),)
    transport.script(Scenario(answer=ANSWER, queued=0.5, working=5.0, rounds=calls), assistant_id="asst_1")
    transport.inject(Fault(on="create_run", stream="close", events=4))
    async with Fleet(client) as fleet:
        watch = fleet.watch(await streamed(client))
        outcome = await watch
        await watch.submit({call.id: "7" for call in outcome.calls})
        *_, ended = [event async for event in watch.subscribe()]
        assert isinstance(ended, Ended)
        assert isinstance(ended.outcome, Completed)


async def test_a_stream_is_polled_at_once_when_it_is_asked(client: Client, transport: InMemoryTransport) -> None:
    transport.inject(Fault(on="create_run", stream="silence", events=3))
    async with Fleet(client) as fleet:
        watch = fleet.watch(await streamed(client))
        await watch.created()
        await anyio.sleep(1.0)
        watch.poll_now()
        await anyio.sleep(0.1)
        assert watch.polls == 1


async def test_a_stream_without_a_name_is_not_polled(client: Client) -> None:
    async with Fleet(client) as fleet:
        watch = fleet.watch(await streamed(client))
        watch.poll_now()
        assert isinstance(await watch, Completed)
    assert watch.polls == 0


@pytest.mark.parametrize("how", ["cancel", "leave"])
async def test_a_run_whose_stream_is_given_up_at_once_is_cancelled_if_the_fleet_cancels(
    opened: Open, transport: InMemoryTransport, how: str
) -> None:
    async with Client(transport=opened) as client:
        async with Fleet(client, on_exit="cancel") as fleet:
            watch = fleet.watch(await streamed(client))
            if how == "cancel":
                watch.cancel()
        assert [run["status"] for run in transport.runs.values()] == ["cancelled"]
        assert opened.streams == 0


async def test_a_stream_that_the_caller_has_read_in_part_has_its_text_so_far(client: Client) -> None:
    stream = await streamed(client)
    async for text in stream.text_deltas():
        if text:
            break
    async with Fleet(client) as fleet:
        assert await text_shown(fleet.watch(stream)) == ANSWER


async def test_the_stream_of_an_earlier_round_does_not_serve_a_later_one(client: Client, transport: Any) -> None:
    rounds = ((FunctionCall("f", {}),),)
    transport.script(Scenario(answer=ANSWER, queued=0.5, working=5.0, rounds=rounds), model="gpt-test")
    tools = Toolset()
    tools.tool(lambda **given: "7", name="f", parameters={"type": "object"})
    created: Any = await client.responses.create(model="gpt-test", input="Hello", background=True, stream=True)
    await anext(created)
    await created.close()
    first = RunRef.of(created)
    async with Fleet(client, tools=tools) as fleet:
        watch: Watch[Any] = fleet.watch(first)
        async for event in watch:
            if event.ref != first:
                break
        again: Watch[Any] = fleet.watch(await client.responses.retrieve(first.ids[0], stream=True))
        statuses = [event.status async for event in again if isinstance(event, StatusChanged)]
        assert isinstance(await watch, Completed)
    assert statuses in (["in_progress", "completed"], ["completed"])
