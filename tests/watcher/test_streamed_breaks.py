"""Streams that break: they are reopened or completed, and each piece of the text is read exactly once."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest
from broken_server import BREAK, PIECES, TEXT, Body, BrokenServer, Events, Reopen, answer, events_of, response
from test_streamed import ANSWER, ROUNDS, Tools, all_of, polls

from asyncruns import APIConnectionError, Client, Completed, Failed, GaveUp, RunWatcher, StreamBroken
from asyncruns.errors import APIError
from asyncruns.testing import Fault, FunctionCall, InMemoryTransport, Scenario
from asyncruns.watch.stream_reopener import REOPEN_PAUSES_S

WHOLE: Final = events_of()
BROKEN_AT: Final = 5  # number of events before the break, with two pieces of the text
GONE: Final = answer(404, {"error": {"message": "No such response"}})


async def read(server: BrokenServer) -> tuple[list[str], Any, list[Any]]:
    """Return the text that a reader gets, the outcome, and the events of the watch."""
    async with Client(transport=server) as client:
        stream = await client.responses.create(model="m", input="?", background=True, stream=True)
        async with RunWatcher(client.responses.continued(), stream) as watcher:
            texts, reported = await asyncio.gather(all_of(watcher.text_deltas()), all_of(aiter(watcher)))
            return texts, await watcher.wait(), reported


async def events_read(server: BrokenServer) -> list[Any]:
    async with Client(transport=server) as client:
        stream = await client.responses.create(model="m", input="?", background=True, stream=True)
        async with RunWatcher(client.responses.continued(), stream) as watcher:
            return await all_of(watcher.stream_events())


def after(number: int | None, events: Events = WHOLE) -> Events:
    return [event for event in events if number is None or event["sequence_number"] > number]


def numbered(events: Events, begin: int = 0, step: int = 1) -> Events:
    return [{**event, "sequence_number": begin + place * step} for place, event in enumerate(events)]


def without_numbers(events: Events) -> Events:
    return [{name: value for name, value in event.items() if name != "sequence_number"} for event in events]


def renamed(events: Events, response_id: str, item_id: str) -> Events:
    found = []
    for event in events:
        other = {**event, **({"item_id": item_id} if "item_id" in event else {})}
        if "response" in event:
            other["response"] = {**event["response"], "id": response_id}
        found.append(other)
    return found


IN_WAYS: Final[dict[str, Reopen]] = {
    "what follows": lambda path, number: after(number),
    "the last events once more": lambda path, number: after((number or 0) - 3),
    "each event twice": lambda path, number: [event for one in after(number) for event in (one, one)],
    "all from the beginning": lambda path, number: WHOLE,
    "all from the beginning, numbered again from 1": lambda path, number: numbered(WHOLE, begin=1),
    "all from the beginning, in other pieces": lambda path, number: events_of(["One t", "wo thr", "ee four five."]),
    "all from the beginning, without numbers": lambda path, number: without_numbers(WHOLE),
    "all, in other pieces, without numbers": lambda path, number: events_of([*TEXT], numbered=False),
    "what follows, numbered again from 0": lambda path, number: numbered(after(number)),
    "what follows, numbered again from 3": lambda path, number: numbered(after(number), begin=3),
    "what follows, with gaps": lambda path, number: numbered(after(number), begin=9, step=3),
    "what follows, without numbers": lambda path, number: without_numbers(after(number)),
    "not all that follows": lambda path, number: [*after((number or 0) + 2)[:-1], WHOLE[-1]],
    "only the end": lambda path, number: WHOLE[-1:],
    "at its own path": lambda path, number: after(number) if path.endswith("/events") else GONE,
    "at its own path, elsewhere the response": lambda path, number: (
        after(number) if path.endswith("/events") else answer(200, response("in_progress"))
    ),
    "as an answer that came whole": lambda path, number: answer(
        200, b"".join(b"data: " + _json(event) + b"\n\n" for event in after(number))
    ),
}
REFUSED: Final[dict[str, Reopen]] = {
    "500 of a gateway": lambda path, number: answer(500, b"Unexpected end of JSON input"),
    "500 of a gateway at one path only": lambda path, number: GONE if "events" in path else answer(500, b"oh"),
    "400": lambda path, number: answer(400, {"error": {"message": "stream can only be resumed if ..."}}),
    "404": lambda path, number: GONE,
    "405": lambda path, number: answer(405, {"detail": "Method Not Allowed"}),
    "429": lambda path, number: answer(429, {"error": {"message": "slower"}}),
    "the response": lambda path, number: answer(200, response("in_progress")),
    "another response": lambda path, number: answer(200, response("failed", id="resp_9")),
    "the stream of another response": lambda path, number: renamed(events_of(["No! "]), "resp_9", "msg_9"),
    "the middle of the stream of another": lambda path, number: renamed(after(number), "resp_9", "msg_9"),
    "a page": lambda path, number: answer(200, b"<html>Sign in</html>"),
    "a page as a stream": lambda path, number: Body([{"type": "x", "html": "<html>"}]),
    "nothing": lambda path, number: [],
    "no answer": lambda path, number: APIConnectionError("refused", sent=False),
    "that it is over": lambda path, number: answer(200, b"data: [DONE]\n\n"),
    "the status": lambda path, number: [{**WHOLE[1], "sequence_number": (number or 0) + 1}],
    "the status without a number": lambda path, number: without_numbers([WHOLE[1]]),
    "a break at once": lambda path, number: [BREAK],
    "an error": lambda path, number: [{"type": "error", "message": "overloaded"}],
}


def _json(event: object) -> bytes:
    return answer(200, event).body


@pytest.mark.parametrize("way", IN_WAYS)
@pytest.mark.parametrize("broken_at", [1, 3, 4, BROKEN_AT, 8, 9])
async def test_each_piece_comes_once_in_whatever_way_a_stream_is_reopened(way: str, broken_at: int) -> None:
    server = BrokenServer([*WHOLE[:broken_at], BREAK], IN_WAYS[way])
    texts, outcome, reported = await read(server)
    assert "".join(texts) == TEXT
    assert isinstance(outcome, Completed)
    assert server.reopened
    assert server.polls == 0  # the stream showed the end
    assert not any(isinstance(event, StreamBroken) for event in reported)


@pytest.mark.parametrize("way", ["what follows", "the last events once more", "all from the beginning"])
async def test_each_event_comes_once_when_a_stream_is_reopened(way: str) -> None:
    found = await events_read(BrokenServer([*WHOLE[:BROKEN_AT], BREAK], IN_WAYS[way]))
    assert [event.sequence_number for event in found] == list(range(len(WHOLE)))


@pytest.mark.parametrize("way", REFUSED)
async def test_the_text_is_completed_if_a_stream_is_not_reopened(way: str) -> None:
    server = BrokenServer([*WHOLE[:BROKEN_AT], BREAK], REFUSED[way])
    texts, outcome, reported = await read(server)
    assert texts == [*PIECES[:2], "".join(PIECES[2:])]
    assert (outcome.status, outcome.ref.ids) == ("completed", ("resp_1",))
    assert 0 < server.polls < 20
    assert len(server.reopened) <= 2 * len(REOPEN_PAUSES_S)
    assert sum(isinstance(event, StreamBroken) for event in reported) >= 1


async def test_the_second_attempt_may_succeed() -> None:
    def reopen(path: str, number: int | None) -> Any:
        return after(number) if len(server.reopened) > 2 else answer(503, b"restarting")

    server = BrokenServer([*WHOLE[:BROKEN_AT], BREAK], reopen, lasts=100.0)
    texts, outcome, reported = await read(server)
    assert (texts, outcome.status) == ([*PIECES], "completed")
    assert sum(isinstance(event, StreamBroken) for event in reported) == 1


async def test_a_stream_may_break_after_every_event() -> None:
    server = BrokenServer([*WHOLE[:2], BREAK], lambda path, number: [after(number)[0], BREAK], lasts=1000.0)
    texts, outcome, _ = await read(server)
    assert (texts, outcome.status, server.polls) == ([*PIECES], "completed", 0)
    assert [number for _, number in server.reopened] == list(range(1, len(WHOLE) - 1))


async def test_a_stream_that_ends_as_if_it_were_whole_is_reopened() -> None:
    server = BrokenServer(WHOLE[:BROKEN_AT], lambda path, number: after(number))
    assert (await read(server))[0] == [*PIECES]


async def test_the_error_event_of_a_server_that_ends_a_stream_does_not_end_the_watch() -> None:
    server = BrokenServer([*WHOLE[:4], {"type": "error", "message": "overloaded"}], lambda path, number: after(number))
    assert (await read(server))[0] == [*PIECES]


async def test_an_event_of_another_response_breaks_a_stream_and_is_ignored() -> None:
    stranger = {"type": "response.failed", "response": response("failed", id="resp_9")}
    server = BrokenServer([*WHOLE[:4], stranger, WHOLE[4]], lambda path, number: after(number))
    texts, outcome, _ = await read(server)
    assert (texts, outcome.status) == ([*PIECES], "completed")
    assert server.reopened == [("/responses/resp_1", 3)]


async def test_text_that_does_not_fit_is_an_error_and_not_hidden() -> None:
    server = BrokenServer([*WHOLE[:BROKEN_AT], BREAK], lambda path, number: GONE, text="Something else.")
    with pytest.raises(APIConnectionError, match=r"resp_1 broke.*does not continue it"):
        await read(server)
    other = [*after(4)[:-1], {**WHOLE[-1], "response": response("completed", "Something else.")}]
    with pytest.raises(APIConnectionError, match=r"resp_1 broke.*does not continue it"):
        await read(BrokenServer([*WHOLE[:BROKEN_AT], BREAK], lambda path, number: other))


async def test_a_whole_stream_is_believed_even_if_its_end_has_another_text() -> None:
    trimmed = {**WHOLE[-1], "response": response("completed", "one two three four five")}
    assert (await read(BrokenServer([*WHOLE[:-1], trimmed], lambda path, number: GONE)))[0] == [*PIECES]


async def test_a_response_of_which_only_the_end_is_streamed_has_its_text() -> None:
    server = BrokenServer([WHOLE[0], WHOLE[-1]], lambda path, number: GONE)
    assert (await read(server))[0] == [TEXT]
    async with Client(transport=server) as client:
        stream = await client.responses.create(model="m", input="?", stream=True)
        assert [text async for text in stream.text_deltas()] == [TEXT]


async def test_a_caller_that_only_waits_gets_no_error_about_the_text() -> None:
    server = BrokenServer([*WHOLE[:BROKEN_AT], BREAK], lambda path, number: GONE, text="Something else.")
    async with Client(transport=server) as client:
        stream = await client.responses.create(model="m", input="?", background=True, stream=True)
        assert isinstance(await client.watch(stream), Completed)


async def test_a_watch_that_gives_up_says_that_the_text_is_incomplete() -> None:
    server = BrokenServer([*WHOLE[:BROKEN_AT], BREAK], lambda path, number: GONE, lasts=1000.0)
    async with Client(transport=server) as client:
        stream = await client.responses.create(model="m", input="?", background=True, stream=True)
        async with RunWatcher(client.responses.continued(), stream, timeout=20.0) as watcher:
            with pytest.raises(APIConnectionError, match="gave up"):
                await all_of(watcher.text_deltas())
            assert isinstance(await watcher.wait(), GaveUp)


async def test_leaving_ends_the_reading_and_no_attempt_goes_on() -> None:
    server = BrokenServer([*WHOLE[:BROKEN_AT], BREAK], lambda path, number: answer(500, b""), lasts=1000.0)
    async with Client(transport=server) as client:
        stream = await client.responses.create(model="m", input="?", background=True, stream=True)
        async with RunWatcher(client.responses.continued(), stream) as watcher:
            reading = asyncio.ensure_future(all_of(watcher.text_deltas()))
            await asyncio.sleep(1.0)
        attempts = len(server.reopened)
        assert await reading == [*PIECES[:2]]
        await asyncio.sleep(60.0)
        assert len(server.reopened) == attempts


# The emulator, round after round


@pytest.fixture
def emulated() -> InMemoryTransport:
    transport = InMemoryTransport(latency=0.01)
    transport.script(Scenario(rounds=ROUNDS, answer=ANSWER), assistant_id="asst_1")
    transport.script(Scenario(rounds=ROUNDS, answer=ANSWER), model="gpt-test")
    return transport


@pytest.mark.parametrize("on", ["create_response", "submit"])
@pytest.mark.parametrize("events", range(2, 14))
@pytest.mark.parametrize("end", ["break", "close", "error"])
async def test_a_break_in_any_round_of_responses_costs_neither_text_nor_calls(
    emulated: InMemoryTransport, on: Any, events: int, end: Any
) -> None:
    emulated.inject(Fault(on=on, stream=end, events=events, times=None), Fault(on="poll", stream=end, events=2))
    tools = Tools()
    async with Client(transport=emulated) as client:
        stream: Any = await client.responses.create(model="gpt-test", input="Hi", background=True, stream=True)
        async with RunWatcher(client.responses.continued(), stream, tools=tools) as watcher:
            found = await all_of(watcher.stream_events())
            outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert "".join(event.delta for event in found if event.event == "response.output_text.delta") == ANSWER
    assert list(tools.calls.values()) == [1, 1, 1]
    names = [event.event for event in found]
    assert names.count("response.function_call_arguments.done") == 3
    assert names.count("response.completed") == 3
    assert outcome.polls <= (1 if end == "error" else 0)


async def test_a_response_that_ended_in_polls_before_its_follow_up_keeps_its_text(emulated: InMemoryTransport) -> None:
    """If no stream is reopened, the text of each response comes before that of the next."""
    emulated.inject(Fault(on="create_response", stream="break", events=3))
    emulated.inject(Fault(on="submit", stream="break", events=3, times=None))
    streamed = emulated.stream

    async def stream(request: Any) -> Any:
        return GONE if request.query else await streamed(request)

    emulated.stream = stream  # type: ignore[method-assign]
    async with Client(transport=emulated) as client:
        begun: Any = await client.responses.create(model="gpt-test", input="Hi", background=True, stream=True)
        async with RunWatcher(client.responses.continued(), begun, tools=Tools()) as watcher:
            assert "".join(await all_of(watcher.text_deltas())) == ANSWER
            assert isinstance(await watcher.wait(), Completed)


@pytest.mark.parametrize("on", ["create_run", "submit"])
@pytest.mark.parametrize("events", range(1, 16))
@pytest.mark.parametrize("end", ["break", "close", "error", "silence"])
async def test_the_text_of_a_run_whose_stream_breaks_is_completed_from_its_messages(
    emulated: InMemoryTransport, on: Any, events: int, end: Any
) -> None:
    emulated.script(Scenario(rounds=ROUNDS[:1] if on == "submit" else (), answer=ANSWER), assistant_id="asst_1")
    emulated.inject(Fault(on=on, stream=end, events=events))
    async with Client(transport=emulated) as client:
        thread = await client.threads.create()
        stream: Any = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
        async with RunWatcher(client, stream, tools=Tools()) as watcher:
            texts = await all_of(watcher.text_deltas())
            assert isinstance(await watcher.wait(), Completed)
    assert "".join(texts) == ANSWER


async def test_messages_that_lag_are_waited_for_and_messages_that_cannot_be_fetched_are_an_error(
    emulated: InMemoryTransport,
) -> None:
    emulated.script(Scenario(answer=ANSWER), assistant_id="asst_1")
    for faults, is_whole in (
        ([Fault(on="messages", body={"data": []})], True),
        ([Fault(on="messages", status=404)], False),
    ):
        emulated.inject(Fault(on="create_run", stream="break", events=8), *faults)
        async with Client(transport=emulated) as client:
            thread = await client.threads.create()
            stream: Any = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
            async with RunWatcher(client, stream) as watcher:
                if is_whole:
                    assert "".join(await all_of(watcher.text_deltas())) == ANSWER
                else:
                    with pytest.raises(APIConnectionError, match="could not be fetched") as caught:
                        await all_of(watcher.text_deltas())
                    assert isinstance(caught.value.__cause__, APIError)
                assert isinstance(await watcher.wait(), Completed)
    assert polls(emulated) > 0


async def test_a_run_that_failed_after_its_stream_broke_ends_the_text(emulated: InMemoryTransport) -> None:
    emulated.script(Scenario(rounds=((FunctionCall("add", {"a": 1, "b": 2}),),), end="failed"), assistant_id="asst_1")
    emulated.inject(Fault(on="submit", stream="break", events=2))
    async with Client(transport=emulated) as client:
        thread = await client.threads.create()
        stream: Any = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
        async with RunWatcher(client, stream, tools=Tools()) as watcher:
            assert await all_of(watcher.text_deltas()) == []
            assert isinstance(await watcher.wait(), Failed)


# Servers that ignore `stream=True`, and proxies that mix streams up


@pytest.mark.parametrize("times", [1, None])
@pytest.mark.parametrize("on", ["any", "submit"])
@pytest.mark.parametrize("wire", ["threads", "responses"])
async def test_a_run_that_comes_in_place_of_a_stream_is_polled_and_its_text_is_read(
    emulated: InMemoryTransport, wire: str, on: Any, times: int | None
) -> None:
    emulated.inject(Fault(on=on, stream="json", times=times))
    tools = Tools()
    async with Client(transport=emulated) as client:
        thread = await client.threads.create()
        stream: Any = (
            await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
            if wire == "threads"
            else await client.responses.create(model="gpt-test", input="Hi", background=True, stream=True)
        )
        connection: Any = client if wire == "threads" else client.responses.continued()
        async with RunWatcher(connection, stream, tools=tools) as watcher:
            assert "".join(await all_of(watcher.text_deltas())) == ANSWER
            outcome = await watcher.wait()
    assert isinstance(outcome, Completed)
    assert outcome.polls > 0
    assert list(tools.calls.values()) == [1, 1, 1]


@pytest.mark.parametrize("status", ["completed", "failed", "requires_action"])
async def test_an_event_of_another_run_in_a_stream_of_a_run_is_ignored(
    emulated: InMemoryTransport, status: str
) -> None:
    emulated.script(Scenario(answer=ANSWER), assistant_id="asst_1")
    stranger = {"id": "run_9", "object": "thread.run", "thread_id": "thread_9", "status": status}
    streamed = emulated.stream

    async def stream(request: Any) -> Any:
        found: Any = await streamed(request)
        if request.path.endswith("/runs") and request.method == "POST":
            read, count = found.read, 0

            async def mixed_up() -> Any:
                nonlocal count
                count += 1
                return b"data: " + _json(stranger) + b"\n\n" if count == 9 else await read()

            found.read = mixed_up
        return found

    emulated.stream = stream  # type: ignore[method-assign]
    async with Client(transport=emulated) as client:
        thread = await client.threads.create()
        begun: Any = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
        async with RunWatcher(client, begun) as watcher:
            texts, reported = await asyncio.gather(all_of(watcher.text_deltas()), all_of(aiter(watcher)))
            outcome = await watcher.wait()
    assert ("".join(texts), outcome.status) == (ANSWER, "completed")
    assert outcome.run is not None
    assert outcome.run.id == watcher.ref.ids[1] != "run_9"
    assert sum(isinstance(event, StreamBroken) for event in reported) == 1
    assert not any(getattr(event, "status", "") == "failed" for event in reported)
