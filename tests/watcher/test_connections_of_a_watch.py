"""Connections that die, and failures that do not pass, in a watch over real sockets."""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import aiohttp.abc
import pytest
from raw_server import CERTIFICATE, RawServer, server_tls
from shells import Shell, watched

from asyncruns import APIConnectionError, Client, Completed, GaveUp, Reason, RunRef, Toolset
from asyncruns.testing import Emulator

RUN = {"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "assistant_id": "asst_1"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "double", "arguments": '{"n": 2}'}}
OPEN = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [CALL]}}


class OneRun:
    """The answers of the server of a run that asks for one round of outputs."""

    def __init__(self) -> None:
        self.submits = 0
        self.cancelled = False

    def act(self, method: str, path: str) -> Mapping[str, Any]:
        self.submits += path.endswith("/submit_tool_outputs")
        self.cancelled |= path.endswith("/cancel")
        if self.cancelled:
            return {**RUN, "status": "cancelled"}
        if method == "POST" and path.endswith("/runs"):
            return {**RUN, "status": "queued"}
        if method == "POST" and path.endswith("/threads"):
            return {"id": "thread_1", "object": "thread"}
        if "/messages" in path:
            return {"object": "list", "data": [], "has_more": False}
        return (
            {**RUN, "status": "completed"}
            if self.submits
            else {**RUN, "status": "requires_action", "required_action": OPEN}
        )


tools = Toolset()


@tools.tool
def double(n: int) -> int:
    return 2 * n


# Fact 46


@pytest.mark.real_time
@pytest.mark.parametrize("borrows", [False, True], ids=["own", "borrowed"])
async def test_a_server_that_closes_each_connection_unannounced_loses_no_submit(shell: Shell, borrows: bool) -> None:
    run = OneRun()
    async with (
        RawServer(run.act, closes_after=0.02).running() as server,
        aiohttp.ClientSession() as session,
        Client(server.base_url, session=session if borrows else None) as client,
    ):
        outcome = await watched(shell, client, thread_id="thread_1", run_id="run_1", tools=tools)
    assert isinstance(outcome, Completed)
    assert (run.submits, server.arrived("POST")) == (1, 1)


# Fact 35


async def test_the_cancel_of_a_watch_carries_neither_body_nor_content_type(shell: Shell) -> None:
    run = OneRun()
    async with (
        RawServer(run.act).running() as server,
        Client(server.base_url) as client,
        shell(client, thread_id="thread_1", run_id="run_1", on_exit="leave") as watch,
    ):
        await watch.cancel_run()
        await watch.wait()
    (cancel,) = [head for head in server.heads if head.startswith("POST")]
    assert "/cancel" in cancel
    assert "content-type" not in cancel.lower()
    assert "content-length: 0" in cancel.lower()


# Fact 45


async def test_a_poll_whose_connection_breaks_is_sent_once(shell: Shell) -> None:
    run, breaks = OneRun(), 1

    def act(method: str, path: str) -> Mapping[str, Any] | None:
        nonlocal breaks
        if method == "GET" and breaks:
            breaks -= 1
            return None
        return run.act(method, path)

    async with (
        RawServer(act).running() as server,
        Client(server.base_url) as client,
        shell(client, thread_id="thread_1", run_id="run_1", tools=tools, on_exit="leave") as watch,
    ):
        outcome = await watch.wait()
    assert isinstance(outcome, Completed)
    assert server.arrived("GET") == watch.polls


# Fact 47


class Names(aiohttp.abc.AbstractResolver):
    """A name resolver with the answers of the test."""

    def __init__(self, **errors: OSError) -> None:
        self.error: OSError | None = errors.get("error")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        if self.error is not None:
            raise self.error
        found = aiohttp.abc.ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
        )
        return [found]

    async def close(self) -> None:
        pass


async def gives_up_at_once(shell: Shell, base_url: str, says: str, **options: Any) -> None:
    """Check that a watch gives up within a few seconds, with a cause that says what to set."""
    began = asyncio.get_running_loop().time()
    async with Client(base_url, **options) as client:
        outcome = await watched(shell, client, thread_id="thread_1", run_id="run_1")
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.UNREACHABLE
    assert isinstance(outcome.cause, APIConnectionError)
    assert (outcome.cause.passes, outcome.cause.sent) == (False, False)
    assert says in str(outcome.cause)
    assert asyncio.get_running_loop().time() - began < 5


async def test_an_untrusted_certificate_ends_a_watch_at_once(shell: Shell) -> None:
    async with RawServer(OneRun().act, tls=server_tls()).running() as server:
        await gives_up_at_once(shell, server.base_url, "ssl=ssl.create_default_context(cafile=")
    assert server.heads == []


async def test_a_certificate_for_another_host_ends_a_watch_at_once(shell: Shell) -> None:
    trust = ssl.create_default_context(cadata=CERTIFICATE)
    async with RawServer(OneRun().act, tls=server_tls()).running() as server:
        await gives_up_at_once(shell, server.base_url, "certificate is for another host", ssl=trust)


async def test_a_wrong_fingerprint_ends_a_watch_at_once(shell: Shell) -> None:
    async with RawServer(OneRun().act, tls=server_tls()).running() as server:
        await gives_up_at_once(shell, server.base_url, "fingerprint", ssl=aiohttp.Fingerprint(b"x" * 32))


