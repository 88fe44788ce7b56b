"""No credential is shown: not in an error, a repr or a traceback, whatever the server echoes."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable

import pytest
from recording_server import RecordingServer, Seen, reply, unused_origin

from asyncruns import APIError, ApiKeyAuth, Auth, BearerAuth, Client, PortkeyAuth
from asyncruns.errors import APIStatusError, AsyncRunsError
from asyncruns.http import Request
from asyncruns.transport.aiohttp import AiohttpTransport

KEY = "sk-hidden-0123456789abcdef"


def shown(error: BaseException) -> str:
    """Return everything that a log could show of an error."""
    attributes = [repr(value) for value in vars(error).values()]
    headers = [f"{name}: {value}" for name, value in getattr(error, "headers", {}).items()]
    return "\n".join([str(error), repr(error), *attributes, *headers, *traceback.format_exception(error)])


def html(seen: Seen) -> str:
    return f"<html><pre>{seen.head}</pre></html>"


ECHOES: dict[str, Callable[[Seen], bytes]] = {
    "JSON 400": lambda seen: reply(400, {"error": {"message": seen.head, "code": seen.head, "param": seen.head}}),
    "JSON 401": lambda seen: reply(401, {"error": {"message": f"Wrong key: {seen.head}"}}),
    "text in JSON 403": lambda seen: reply(403, {"detail": {"seen": seen.head}}),
    "flat JSON 500": lambda seen: reply(500, {"code": "x", "message": seen.head, "request_id": seen.head}),
    "HTML 500": lambda seen: reply(500, html(seen)),
    "HTML 200": lambda seen: reply(200, html(seen)),
    "other JSON 200": lambda seen: reply(200, {"headers": seen.head}),
    "JSON text 200": lambda seen: reply(200, [seen.head]),
    "headers of a 404": lambda seen: reply(404, {}, X_Echo=" ".join(seen.head.split()), X_Request_Id=KEY),
    "the request id of an HTML 200": lambda seen: reply(200, "<html>", X_Request_Id=f"for {KEY}"),
    "a redirect": lambda seen: reply(302, b"", Location=f"http://127.0.0.1:9/{KEY}/x"),
    "a broken answer": lambda seen: b"HTTP/9 " + " ".join(seen.head.split()).encode() + b"\r\n\r\n",
}

AUTHS: dict[str, Auth] = {
    "bearer": BearerAuth(KEY),
    "api key": ApiKeyAuth(KEY),
    "portkey": PortkeyAuth(KEY, virtual_key=f"{KEY}-v"),
    "provider": PortkeyAuth("pk-other-0123456789", provider="openai", bearer=KEY),
    "config": PortkeyAuth("pk-other-0123456789", config={"targets": [{"provider": "openai", "api_key": KEY}]}),
}


@pytest.mark.parametrize("auth", AUTHS)
@pytest.mark.parametrize("echo", ECHOES)
async def test_credentials_that_a_server_echoes_are_redacted(echo: str, auth: str) -> None:
    async with (
        RecordingServer(ECHOES[echo]) as server,
        Client(server.base_url, auth=AUTHS[auth], max_retries=1) as client,
    ):
        with pytest.raises(APIError) as caught:
            await client.threads.create()
        assert KEY in server.seen[0].head
        assert KEY not in shown(caught.value)


async def test_only_the_credential_in_an_error_body_is_redacted() -> None:
    answer = reply(400, {"error": {"message": f"The key {KEY} is wrong"}})
    async with RecordingServer(answer) as server, Client(server.base_url, auth=BearerAuth(KEY)) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.threads.create()
    assert json.loads(caught.value.body) == {"error": {"message": "The key *** is wrong"}}
    assert caught.value.detail == "The key *** is wrong"
    assert caught.value.headers["content-type"] == "application/json"


async def test_a_good_answer_is_not_redacted() -> None:
    answer = reply(200, {"id": "thread_1", "metadata": {"note": KEY}})
    async with RecordingServer(answer) as server, Client(server.base_url, auth=BearerAuth(KEY)) as client:
        thread = await client.threads.retrieve("thread_1")
    assert thread.metadata == {"note": KEY}


async def test_a_short_key_is_redacted_only_where_it_is_a_whole_word() -> None:
    answer = reply(400, {"error": {"message": "test: run_test_1 is the latest, says (test), run-test"}})
    async with RecordingServer(answer) as server, Client(server.base_url, auth=BearerAuth("test")) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.threads.create()
    assert caught.value.detail == "***: run_test_1 is the latest, says (***), run-test"


async def test_constant_headers_and_parameters_that_hold_a_credential_are_redacted() -> None:
    def echo(seen: Seen) -> bytes:
        return reply(500, seen.head)

    headers, query = {"X-Gateway-Token": KEY, "x-note": "a plain word"}, {"subscription-key": f"{KEY}-q"}
    async with (
        RecordingServer(echo) as server,
        Client(server.base_url, default_headers=headers, default_query=query) as client,
    ):
        with pytest.raises(APIStatusError) as caught:
            await client.threads.create()
    assert KEY not in shown(caught.value)
    assert "a plain word" in caught.value.detail


async def test_a_credential_of_one_call_is_redacted_even_without_its_scheme() -> None:
    def echo(seen: Seen) -> bytes:
        return reply(401, f"Wrong key: {KEY}; {seen.head}")

    async with RecordingServer(echo) as server, Client(server.base_url) as client:
        for extra in (
            {"extra_headers": {"Authorization": f"Bearer {KEY}"}},
            {"extra_headers": {"x-api-key": KEY, "x-note": "a plain word"}},
            {"extra_query": {"sig": KEY}},
        ):
            with pytest.raises(APIStatusError) as caught:
                await client.threads.retrieve("thread_1", **extra)  # type: ignore[arg-type]
            assert KEY in server.seen[-1].head
            assert KEY not in shown(caught.value)
        constant = {"Authorization": f"Bearer {KEY}"}
        async with Client(server.base_url, default_headers=constant) as other:
            with pytest.raises(APIStatusError) as caught:
                await other.threads.retrieve("thread_1")
            assert KEY not in shown(caught.value)


def test_a_request_shows_neither_its_headers_nor_its_query_nor_its_body() -> None:
    request = Request("POST", "/threads", (("sig", KEY),), KEY.encode(), (("Authorization", KEY),))
    assert repr(request) == "<Request POST /threads>"


async def test_an_earlier_token_is_redacted_too() -> None:
    tokens = iter([f"{KEY}-1", f"{KEY}-2"])

    async def fetch() -> str:
        return next(tokens)

    async with (
        RecordingServer(reply(401), reply(500, f"{KEY}-1 was replaced by {KEY}-2")) as server,
        Client(server.base_url, auth=BearerAuth(fetch)) as client,
    ):
        with pytest.raises(APIStatusError, match="was replaced") as caught:
            await client.threads.create()
    assert KEY not in shown(caught.value)


async def test_the_password_of_a_proxy_is_not_shown() -> None:
    for proxy in (
        f"{(await unused_origin()).replace('//', f'//user:{KEY}@')}/",
        f"http://user:{KEY}@[::1",
        f"socks5://user:{KEY}@127.0.0.1:9",
        f"http://user:{KEY}@127.0.0.1:99999",
    ):
        with pytest.raises(AsyncRunsError) as caught:
            async with Client("http://127.0.0.1:9/v1", proxy=proxy, max_retries=0) as client:
                await client.threads.create()
        assert KEY not in shown(caught.value)


async def test_the_password_that_a_proxy_echoes_is_redacted() -> None:
    def echo(seen: Seen) -> bytes:
        return reply(407, f"{seen.head} p@ssword-0123 p%40ssword-0123")

    async with RecordingServer(echo) as server:
        proxy = server.origin.replace("//", "//user:p%40ssword-0123@")
        async with Client("http://host.example/v1", proxy=proxy) as client:
            with pytest.raises(APIStatusError) as caught:
                await client.threads.create()
        signed = (server.seen[0].header("Proxy-Authorization") or "").removeprefix("Basic ")
    assert signed
    for secret in (signed, "p@ssword-0123", "p%40ssword-0123"):
        assert secret not in shown(caught.value)


def test_no_repr_shows_a_key() -> None:
    auths = [*AUTHS.values(), BearerAuth(KEY)]
    clients = [Client("https://host.example/v1", auth=auth) for auth in auths]
    transport = AiohttpTransport("https://host.example/v1", auth=BearerAuth(KEY), proxy=f"http://u:{KEY}@h:1")
    for each in (*auths, *clients, transport, *(client.transport for client in clients)):
        assert KEY not in f"{each} {each!r}"
    assert repr(clients[0]) == "<Client https://host.example/v1>"
    assert repr(transport) == "<AiohttpTransport https://host.example/v1 BearerAuth(***)>"


async def test_the_error_of_a_failed_run_is_redacted_too() -> None:
    failed = {"id": "run_1", "thread_id": "t", "status": "failed", "last_error": {"code": "x", "message": f"Bad {KEY}"}}
    async with (
        RecordingServer(lambda seen: reply(200, failed)) as server,
        Client(server.base_url, auth=BearerAuth(KEY)) as client,
    ):
        outcome = await client.watch(thread_id="t", run_id="run_1")
    assert outcome.error is not None
    assert outcome.error.message == "Bad ***"
    with pytest.raises(AsyncRunsError) as caught:
        outcome.unwrap()
    assert KEY not in str(caught.value)
