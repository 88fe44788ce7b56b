"""A replay behaves as the recorded server did: the same outcomes, errors and delays, and nothing made up."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_recorder import Pieces, Served, lines_of, read_all

from asyncruns import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    Client,
    Completed,
    ConfigurationError,
    Fleet,
    GaveUp,
    RunWatcher,
    Toolset,
)
from asyncruns.abc import ByteStream, Transport
from asyncruns.http import Request, Response
from asyncruns.testing import (
    Emulator,
    Fault,
    FunctionCall,
    InMemoryTransport,
    Recorder,
    Replay,
    Scenario,
    UnexpectedRequestError,
)

CALL = FunctionCall("get_weather", {"city": "Paris"})
POLL = Request("GET", "/threads/t/runs/r")
SUBMIT = Request("POST", "/threads/t/runs/r/submit_tool_outputs", body=b"{}")

Story = Callable[[Client], Awaitable[object]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "day.jsonl"


def tools_that_take(seconds: float) -> Toolset:
    async def get_weather(city: str) -> str:
        await asyncio.sleep(seconds)
        return f"21 degrees in {city}"

    return Toolset([get_weather])


def all_of(outcome: Any) -> object:
    return type(outcome), outcome.ref, outcome.status, str(outcome.error), outcome.usage, len(outcome.outputs)


# A bad day


async def one_run(client: Client) -> object:
    outcome = await client.run(assistant_id="asst_1", message="Weather?", tools=tools_that_take(8.0))
    return all_of(outcome), await outcome.text()


async def a_streamed_run(client: Client) -> object:
    thread = await client.threads.create()
    stream = await client.threads.runs.create(thread.id, assistant_id="asst_1", stream=True)
    async with RunWatcher(client, stream, tools=tools_that_take(1.0)) as watcher:
        deltas = [text async for text in watcher.text_deltas()]
    return all_of(watcher.outcome), deltas


async def a_response(client: Client) -> object:
    return all_of(await client.run(model="gpt-4o", message="Hello", tools=tools_that_take(1.0)))


async def a_batch(client: Client) -> object:
    requests = [{"custom_id": f"r{n}", "body": {"model": "m", "input": f"q{n}"}} for n in range(3)]
    outcome: Any = await client.watch(await client.batches.create(requests=requests, endpoint="/v1/responses"))
    return outcome.status, [(result.custom_id, str(result)) async for result in outcome.results()]


async def a_fleet(client: Client) -> object:
    async with Fleet(client) as fleet:
        for number in range(12):
            fleet.run(assistant_id="asst_1", message=f"Question {number % 3}", tools=tools_that_take(1.0))
        return sorted([outcome.status async for outcome in fleet])


@pytest.mark.parametrize(
    "story", [one_run, a_streamed_run, a_response, a_batch, a_fleet], ids=lambda story: story.__name__
)
async def test_a_bad_day_is_replayed(story: Story, path: Path) -> None:
    scenario = Scenario(queued=1.0, working=4.0, rounds=((CALL,), (CALL, CALL)), answer="Warm.")
    async with Emulator(scenario) as emulator:
        emulator.script(scenario, assistant_id="asst_1")
        if story is not a_streamed_run:  # a stream that was not opened can't be found
            emulator.inject(Fault(on="create_run", drop=True, acts=True, times=1))
        emulator.inject(
            Fault(on="submit", drop=True, acts=True, times=1),
            Fault(on="poll", status=500, times=3),
            Fault(on="poll", damage="html", every=3, times=None),
            Fault(on="poll", drop=True, every=4, times=None),
        )
        async with (
            Client(emulator.base_url) as server,
            Client(transport=Recorder(server.transport, path)) as client,
        ):
            recorded = await story(client)
    replay = Replay(path)
    async with Client(transport=replay) as client:
        assert await story(client) == recorded
    assert [each for each in replay.left if "GET" not in each] == []


@pytest.mark.parametrize("seconds", [0.0, 40.0], ids=["faster", "slower"])
async def test_tools_may_take_another_time_than_they_did(seconds: float, path: Path) -> None:
    memory = InMemoryTransport()
    memory.script(Scenario(rounds=((CALL,), (CALL,)), answer="Warm."), assistant_id="asst_1")

    async def story(client: Client, seconds: float) -> object:
        return all_of(await client.run(assistant_id="asst_1", message="?", tools=tools_that_take(seconds)))

    async with Client(transport=Recorder(memory, path)) as client:
        recorded = await story(client, 12.0)
    async with Client(transport=Replay(path)) as client:
        assert await story(client, seconds) == recorded
    submits = [line for line in lines_of(path) if line.get("path", "").endswith("submit_tool_outputs")]
    assert len(submits) == 2


async def test_delays_are_those_of_the_recording(path: Path) -> None:
    async with Client(transport=Recorder(InMemoryTransport(latency=7.5), path)) as client:
        await client.threads.create()
    began = asyncio.get_running_loop().time()
    async with Client(transport=Replay(path)) as client:
        await client.threads.create()
    assert asyncio.get_running_loop().time() - began == pytest.approx(7.5)


# Which answer


def served(*bodies: bytes) -> Transport:
    rest: Iterator[bytes] = iter(bodies)
    return Served(lambda request: Response(200, {}, next(rest)))


async def recorded(path: Path, *requests: Request) -> Replay:
    """Record these requests, each with its number as its answer, and return the replay."""
    recorder = Recorder(served(*(str(number).encode() for number in range(len(requests)))), path)
    for request in requests:
        await recorder.send(request)
    return Replay(path)


async def answers(replay: Replay, *requests: Request) -> list[int]:
    return [int((await replay.send(request)).body) for request in requests]


async def test_equal_requests_get_their_answers_in_order(path: Path) -> None:
    one, other = Request("POST", "/threads", body=b'{"a": 1, "b": 2}'), Request("POST", "/threads", body=b"{}")
    replay = await recorded(path, one, other, one)
    same = Request("POST", "/threads", body=b'{"b":2,"a":1}')
    assert await answers(replay, same, same, other) == [0, 2, 1]
    assert replay.left == []


async def test_a_read_gets_its_last_answer_again_and_a_change_does_not(path: Path) -> None:
    replay = await recorded(path, POLL, POLL, SUBMIT)
    assert await answers(replay, POLL, POLL, POLL, SUBMIT, POLL) == [0, 1, 1, 2, 1]
    with pytest.raises(UnexpectedRequestError, match="not so often"):
        await replay.send(SUBMIT)


async def test_a_read_sees_a_change_only_after_it_was_sent(path: Path) -> None:
    other = Request("GET", "/threads/t/runs/other")
    replay = await recorded(path, POLL, POLL, POLL, SUBMIT, POLL, other, other)
    assert await answers(replay, POLL) == [0]
    assert await answers(replay, SUBMIT, POLL) == [3, 4]  # the polls before the submit are over
    assert await answers(replay, other, other) == [5, 6]


async def test_a_read_waits_for_a_change_with_its_last_answer(path: Path) -> None:
    replay = await recorded(path, POLL, SUBMIT, POLL)
    assert await answers(replay, POLL, POLL, POLL, SUBMIT, POLL) == [0, 0, 0, 1, 2]


async def test_the_nonces_of_this_client_are_in_the_answers(path: Path) -> None:
    def echo(request: Request) -> Response:
        return Response(200, {}, request.body or b"")

    def create(nonce: str) -> Request:
        return Request("POST", "/runs", body=json.dumps({"metadata": {"asyncruns_nonce": nonce * 32}}).encode())

    recorder = Recorder(Served(echo), path)
    await recorder.send(create("a"))
    await recorder.send(create("b"))
    replay = Replay(path)
    for nonce in "cd":
        request = create(nonce)
        answer = await replay.send(request)
        assert json.loads(answer.body) == json.loads(request.body or b"")


async def test_the_callers_function_is_applied_before_requests_are_compared(path: Path) -> None:
    def redact(body: bytes) -> bytes:
        return body.replace(b"Alice", b"x").replace(b"Bob", b"x")

    await Recorder(served(b"0"), path, redact=redact).send(Request("POST", "/x", body=b'"Alice"'))
    assert await answers(Replay(path, redact=redact), Request("POST", "/x", body=b'"Bob"')) == [0]


async def test_the_callers_function_may_come_after_the_recording(path: Path) -> None:
    await Recorder(served(b"0"), path).send(Request("POST", "/x", body=b'"at 12:00"'))
    with pytest.raises(UnexpectedRequestError, match="at 12:01"):
        await Replay(path).send(Request("POST", "/x", body=b'"at 12:01"'))
    replay = Replay(path, redact=lambda body: re.sub(rb"\d\d:\d\d", b"00:00", body))
    assert await answers(replay, Request("POST", "/x", body=b'"at 12:01"')) == [0]


# What was not recorded


async def test_an_unexpected_request_says_what_was_expected(path: Path) -> None:
    replay = await recorded(path, POLL, Request("POST", "/threads", body=b'{"a": 1}'))
    with pytest.raises(UnexpectedRequestError) as error:
        await replay.send(Request("DELETE", "/threads/t"))
    assert "DELETE /threads/t is not in" in str(error.value)
    assert "Expected next: GET /threads/t/runs/r (line 2), POST /threads (line 4)" in str(error.value)
    with pytest.raises(UnexpectedRequestError) as error:
        await replay.send(Request("POST", "/threads", body=b'{"a": 2}'))
    assert 'line 4.\nrecorded: {"a":1}\nnow:      {"a":2}' in str(error.value)


@pytest.mark.parametrize("shell", ["watch", "fleet"])
async def test_an_unexpected_request_ends_a_watch_at_once(shell: str, path: Path) -> None:
    memory = InMemoryTransport()
    memory.script(Scenario(rounds=((CALL,),)), assistant_id="asst_1")
    async with Client(transport=Recorder(memory, path)) as client:
        run = await client.threads.create_and_run(assistant_id="asst_1")
        assert isinstance(await client.watch(run, tools=tools_that_take(0.0)), Completed)

    async def get_weather(city: str) -> str:
        return "another output"

    tools = Toolset([get_weather])
    async with Client(transport=Replay(path)) as client:
        await client.threads.create_and_run(assistant_id="asst_1")
        with pytest.raises(UnexpectedRequestError, match="another output"):
            if shell == "watch":
                await client.watch(run, tools=tools)
            else:
                async with Fleet(client) as fleet:
                    outcome = await fleet.watch(run, tools=tools)
                assert isinstance(outcome, GaveUp)
                assert outcome.cause is not None
                raise outcome.cause


async def test_a_difference_in_a_long_body_is_shown(path: Path) -> None:
    long = "x" * 5000
    replay = await recorded(path, Request("POST", "/x", body=json.dumps([long, "before", long]).encode()))
    with pytest.raises(UnexpectedRequestError) as error:
        await replay.send(Request("POST", "/x", body=json.dumps([long, "after", long]).encode()))
    assert '"before","xxx' in str(error.value)
    assert '"after","xxx' in str(error.value)
    assert len(str(error.value)) < 1200


# Errors and ends


@pytest.mark.parametrize(
    "error",
    [
        APIConnectionError("refused", sent=False, passes=False, method="GET", path="/x"),
        APITimeoutError("late", sent=True, method="GET", path="/x"),
        APIResponseValidationError("too large", status=200, body=b"abc", request_id="r", method="GET", path="/x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_is_raised_as_it_was(error: APIConnectionError, path: Path) -> None:
    def fail(request: Request) -> Response:
        raise error

    with pytest.raises(type(error)):
        await Recorder(Served(fail), path).send(Request("GET", "/x"))
    with pytest.raises(type(error)) as raised:
        await Replay(path).send(Request("GET", "/x"))
    assert (str(raised.value), vars(raised.value)) == (str(error), vars(error))


async def test_a_broken_stream_breaks_again_at_the_same_place(path: Path) -> None:
    lost = APIConnectionError("The connection broke", sent=True, method="GET", path="/x")
    recorder = Recorder(Served(lambda request: Pieces(b"data: 1\n\ndata: 2\n\nda", lost)), path)
    with pytest.raises(APIConnectionError):
        await read_all(await recorder.stream(Request("GET", "/x")))
    stream = await Replay(path).stream(Request("GET", "/x"))
    assert isinstance(stream, ByteStream)
    assert [await stream.read() for _ in range(3)] == [b"data: 1\n\n", b"data: 2\n\n", b"da"]
    with pytest.raises(APIConnectionError, match="broke"):
        await stream.read()
    assert await stream.read() == b""


def cut_last_line(path: Path) -> None:
    """Leave the file as if the process had died while it wrote the last line."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:10])


