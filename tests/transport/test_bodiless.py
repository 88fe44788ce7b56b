"""A request without a body has no content type: with one, some gateways try to parse a body and fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import pytest
from recording_server import RecordingServer
from transports import make_transport

from asyncruns import BearerAuth, Client
from asyncruns.http import Request

BODILESS: Final[dict[str, Callable[[Client], Awaitable[object]]]] = {
    "a cancel of a run": lambda client: client.threads.runs.cancel("run_1", thread_id="thread_1"),
    "a cancel of a run, raw": lambda client: client.threads.runs.with_raw_response.cancel("r", thread_id="t"),
    "a cancel of a response": lambda client: client.responses.cancel("resp_1"),
    "a cancel of a response, raw": lambda client: client.responses.with_raw_response.cancel("resp_1"),
    "a cancel with headers": lambda client: client.responses.cancel("resp_1", extra_headers={"x-more": "1"}),
    "a deletion": lambda client: client.threads.delete("thread_1"),
    "a read": lambda client: client.threads.retrieve("thread_1"),
}


@pytest.mark.parametrize("name", BODILESS)
@pytest.mark.parametrize("borrows", [False, True], ids=["own", "borrowed"])
async def test_a_request_without_a_body_has_no_content_type(name: str, borrows: bool) -> None:
    async with (
        RecordingServer() as server,
        aiohttp.ClientSession() as session,
        Client(server.base_url, session=session if borrows else None, auth=BearerAuth("sk-1")) as client,
    ):
        await BODILESS[name](client)
    (seen,) = server.seen
    assert seen.body == b""
    assert seen.all("Content-Type") == []
    assert seen.header("Authorization") == "Bearer sk-1"


@pytest.mark.parametrize("name", BODILESS)
async def test_a_content_type_for_all_requests_is_sent_only_with_bodies(name: str) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    async with RecordingServer() as server, Client(server.base_url, default_headers=headers) as client:
        await BODILESS[name](client)
        await client.threads.create()
    bare, with_body = server.seen
    assert bare.all("Content-Type") == []
    assert with_body.header("Content-Type") is not None


async def test_a_content_type_that_the_caller_passes_with_the_request_is_sent() -> None:
    async with RecordingServer() as server, Client(server.base_url) as client:
        await client.responses.cancel("resp_1", extra_headers={"Content-Type": "text/plain"})
    assert server.seen[0].all("Content-Type") == ["text/plain"]


async def test_a_stream_that_is_opened_without_a_body_has_no_content_type() -> None:
    async with RecordingServer() as server:
        transport = make_transport(server.base_url)
        await transport.stream(Request("POST", "/x"))
        await transport.aclose()
    assert server.seen[0].all("Content-Type") == []


@pytest.mark.parametrize("name", BODILESS)
async def test_a_content_type_of_a_borrowed_session_is_sent_only_with_bodies(name: str) -> None:
    async with (
        RecordingServer() as server,
        aiohttp.ClientSession(headers={"Content-Type": "application/json", "x-of-session": "1"}) as session,
        Client(server.base_url, session=session) as client,
    ):
        await BODILESS[name](client)
        await client.threads.create()
    bare, with_body = server.seen
    assert bare.all("Content-Type") == []
    assert with_body.all("Content-Type") == ["application/json"]
    assert [seen.header("x-of-session") for seen in server.seen] == ["1", "1"]
