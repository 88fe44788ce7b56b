"""The emulator as a transport: the same server as over sockets, and a client that uses it."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest

from asyncruns import (
    AnyOutcome,
    APIConnectionError,
    APIError,
    APITimeoutError,
    BearerAuth,
    Cancelled,
    Client,
    Completed,
    ConfigurationError,
    Expired,
    NotFoundError,
    RunWatcher,
    Toolset,
)
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.testing import Emulator, Fault, FunctionCall, InMemoryTransport, Scenario, VirtualTimeLoop

ROUND: Final = (FunctionCall("f", {"n": 1}), FunctionCall("f", {"n": 2}))
TIMEOUT_S: Final = 4.0  # aiohttp rounds timeouts above 5 s up to whole seconds
Server = Emulator | InMemoryTransport
Story = Callable[[Client, Server], Awaitable[object]]


@asynccontextmanager
async def by_sockets(**options: Any) -> AsyncIterator[tuple[Client, Emulator]]:
    async with Emulator(**options) as emulator, Client(emulator.base_url, max_retries=0) as client:
        yield client, emulator


@asynccontextmanager
async def in_memory(**options: Any) -> AsyncIterator[tuple[Client, InMemoryTransport]]:
    transport = InMemoryTransport(**options)
    async with Client(transport=transport, max_retries=0) as client:
        yield client, transport


@pytest.fixture(autouse=True)
def _same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the clock of every server at the same time, so that their answers can be compared byte by byte."""
    monkeypatch.setattr("asyncruns.testing.emulator.backend.time", SimpleNamespace(time=lambda: 1.8e9))


@pytest.fixture
async def memory() -> AsyncIterator[tuple[Client, InMemoryTransport]]:
    async with in_memory() as both:
        yield both


def add_one() -> Toolset:
    async def f(n: int) -> int:
        return n + 1

    return Toolset([f])


# The same results with and without sockets


async def summary_of(outcome: AnyOutcome[Any], server: Server) -> object:
    """Return all of an outcome that does not depend on the random part of the pauses, and the server's requests."""
    polls_aside = [(seen.operation, seen.run_id, seen.acted) for seen in server.requests if seen.operation != "poll"]
    text = await outcome.text() if isinstance(outcome, Completed) else None
    run_id = outcome.ref.ids[-1]
    return type(outcome), outcome.ref, outcome.run, outcome.error, text, polls_aside, server.submitted(run_id)


async def with_tools(client: Client, server: Server) -> object:
    server.script(Scenario(rounds=(ROUND, ROUND[:1])), assistant_id="asst_1")
    return await summary_of(await client.run(assistant_id="asst_1", message="Go", tools=add_one()), server)


async def on_one_thread(client: Client, server: Server) -> object:
    server.script(Scenario(answer="First"), assistant_id="asst_1")
    first = await client.run(assistant_id="asst_1", message="Go")
    second = await client.run(assistant_id="asst_1", message="Go on", thread_id=first.unwrap().thread_id)
    listed = [message async for message in client.threads.messages.list(second.unwrap().thread_id or "")]
    return listed, await summary_of(second, server)


async def to_expiry(client: Client, server: Server) -> object:
    server.script(Scenario(end="never"), assistant_id="asst_1")
    return await summary_of(await client.run(assistant_id="asst_1", message="Go"), server)


async def failing(client: Client, server: Server) -> object:
    server.script(Scenario(end="failed", error_code="rate_limit_exceeded"), assistant_id="asst_1")
    return await summary_of(await client.run(assistant_id="asst_1", message="Go"), server)


async def cancelled(client: Client, server: Server) -> object:
    server.script(Scenario(end="never"), assistant_id="asst_1")
    run = await client.threads.create_and_run(assistant_id="asst_1")
    async with RunWatcher(client, run) as watcher:
        await asyncio.sleep(3.3)
        await watcher.cancel_run()
        outcome = await watcher.wait()
    assert isinstance(outcome, Cancelled)
    return await summary_of(outcome, server)


async def submit_lost(client: Client, server: Server) -> object:
    server.script(Scenario(rounds=(ROUND,)), assistant_id="asst_1")
    server.inject(Fault(on="submit", drop=True, acts=True), Fault(on="poll", status=500, every=2, times=3))
    return await summary_of(await client.run(assistant_id="asst_1", message="Go", tools=add_one()), server)


async def a_model(client: Client, server: Server) -> object:
    server.script(Scenario(rounds=(ROUND,)), model="m")
    return await summary_of(await client.run(model="m", message="Go", tools=add_one()), server)