async def test_a_request_that_was_left_or_cut_off_is_not_answered(path: Path) -> None:
    recorder = Recorder(InMemoryTransport(latency=60.0), path)
    for _ in range(2):
        task = asyncio.create_task(recorder.send(Request("POST", "/threads", body=b"{}", timeout=100.0)))
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait({task})
    cut_last_line(path)
    replay = Replay(path)
    for timeout in (5.0, 6.0):
        began = asyncio.get_running_loop().time()
        with pytest.raises(APITimeoutError) as error:
            await replay.send(Request("POST", "/threads", body=b"{}", timeout=timeout))
        assert error.value.sent
        assert asyncio.get_running_loop().time() - began == pytest.approx(timeout)


async def test_a_download_that_was_too_long_is_refused(path: Path) -> None:
    recorder = Recorder(Served(lambda request: Pieces(b"x" * 2**21)), path)
    await read_all(await recorder.download(Request("GET", "/x")))
    with pytest.raises(UnexpectedRequestError, match="2097152 bytes, too many"):
        await Replay(path).download(Request("GET", "/x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a recording"),
        ('{"a": 1}\n', "line 1, is not of a recording"),
        ('{"kind": "recording", "format": 2}\n', "is not a recording of format 1"),
        ('{"kind": "recording", "format": 1}\nnonsense\n', "line 2, is not of a recording"),
        ('{"kind": "recording", "format": 1}\n{"kind": "answer", "n": 7}\n', "exchange 7, which has no request"),
    ],
    ids=["empty", "another file", "newer", "malformed", "without a request"],
)
def test_a_file_that_is_no_recording_is_refused(text: str, message: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        Replay(path)