@pytest.mark.real_time
async def test_https_to_a_port_of_http_ends_a_watch_at_once(shell: Shell) -> None:
    async with Emulator() as emulator:
        await gives_up_at_once(shell, emulator.base_url.replace("http:", "https:"), "write http:// in base_url")


@pytest.mark.real_time
async def test_http_to_a_port_of_https_ends_a_watch_at_once(shell: Shell) -> None:
    async with RawServer(OneRun().act, tls=server_tls()).running() as server:
        await gives_up_at_once(shell, server.base_url.replace("https:", "http:"), "write https:// in base_url")


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), OSError(None, "Domain name not found")],
    ids=["the system's", "of aiodns"],
)
async def test_an_unknown_host_ends_a_watch_at_once(shell: Shell, error: OSError) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Names(error=error))) as session:
        await gives_up_at_once(shell, "http://host.example/v1", "check the host in base_url", session=session)


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), OSError(None, "Timeout while contacting DNS servers")],
    ids=["the system's", "of aiodns"],
)
async def test_a_name_server_that_does_not_answer_may_come_back(shell: Shell, error: OSError) -> None:
    names = Names(error=error)
    connector = aiohttp.TCPConnector(resolver=names, use_dns_cache=False, force_close=True)
    async with RawServer(OneRun().act).running() as server, aiohttp.ClientSession(connector=connector) as session:
        client = Client(f"http://host.example:{server.port}/v1", session=session)
        async with shell(client, thread_id="thread_1", run_id="run_1", tools=tools, on_exit="leave") as watch:
            await asyncio.sleep(20)
            names.error = None
            outcome = await watch.wait()
    assert isinstance(outcome, Completed)


async def test_a_host_that_has_answered_may_come_back(shell: Shell) -> None:
    names = Names()
    connector = aiohttp.TCPConnector(resolver=names, use_dns_cache=False, force_close=True)
    status = "in_progress"

    def act(method: str, path: str) -> Mapping[str, Any]:
        return {**RUN, "status": status}

    async with RawServer(act).running() as server, aiohttp.ClientSession(connector=connector) as session:
        client = Client(f"http://host.example:{server.port}/v1", session=session)
        async with shell(client, thread_id="thread_1", run_id="run_1", on_exit="leave") as watch:
            while not server.heads:
                await asyncio.sleep(0)
            names.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            await asyncio.sleep(40)
            names.error, status = None, "completed"
            outcome = await watch.wait()
    assert isinstance(outcome, Completed)


async def test_a_watch_of_a_response_ends_at_once_if_the_server_is_unreachable(shell: Shell) -> None:
    async with RawServer(OneRun().act, tls=server_tls()).running() as server, Client(server.base_url) as client:
        outcome = await watched(shell, client.responses.alone, RunRef("response", ("resp_1",)))
    assert isinstance(outcome, GaveUp)
    assert outcome.reason is Reason.UNREACHABLE


@pytest.mark.parametrize("stream", [False, True], ids=["at once", "as a stream"])
async def test_a_create_is_not_sent_again_if_the_server_is_unreachable(stream: bool) -> None:
    began = asyncio.get_running_loop().time()
    async with RawServer(OneRun().act, tls=server_tls()).running() as server, Client(server.base_url) as client:
        with pytest.raises(APIConnectionError, match="ssl=") as caught:
            if stream:
                await client.threads.runs.create("thread_1", assistant_id="asst_1", stream=True)
            else:
                await client.threads.runs.create("thread_1", assistant_id="asst_1", adopt=True)
    assert not caught.value.passes
    assert asyncio.get_running_loop().time() - began < 0.4  # the pause before another attempt would be longer


# Facts 55 and 56


class Id(str, enum.Enum):  # noqa: UP042 - as it is written in most programs
    THREAD = "thread_1"
    RUN = "run_1"


async def test_a_watch_takes_members_of_an_enum_for_ids(shell: Shell) -> None:
    async with RawServer(OneRun().act).running() as server, Client(server.base_url) as client:
        outcome = await watched(shell, client, thread_id=Id.THREAD, run_id=Id.RUN, tools=tools)
    assert isinstance(outcome, Completed)
    assert outcome.ref.ids == ("thread_1", "run_1")
    assert {head.split(" ")[1].partition("/runs/")[2].partition("/")[0] for head in server.heads} == {"run_1"}


@pytest.mark.real_time  # a thread calls it
async def test_a_watch_is_signed_by_a_plain_function(shell: Shell) -> None:
    async with RawServer(OneRun().act).running() as server, Client(server.base_url, api_key=lambda: "t-1") as client:
        outcome = await watched(shell, client, thread_id="thread_1", run_id="run_1", tools=tools)
    assert isinstance(outcome, Completed)
    assert all("Authorization: Bearer t-1" in head for head in server.heads)


@pytest.mark.real_time
async def test_a_token_function_that_returns_none_ends_a_watch_at_once(shell: Shell) -> None:
    nothing: Any = lambda: None  # noqa: E731 - as a caller may write it
    await gives_up_at_once(shell, "http://127.0.0.1:9/v1", "it returned a NoneType", api_key=nothing)
