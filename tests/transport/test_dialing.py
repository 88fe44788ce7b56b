"""Connecting to a server whose name has several addresses, or none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, Final

import pytest
from recording_server import RecordingServer
from transports import make_transport, over

from asyncruns import APIConnectionError
from asyncruns.http import Request

GET: Final = Request("GET", "/x")


class Names:
    """Replaces the lookup of names: returns these addresses, or raises an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int] | OSError) -> None:
        self.found: list[tuple[str, int] | OSError] = list(found)
        self.lookups: list[str] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo, raising=False)

    async def getaddrinfo(self, host: str, port: int, **options: Any) -> list[Any]:
        self.lookups.append(host)
        await asyncio.sleep(0.01)
        if isinstance(error := self.found[0], OSError):
            raise error
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)
            for address in self.found
            if not isinstance(address, OSError)
        ]


def port_of(server: RecordingServer) -> int:
    return int(server.origin.rpartition(":")[2])


@pytest.fixture
def swallowing() -> Iterator[int]:
    """Yield a port at 127.0.0.2 that never answers, as behind a firewall that drops packets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        address = listener.getsockname()
        filling = [socket.socket() for _ in range(4)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(address)
        yield address[1]
        for each in filling:
            each.close()


async def test_an_address_that_does_not_answer_does_not_delay_the_next(
    monkeypatch: pytest.MonkeyPatch, swallowing: int
) -> None:
    loop = asyncio.get_running_loop()
    async with RecordingServer() as server:
        names = Names(monkeypatch, ("127.0.0.2", swallowing), ("127.0.0.1", port_of(server)))
        transport = make_transport("http://host.example:1/v1")
        began = loop.time()
        assert (await transport.send(GET)).status == 200
        assert loop.time() - began < 1
        await transport.aclose()
    assert names.lookups == ["host.example"]
    assert server.seen[0].header("Host") == "host.example:1"


async def test_after_a_refusal_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RecordingServer() as server:
        Names(monkeypatch, ("127.0.0.2", 1), ("127.0.0.1", port_of(server)))
        transport = make_transport("http://host.example/v1")
        assert (await transport.send(GET)).status == 200
        await transport.aclose()


async def test_a_name_is_looked_up_once_for_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RecordingServer() as server:
        names = Names(monkeypatch, ("127.0.0.1", port_of(server)))
        transport = make_transport("http://host.example/v1")
        tasks = [asyncio.create_task(transport.send(GET)) for _ in range(50)]
        await asyncio.sleep(0.001)
        tasks[0].cancel()  # the request that began the lookup
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(not isinstance(each, BaseException) for each in found) == 49
        assert names.lookups == ["host.example"]
        await transport.aclose()


@over("httptools")  # aiohttp's cache of addresses uses a clock of its own
async def test_a_name_is_looked_up_again_after_a_while_and_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RecordingServer() as server:
        names = Names(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
        transport = make_transport("http://host.example/v1")
        for lookups in (1, 2):
            with pytest.raises(APIConnectionError, match="Temporary failure") as caught:
                await transport.send(GET)
            assert (caught.value.sent, caught.value.passes) == (False, True)
            assert len(names.lookups) == lookups
        names.found = [("127.0.0.1", port_of(server))]
        for pause, lookups in ((0, 3), (5, 3), (70, 4)):
            await asyncio.sleep(pause)
            assert (await transport.send(Request("GET", "/x", headers=(("Connection", "close"),)))).status == 200
            assert len(names.lookups) == lookups
        await transport.aclose()


async def test_an_unknown_name_is_final_before_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    transport = make_transport("http://host.example/v1")
    with pytest.raises(APIConnectionError, match="There is no such host") as caught:
        await transport.send(GET)
    assert (caught.value.sent, caught.value.passes) == (False, False)
    await transport.aclose()


@over("httptools")  # for the same reason
async def test_a_failed_connection_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """More connections fail, or are cancelled, than there are places."""
    async with RecordingServer() as server:
        names = Names(monkeypatch, ("127.0.0.2", 1))
        transport = make_transport("http://host.example/v1", request_timeout=20)
        found = await asyncio.gather(*(transport.send(GET) for _ in range(150)), return_exceptions=True)
        assert {type(each) for each in found} == {APIConnectionError}
        names.found = [("127.0.0.1", port_of(server))]
        for passes in range(120):
            sending = asyncio.create_task(transport.send(GET))
            for _ in range(passes % 12):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
        await asyncio.sleep(20)  # the addresses of the first lookup expire
        assert (await transport.send(GET)).status == 200
        await transport.aclose()


async def test_closing_fails_requests_that_wait_for_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ("127.0.0.1", 1))
    transport = make_transport("http://host.example/v1")
    sending = asyncio.create_task(transport.send(GET))
    await asyncio.sleep(0.001)
    await transport.aclose()
    with pytest.raises(APIConnectionError) as caught:
        await sending
    assert not caught.value.sent