STORIES: Final[tuple[Story, ...]] = (
    with_tools,
    on_one_thread,
    to_expiry,
    failing,
    cancelled,
    submit_lost,
    a_model,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_a_run_ends_the_same_with_and_without_sockets(story: Story) -> None:
    async with by_sockets() as (client, server):
        expected = comparable(await story(client, server))
    async with in_memory(latency=0) as (client, transport):
        assert comparable(await story(client, transport)) == expected


def comparable(summary: object) -> str:
    """Number the ids in order, and mask times and nonces: some pauses, and with them the polls, are random."""
    names: dict[str, str] = {}
    text = re.sub(r"\b18\d{8}\b", "a time", re.sub(r"(?<=asyncruns_nonce': ')\w+", "a nonce", repr(summary)))
    return re.sub(r"\b(\w+?)_\w{24}\b", lambda found: names.setdefault(found[0], f"{found[1]}_{len(names)}"), text)


FAULTS: Final = (
    Fault(status=500),
    Fault(status=502),
    Fault(status=429, headers={"Retry-After": "2"}),
    Fault(status=204),
    Fault(on="poll", damage="html"),
    Fault(on="poll", damage="empty"),
    Fault(on="poll", damage="half"),
    Fault(on="poll", damage="cut"),
    Fault(on="poll", damage="repeat", times=2),
    Fault(on="poll", stale=0.4, times=3),
    pytest.param(Fault(on="poll", rewrite=lambda body: {**body, "status": "thinking"}), id="rewrite"),
    Fault(on="submit", drop=True),
    Fault(on="submit", drop=True, acts=True),
    Fault(on="submit", delay_after=100),
    Fault(on="submit", delay_before=1, delay_after=1),
    Fault(on="create_thread_and_run", delay_before=5),
    Fault(on="create_thread_and_run", delay_before=math.inf),
    Fault(on="create_thread_and_run", delay_after=math.inf),
    Fault(on="cancel", status=409, acts=True),
)


async def exchanges(transport: Transport) -> list[object]:
    """Send nearly every request that a watch needs, valid and invalid, at fixed times; return the answers."""
    answers: list[object] = []

    async def ask(method: str, path: str, body: object = None, query: tuple[tuple[str, str], ...] = ()) -> Any:
        raw = None if body is None else msgspec.json.encode(body)
        try:
            answer = await transport.send(Request(method, path, query, raw, timeout=TIMEOUT_S))
        except APIConnectionError as error:
            answers.append((type(error), error.sent, error.method, error.path))
            return {}
        answers.append((answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.body))
        is_whole = answer.status == 200 and answer.body[-1:] == b"}"
        return msgspec.json.decode(answer.body) if is_whole else {}

    thread = (await ask("POST", "/threads", {"messages": [{"role": "user", "content": "Hi"}]})).get("id", "none")
    await ask("POST", f"/threads/{thread}/messages", {"role": "user", "content": "Go"})
    run = await ask("POST", "/threads/runs", {"assistant_id": "asst_1", "thread": {}})
    path = f"/threads/{run.get('thread_id', 'none')}/runs/{run.get('id', 'none')}"
    calls: list[Any] = []
    for _ in range(4):
        await asyncio.sleep(0.3)
        seen = await ask("GET", path)
        calls = ((seen.get("required_action") or {}).get("submit_tool_outputs") or {}).get("tool_calls") or calls
    outputs = {"tool_outputs": [{"tool_call_id": call["id"], "output": "1"} for call in calls]}
    await ask("POST", f"{path}/submit_tool_outputs", {"tool_outputs": []})
    await ask("POST", f"{path}/submit_tool_outputs", outputs)
    await ask("POST", f"{path}/submit_tool_outputs", outputs)
    await asyncio.sleep(0.3)
    await ask("POST", f"{path}/cancel")
    await asyncio.sleep(1)
    await ask("GET", path)
    await ask("POST", f"{path}/cancel")
    await ask("GET", f"/threads/{thread}/messages", query=(("order", "asc"), ("run_id", "a b&c"), ("limit", "7")))
    await ask("GET", "/nothing/of%2Fthe/kind")
    await ask("POST", "/responses", {"model": "m", "input": "Hi", "background": True})
    return answers


def without_framing(answers: list[object]) -> list[object]:
    for answer in answers:
        if isinstance(answer, tuple) and isinstance(answer[1], dict):
            answer[1].pop("content-length", None)
    return answers


@pytest.mark.parametrize("fault", [None, *FAULTS], ids=repr)
async def test_answers_are_the_same_to_the_byte(fault: Fault | None) -> None:
    found: list[list[object]] = []
    for server_of in (by_sockets, in_memory):
        async with server_of(poll_after_ms=250) as (client, server):
            server.script(Scenario(rounds=(ROUND,)), assistant_id="asst_1")
            server.inject(*([] if fault is None else [fault]))
            found.append(without_framing(await exchanges(client.transport)))
            began = server.requests[0].at
            found[-1] += [(seen.operation, seen.run_id, seen.status, seen.acted) for seen in server.requests]
            found[-1] += [round(seen.at - began, 6) for seen in server.requests]
    assert found[0] == found[1]


# The transport itself


def get(path: str = "/threads/thread_1", **options: Any) -> Request:
    return Request("GET", path, **options)


async def test_an_answer_takes_its_latency_by_the_clock_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    transport = InMemoryTransport(latency=0.25)
    began = loop.time()
    await transport.send(get())
    await transport.send(get())
    assert loop.time() - began == pytest.approx(0.5)
    assert [seen.at - began for seen in transport.requests] == pytest.approx([0, 0.25])


async def test_other_tasks_run_even_without_latency() -> None:
    transport, turns = InMemoryTransport(), []

    async def ask(name: str) -> None:
        for _ in range(2):
            await transport.send(get())
            turns.append(name)

    await asyncio.gather(ask("a"), ask("b"))
    assert turns == ["a", "b", "a", "b"]


@pytest.mark.parametrize("fault", [None, Fault(status=500)])
async def test_a_request_whose_answer_is_too_late_has_taken_effect(fault: Fault | None) -> None:
    loop = asyncio.get_running_loop()
    transport = InMemoryTransport(latency=3, request_timeout=2)
    transport.inject(*([] if fault is None else [fault]))
    began = loop.time()
    with pytest.raises(APITimeoutError, match=r"No answer in time: POST /threads in memory") as caught:
        await transport.send(Request("POST", "/threads"))
    assert (caught.value.sent, caught.value.path, loop.time() - began) == (True, "/threads", 2)
    assert transport.requests[0].acted is (fault is None)
    assert (await transport.send(Request("POST", "/threads", timeout=math.inf))).status == 200


async def test_the_server_acts_although_the_client_was_cancelled() -> None:
    transport = InMemoryTransport()
    transport.inject(Fault(on="create_thread", delay_before=5))
    sending = asyncio.create_task(transport.send(Request("POST", "/threads")))
    await asyncio.sleep(1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not transport.requests[0].acted
    await asyncio.sleep(5)
    assert (transport.requests[0].acted, transport.requests[0].status) == (True, 200)


def broken(*_: object) -> Any:
    raise LookupError("a mistake in a test")


async def test_a_mistake_of_the_test_raises_from_send() -> None:
    transport = InMemoryTransport()
    transport.inject(Fault(on="create_thread", rewrite=broken))
    with pytest.raises(LookupError, match="mistake"):
        await transport.send(Request("POST", "/threads"))
    transport.script(broken, assistant_id="asst_1")
    with pytest.raises(LookupError, match="mistake"):
        await transport.send(Request("POST", "/threads/runs", body=b'{"assistant_id": "asst_1"}'))


async def test_a_mistake_that_comes_too_late_is_reported_by_the_loop() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    transport = InMemoryTransport(request_timeout=1)
    transport.inject(Fault(on="create_thread", rewrite=broken, delay_before=2))
    with pytest.raises(APITimeoutError):
        await transport.send(Request("POST", "/threads"))
    await asyncio.sleep(2)
    assert [type(context["exception"]) for context in reported] == [LookupError]


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Content-Encoding", "Connection"])
def test_a_fault_of_the_wire_is_refused(name: str) -> None:
    transport = InMemoryTransport()
    with pytest.raises(ValueError, match=f"{name.lower()} has no effect without a wire; use the Emulator"):
        transport.inject(Fault(status=500), Fault(headers={name: "7"}))
    assert transport.faults == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": -1}, "latency is -1"),
        ({"latency": math.nan}, "latency is nan"),
        ({"request_timeout": 0}, "request_timeout is 0"),
        ({"clock_skew": math.inf}, "clock_skew is inf"),
        ({"late_cancel": 300}, "late_cancel is 300"),
    ],
)
def test_invalid_values_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InMemoryTransport(**options)


