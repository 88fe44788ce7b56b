"""Sends requests that the schedule of a fleet does not plan within its budget: creates, and the fetching of answers.

Each waits for a permit of the schedule. A client sends through a `PermittedTransport` in place of its own transport, so
that its retries, its checks and its search for lost creates work as ever, and each of their requests has a permit.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, runtime_checkable
from weakref import ref as ref_to

from asyncruns._loop import loop_time, wake
from asyncruns.abc import ByteStream, Dialect, RunClient, Transport
from asyncruns.errors import APIConnectionError
from asyncruns.fleet.schedule import Schedule
from asyncruns.http import Request, Response, rate_limit
from asyncruns.lifecycle import Refusal, RefusalKind, RunRef
from asyncruns.watch.outcome_clients import reads_results
from asyncruns.wire import Message

if TYPE_CHECKING:
    from asyncruns.dialects.result_lines import BatchResult
    from asyncruns.wire import ResponseMessage

Answer = TypeVar("Answer", bound=Response | ByteStream)
R = TypeVar("R")

REPEATED_FOR_S: Final = 60.0  # a request that is refused for its rate
FIRST_RETRY_PAUSE_S: Final = 0.5  # doubled each time
LONGEST_RETRY_PAUSE_S: Final = 8.0


class Permit:
    """A permit for one request.

    Attributes:
        ready: Done when the request may be sent.
        is_granted: Whether the request counts as in flight.
    """

    __slots__ = ("is_granted", "ready")

    def __init__(self) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_granted: bool = False


class Permits:
    """The permits of one fleet.

    Args:
        schedule: Plans when they are granted.
        moved: Called when one is asked for or given back, so that the fleet plans again.
    """

    def __init__(self, schedule: Schedule[Any], moved: Callable[[], object]) -> None:
        self._schedule = schedule
        self._moved = moved
        self._is_open = False
        self._waiting: set[Permit] = set()

    def open(self) -> None:
        """Note that the fleet plans from now on."""
        self._is_open = True

    def close(self) -> None:
        """Note that the fleet plans no more: requests are sent without a permit, as those after a fleet was left."""
        self._is_open = False
        for permit in self._waiting:
            self._schedule.withdraw(permit)
            wake(permit.ready)
        self._waiting.clear()

    def client(self, client: RunClient[R]) -> RunClient[R]:
        """Return the client, sending within the budget; a client that is not ours is returned as it is."""
        if not isinstance(client, Rerouted):
            return client
        return client._through(PermittedTransport(client, self))

    def ask(self) -> Permit:
        """Return a permit to wait for. It must be given back, in any case."""
        permit = Permit()
        if self._is_open:
            self._waiting.add(permit)
            self._schedule.permit(permit)
            self._moved()
        else:
            wake(permit.ready)
        return permit

    def grant(self, permits: Iterable[Permit]) -> None:
        """Grant the permits of a plan."""
        for permit in permits:
            self._waiting.discard(permit)
            permit.is_granted = True
            wake(permit.ready)

    def give_back(self, permit: Permit) -> None:
        """Note that a request has landed, or will not be sent."""
        if permit.is_granted:
            self._schedule.permit_landed()
            self._moved()
        else:
            self._waiting.discard(permit)
            self._schedule.withdraw(permit)

    def heed(self, dialect: Dialect[Any], request: Request, response: Response | ByteStream) -> Refusal | None:
        """Note what a response says about the budget; to be called when its permit was just given back.

        Returns:
            The refusal, if the server refused the request for its rate.
        """
        now, budget = loop_time(), self._schedule.budget
        limit = rate_limit(response.headers)
        if limit is not None:
            budget.heard(now, limit)
        if isinstance(response, ByteStream) or response.status < 400:
            return None
        refusal = dialect.refusal(request, response)
        if refusal.kind is not RefusalKind.THROTTLED:
            return None
        budget.refused(now, refusal.retry_after)
        return refusal


class PermittedTransport(Transport):
    """Sends each request through the transport of a client when it has a permit.

    A request that the server refuses for its rate is repeated for a minute: it had no effect, the fleet slows down for
    that, and none of many creates should fail for it.

    Args:
        client: The client, whose dialect reads what an error response means.
        permits: Those of the fleet.
    """

    def __init__(self, client: RunClient[Any], permits: Permits) -> None:
        self._inner, self._dialect = client.transport, client.dialect
        self._permits = permits
        self._waiting: asyncio.Future[None] | None = None  # for a permit, or for the next try
        self._only_reads = False
        self._write_first: Callable[[], Awaitable[object]] | None = None
        self._repeats_until = math.inf  # while requests are refused; over the tries of the client's own retries, too

    def stop_writing(self) -> None:
        """Refuse requests that change something; also one that waits for its permit.

        Reads still go through, so that a create whose answer was lost is still looked for.
        """
        self._only_reads = True
        wake(self._waiting)

    def write_first(self, write: Callable[[], Awaitable[object]]) -> None:
        """Call this once, when the next request that changes something has its permit."""
        self._write_first = write

    async def send(self, request: Request) -> Response:
        return await self._repeated(request, self._inner.send)

    async def download(self, request: Request) -> Response | ByteStream:
        return await self._repeated(request, self._inner.download)

    async def _repeated(self, request: Request, send: Callable[[Request], Awaitable[Answer]]) -> Answer:
        pause = FIRST_RETRY_PAUSE_S
        while True:
            response = await self._permitted(request, send)
            refusal = self._permits.heed(self._dialect, request, response)
            if refusal is None:
                self._repeats_until = math.inf
                return response
            now, wait = loop_time(), max(pause, refusal.retry_after or 0.0)
            self._repeats_until = min(self._repeats_until, now + REPEATED_FOR_S)
            if self._only_reads or now + wait > self._repeats_until:
                return response
            self._waiting = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._waiting}, timeout=wait)
            pause = min(2 * pause, LONGEST_RETRY_PAUSE_S)

    async def _permitted(self, request: Request, send: Callable[[Request], Awaitable[Answer]]) -> Answer:
        permit = self._permits.ask()
        self._waiting = permit.ready
        try:
            await permit.ready
            if self._only_reads and request.method != "GET":
                raise APIConnectionError(
                    f"{request.method} {request.path} was not sent: its caller was cancelled, or the fleet was left",
                    sent=False,
                    passes=False,
                    method=request.method,
                    path=request.path,
                )
            if request.method != "GET" and (write := self._write_first) is not None:
                self._write_first = None
                await write()
            return await send(request)
        finally:
            self._waiting = None
            self._permits.give_back(permit)

    async def aclose(self) -> None:
        """Do nothing: the transport belongs to the client."""


@runtime_checkable
class Rerouted(Protocol):
    """A client that can send through another transport, as ours can."""

    def _through(self, once: Transport) -> RunClient[Any]:
        """Return a client like this one that sends all requests through another transport."""
        ...


class PermittedClient(Generic[R]):
    """The client of an outcome: fetches the messages of its run within the budget of the fleet, if the client can.

    It does not keep the fleet alive: an outcome may be kept for long.

    Args:
        client: The client that watched the run.
        permits: Those of the fleet.
    """

    __slots__ = ("_client", "_permits")

    def __init__(self, client: RunClient[R], permits: Permits) -> None:
        self._client = client
        self._permits = ref_to(permits)

    @property
    def transport(self) -> Transport:
        """The transport of the client."""
        return self._client.transport

    @property
    def dialect(self) -> Dialect[R]:
        """The dialect of the client."""
        return self._client.dialect

    async def answer(self, ref: RunRef) -> Sequence[Message | ResponseMessage]:
        """Fetch the messages that a run wrote, oldest first. Safe to cancel."""
        return await self._permitted().answer(ref)

    def results(self, batch: Any) -> AsyncGenerator[BatchResult]:
        """Yield the results of a batch.

        Raises:
            InvalidRequestError: The client is not one of batches.
        """
        return reads_results(self._permitted()).results(batch)

    def requests(self, batch: Any) -> AsyncGenerator[tuple[str, Any]]:
        """Yield the requests of a batch.

        Raises:
            InvalidRequestError: The client is not one of batches.
        """
        return reads_results(self._permitted()).requests(batch)

    def _permitted(self) -> RunClient[R]:
        permits = self._permits()
        return self._client if permits is None else permits.client(self._client)
