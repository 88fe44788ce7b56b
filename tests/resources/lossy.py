"""A transport that loses answers, around a real one, and a client that sends through it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import msgspec
from msgspec.structs import replace

from asyncruns import APIConnectionError, APITimeoutError, BearerAuth, Client
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.testing import Emulator
from asyncruns.wire import Run

Fault = Callable[[Transport, Request], Awaitable[Response]]
Filter = Callable[[Request, Mapping[str, Any]], Mapping[str, Any]]

RUNS: Final = "POST /threads/*/runs"
LISTED: Final = "GET /threads/*/runs"
MESSAGES: Final = "POST /threads/*/messages"
POLL: Final = "GET /threads/*/runs/*"

_ID: Final = re.compile(r"/(?:thread|run|msg)_[^/]+")


async def pass_on(inner: Transport, request: Request) -> Response:
    return await inner.send(request)


def answer(status: int, body: object = None, *, after: Fault | None = None) -> Fault:
    """Return a fault that answers in place of the server or, with `after=pass_on`, after the server has acted."""

    async def fault(inner: Transport, request: Request) -> Response:
        if after is not None:
            await after(inner, request)
        return Response(status, {}, body if isinstance(body, bytes) else msgspec.json.encode(body))

    return fault


def fail(error: Callable[[], Exception], *, after: Fault | None = None) -> Fault:
    async def fault(inner: Transport, request: Request) -> Response:
        if after is not None:
            await after(inner, request)
        raise error()

    return fault


def late() -> APIConnectionError:
    return APITimeoutError("No answer in time.", sent=True)


def dropped() -> APIConnectionError:
    return APIConnectionError("Dropped.", sent=True)


ACTED_AND_LOST: Final = fail(dropped, after=pass_on)
LOST: Final = fail(dropped)


class Faulty(Transport):
    """Passes requests on, except those that have a fault.

    Attributes:
        faults: By the kind of the request, such as "POST /threads/*/runs": each fault is used once, in order.
        lasting: By the kind: the fault of every request that has none in `faults`.
        show: Changes the bodies of successful answers to a GET.
        strips: Whether metadata is removed from requests.
        asked: The time, kind and request of each request.
    """

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.faults: dict[str, list[Fault]] = {}
        self.lasting: dict[str, Fault] = {}
        self.show: Filter | None = None
        self.strips = False
        self.asked: list[tuple[float, str, Request]] = []

    def times(self, kind: str) -> list[float]:
        return [at for at, asked, _ in self.asked if asked == kind]

    def bodies(self, kind: str) -> list[Any]:
        return [msgspec.json.decode(request.body or b"") for _, asked, request in self.asked if asked == kind]

    async def send(self, request: Request) -> Response:
        kind = f"{request.method} {_ID.sub('/*', request.path)}"
        self.asked.append((anyio.current_time(), kind, request))
        assert len(self.asked) < 2_000, "too many requests: is this loop endless?"
        if self.strips and request.body:
            body = {name: value for name, value in msgspec.json.decode(request.body).items() if name != "metadata"}
            request = replace(request, body=msgspec.json.encode(body))
        if queue := self.faults.get(kind):
            return await queue.pop(0)(self.inner, request)
        response = await self.lasting.get(kind, pass_on)(self.inner, request)
        if self.show is not None and request.method == "GET" and response.status == 200:
            shown = self.show(request, msgspec.json.decode(response.body))
            response = replace(response, body=msgspec.json.encode(shown))
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


def client_through(transport: Transport) -> Client:
    """Return a client that closes this transport; a client normally does not close a transport of the caller."""
    client = Client(transport=transport)
    client._own = transport
    return client


def faulty_client(emulator: Emulator) -> tuple[Client, Faulty]:
    faulty = Faulty(Client(emulator.base_url, auth=BearerAuth("test")).transport)
    return client_through(faulty), faulty


@dataclass
class Stage:
    """A thread at the emulator, and a client whose answers can be lost."""

    emulator: Emulator
    client: Client
    faulty: Faulty
    thread_id: str

    async def create(self, **more: Any) -> Run:
        given: dict[str, Any] = {"assistant_id": "asst_1", "adopt": True, **more}
        run: Run = await self.client.threads.runs.create(self.thread_id, **given)
        return run

    @property
    def runs(self) -> list[Mapping[str, Any]]:
        return list(self.emulator.runs.values())

    def let_another_slip_in(self, **more: Any) -> None:
        """Lose our first create, and start a run of another client just before the second one is sent."""

        async def slip_in(inner: Transport, request: Request) -> Response:
            given: dict[str, Any] = {"assistant_id": "asst_other", **more}
            await self.client.threads.runs.create(self.thread_id, **given)
            return await inner.send(request)

        self.faulty.faults[RUNS] = [LOST, slip_in]