async def test_it_records_requests_without_credentials() -> None:
    transport = InMemoryTransport(Scenario(), latency=0.05)
    query = (("order", "asc"), ("include[]", "a b"))
    await transport.send(get("/threads/t/messages", query=query, headers=(("Api-Key", "sk-hidden"), ("X-Mine", "1"))))
    (seen,) = transport.requests
    assert (seen.method, seen.path, seen.operation, seen.status) == ("GET", "/v1/threads/t/messages", "messages", 404)
    assert seen.query == "order=asc&include%5B%5D=a+b"
    assert seen.headers == {"api-key": "***", "x-mine": "1"}
    assert repr(transport) == "<InMemoryTransport latency=0.05 runs=0 responses=0 batches=0 requests=1>"


def test_it_outlives_an_event_loop_and_its_clock_continues() -> None:
    transport = InMemoryTransport(Scenario(end="never"))
    transport.script(Scenario(end="never"), assistant_id="asst_1")

    async def wait() -> None:
        await transport.send(Request("POST", "/threads/runs", body=b'{"assistant_id": "asst_1"}'))
        await asyncio.sleep(400)

    for _ in range(2):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(wait())
    assert transport.now() == 1.8e9 + 800
    assert [run["status"] for run in transport.runs.values()] == ["expired", "in_progress"]
    assert len(transport.responses) == 0


# A client over this transport, and over any other


async def test_a_client_runs_tools_over_it(memory: tuple[Client, InMemoryTransport]) -> None:
    client, transport = memory
    transport.script(Scenario(rounds=(ROUND,)), assistant_id="asst_1")
    outcome = await client.run(assistant_id="asst_1", message="Go", tools=add_one())
    assert await outcome.text() == "f: 2\nf: 3"
    (submitted,) = transport.submitted(outcome.unwrap().id)
    assert list(submitted.values()) == ["2", "3"]


@pytest.mark.slow
async def test_ten_minutes_pass_in_no_time(memory: tuple[Client, InMemoryTransport]) -> None:
    client, transport = memory
    transport.script(Scenario(end="never"), assistant_id="asst_1")
    outcomes = await asyncio.gather(*(client.run(assistant_id="asst_1", message="Go") for _ in range(20)))
    assert {type(outcome) for outcome in outcomes} == {Expired}
    assert all(outcome.elapsed >= 600 for outcome in outcomes)


async def test_ten_thousand_polls(memory: tuple[Client, InMemoryTransport]) -> None:
    client, transport = memory
    transport.script(Scenario(working=9.95), assistant_id="asst_1")
    runs = [await client.threads.create_and_run(assistant_id="asst_1") for _ in range(100)]

    async def poll(run_id: str, thread_id: str | None) -> list[str]:
        seen = []
        for _ in range(100):
            await asyncio.sleep(0.1)
            seen.append((await client.threads.runs.retrieve(run_id, thread_id=thread_id or "")).status)
        return seen

    seen = await asyncio.gather(*(poll(run.id, run.thread_id) for run in runs))
    assert all(each == ["in_progress"] * 100 for each in seen)
    assert len(transport.requests) == 10_100
    await asyncio.sleep(0.1)
    assert {run["status"] for run in transport.runs.values()} == {"completed"}


async def test_a_refusal_raises_the_same_exception_as_over_sockets(memory: tuple[Client, InMemoryTransport]) -> None:
    client, transport = memory
    with pytest.raises(NotFoundError, match="No thread found with id 'thread_1'") as caught:
        await client.threads.retrieve("thread_1")
    assert caught.value.request_id.startswith("req_")
    transport.inject(Fault(on="create_thread", drop=True))
    with pytest.raises(APIConnectionError, match="the connection was dropped"):
        await client.threads.create()


async def test_requests_are_retried_over_a_transport_of_the_caller() -> None:
    transport = InMemoryTransport()
    async with Client(transport=transport) as client:
        transport.inject(Fault(on="create_thread", status=429, times=2))
        await client.threads.create()
    assert [seen.status for seen in transport.requests] == [429, 429, 200]


class Closing(Transport):
    closed = 0

    async def send(self, request: Request) -> Response:
        raise APIError("nothing is sent here")

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_transport_of_the_caller_is_not_closed() -> None:
    transport = Closing()
    async with Client(transport=transport) as client:
        assert client.transport is transport
        assert (client.base_url, repr(client)) == ("", f"<Client {transport!r}>")
    assert transport.closed == 0
    memory = InMemoryTransport()
    await memory.aclose()
    await memory.aclose()
    assert (await memory.send(Request("POST", "/threads"))).status == 200


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"base_url": "https://host.example/v1"}, "base_url="),
        ({"auth": BearerAuth("sk-hidden"), "proxy": "http://u:hidden@proxy.example"}, "auth=, proxy="),
        ({"version": None, "trust_env": True}, "version=, trust_env="),
        ({"default_headers": {}, "default_query": {"a": "hidden"}}, "default_headers=, default_query="),
        ({"request_timeout": None, "ssl": False}, "request_timeout=, ssl="),
        ({"session": object()}, "session="),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_a_transport_of_the_caller_would_ignore_are_refused(options: Any, names: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{names} would have no effect beside transport=") as caught:
        Client(transport=InMemoryTransport(), **options)
    assert "hidden" not in str(caught.value)


def test_a_value_that_is_not_a_transport_is_refused() -> None:
    wrong: Any = SimpleNamespace(send=None)
    with pytest.raises(ConfigurationError, match=r"instance of asyncruns.abc.Transport, not SimpleNamespace"):
        Client(transport=wrong)
