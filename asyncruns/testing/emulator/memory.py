"""The emulator without sockets: a transport for a client, for tests of many runs.

A poll costs a fraction of one over a socket. What this leaves out is the wire itself: connections, framing,
authentication, and the headers that a client sends with every request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Final
from urllib.parse import urlencode

import anyio
import anyio.lowlevel
from multidict import CIMultiDict, CIMultiDictProxy

from asyncruns.abc import ByteStream, Transport
from asyncruns.errors import APIConnectionError, APITimeoutError
from asyncruns.http import Request, Response, pieces_of
from asyncruns.sse import EVENT_STREAM
from asyncruns.testing.emulator.answers import EmulatedAnswer
from asyncruns.testing.emulator.backend import Act, Backend, LateCancel, StreamBytes
from asyncruns.testing.emulator.batch_scenario import BatchSource
from asyncruns.testing.emulator.faults import Fault
from asyncruns.testing.emulator.injected import InjectedFault
from asyncruns.testing.emulator.scenario import ScenarioSource
from asyncruns.testing.emulator.seen import SeenRequest, without_secrets
from asyncruns.testing.emulator.store import ROOT, target_of
from asyncruns.testing.emulator.webhooks import OnWebhook, WebhookSigner

_FRAMING: Final = frozenset({"connection", "content-encoding", "content-length", "transfer-encoding"})
_WITHOUT_BODY: Final = frozenset({204, 304})
_BASE_URL: Final = "http://in-memory.invalid/v1"
_PIECE_BYTES: Final = 64 * 1024


class InMemoryTransport(Backend, Transport):
    """An emulated server of runs, responses and batches as a transport, without sockets: `Client(transport=...)`.

    Scenarios, faults and refusals are those of `Emulator`. It is neither started nor stopped, and its state stays when
    clients are closed; several clients may share it.

    Faults strike as they do over a socket, except that a dropped or cut answer raises `APIConnectionError` with
    `sent=True` at once: no HTTP library repeats the request by itself. A download that is cut breaks off where it was
    cut. Each read of a stream returns one event. An upload is read whole. An exception of a scenario function or of a
    `rewrite` is raised by `send` or `stream`.

    Args:
        scenario: What runs and responses do, as in `Emulator`.
        batches: What batches do, as in `Emulator`.
        latency: Seconds until each answer arrives, by the loop's clock; the server acts at once.
        request_timeout: Seconds for one request as a whole; None means no limit. A request may have its own timeout.
        poll_after_ms: If set, answers to a GET of an unfinished run or response carry `openai-poll-after-ms`.
        clock_skew: Seconds by which the server's clock is ahead of the local one; negative if it is behind.
        late_cancel: Status of the answer to a cancel of a response or a batch that has ended: 400 and 409 refuse it,
            200 returns the response or the batch.
        on_webhook: Called with the body (bytes) and the headers (a dict) of a webhook when a response in the background
            or a batch ends. It must not wait; the event loop reports what it raises.
        webhook_secret: What webhooks are signed with: "whsec_" and base64. By default a new one is made.

    Attributes:
        webhook_secret: The argument of the same name, or the secret that was made; "" without `on_webhook`.
        requests: The requests in order of arrival, with their times; it grows without bound and may be cleared.
        faults: The injected faults with their counters, in order; entries may be removed, and the list may be cleared.

    Raises:
        ValueError: If a number is out of range, `late_cancel` is not 200, 400 or 409, or `webhook_secret` is malformed
            or given without `on_webhook`.
    """

    def __init__(
        self,
        scenario: ScenarioSource | None = None,
        *,
        batches: BatchSource | None = None,
        latency: float = 0.0,
        request_timeout: float | None = 30.0,
        poll_after_ms: float | None = None,
        clock_skew: float = 0.0,
        late_cancel: LateCancel = 400,
        on_webhook: OnWebhook | None = None,
        webhook_secret: str | None = None,
    ) -> None:
        super().__init__(
            scenario, batches=batches, poll_after_ms=poll_after_ms, clock_skew=clock_skew, late_cancel=late_cancel
        )
        if not latency >= 0:
            raise ValueError(f"latency is {latency!r}; give seconds, 0 or more")
        if request_timeout is not None and not request_timeout > 0:
            raise ValueError(f"request_timeout is {request_timeout!r}; give seconds, more than 0, or None for no limit")
        self._latency = latency
        self._timeout = math.inf if request_timeout is None else request_timeout
        self.webhook_secret: str = ""
        if on_webhook is not None:
            signer = WebhookSigner(webhook_secret)
            self.webhook_secret = signer.secret
            self._send_webhooks(lambda webhook_id, body: on_webhook(body, signer.headers(webhook_id, body)))
        elif webhook_secret is not None:
            raise ValueError("webhook_secret has no effect without on_webhook")

    def _base_url(self) -> str:
        return _BASE_URL

    def _where(self) -> str:
        return f"latency={self._latency:g}"

    def inject(self, *faults: Fault) -> None:
        """Inject faults from now on, as `Emulator.inject` does.

        Raises:
            ValueError: If a fault sets a header of the framing, such as `Content-Length`, which has no effect here.
        """
        for fault in faults:
            if framing := sorted(_FRAMING & {name.lower() for name in fault.headers}):
                raise ValueError(
                    f"{framing[0]} has no effect without a wire; use the Emulator, or damage='cut' for an answer that "
                    "ends early"
                )
        super().inject(*faults)

    async def send(self, request: Request) -> Response:
        answer = await self.stream(request)
        return answer if isinstance(answer, Response) else await _whole(answer)

    async def stream(self, request: Request) -> Response | ByteStream:
        return await self._ask(request)

    async def download(self, request: Request) -> Response | ByteStream:
        answer = await self._ask(request, is_download=True)
        if isinstance(answer, ByteStream) or answer.status >= 300:
            return answer
        return _Download(request, answer)

    async def _ask(self, request: Request, *, is_download: bool = False) -> Response | ByteStream:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # the first request, or one of a new loop, as in another `asyncio.run`
            self._go_by(loop)
        path, raw, headers = ROOT + request.path[1:], request.body or b"", dict(request.headers)
        if request.upload is not None:
            async with aclosing(pieces_of(request.upload)) as pieces:
                raw = b"".join([piece async for piece in pieces])
            headers["Content-Type"] = request.upload.content_type
        target, parameters = target_of(request.method, path, raw), dict(request.query)
        seen = SeenRequest(
            method=request.method,
            path=path,
            query=urlencode(request.query) if parameters else "",
            headers=without_secrets(headers),
            body=raw,
            at=loop.time(),
            operation=target.operation,
            run_id=target.run_id or parameters.get("run_id"),
        )
        injected, act = self._receive(seen, target, parameters)
        timeout = self._timeout if request.timeout is None else request.timeout
        if injected is not None:
            answer = await self._fail(request, timeout, injected, seen, act, is_download=is_download)
        else:
            # Without a fault the server acts at once and only the answer is delayed, so no `asyncio.timeout` is needed.
            answer = act(0.0)
            self._answered(seen, answer)
            await anyio.sleep(min(self._latency, timeout))
            if self._latency >= timeout:
                raise _too_late(request)
        events = self._feed(seen, target, answer)
        return _response(answer) if events is None else _Stream(request, answer, events, self.now, timeout)

    async def _fail(
        self,
        request: Request,
        timeout: float,
        injected: InjectedFault,
        seen: SeenRequest,
        act: Act,
        *,
        is_download: bool,
    ) -> EmulatedAnswer:
        try:
            async with asyncio.timeout(None if math.isinf(timeout) else timeout):
                answer = await self._struck(injected, seen, act)
                await anyio.sleep(self._latency)
        except TimeoutError as error:
            raise _too_late(request) from error
        if injected.fault.drop:
            raise _lost(request, "the connection was dropped")
        if not is_download and _is_cut(answer.headers, answer.body):
            raise _lost(request, "the connection ended within the answer")
        return answer

    def _struck(self, injected: InjectedFault, seen: SeenRequest, act: Act) -> asyncio.Future[EmulatedAnswer]:
        """Make the server act and answer after the fault's delays, even if the client has given up by then."""
        fault = injected.fault
        answered: asyncio.Future[EmulatedAnswer] = asyncio.get_running_loop().create_future()

        def act_now() -> None:
            try:
                answer = self._spoil(injected, seen, act)
            except Exception as error:
                if answered.done():
                    raise  # the client no longer waits: the loop's exception handler reports it
                answered.set_exception(error)
            else:
                _after(fault.delay_after, partial(answer_now, answer))

        def answer_now(answer: EmulatedAnswer) -> None:
            if not fault.drop:
                self._answered(seen, answer)
            if not answered.done():
                answered.set_result(answer)

        # By timers and not in the caller's task: as with a real server, a cancelled request still takes effect.
        _after(fault.delay_before, act_now)
        return answered

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close, and other clients may use the transport."""


class _Stream(ByteStream):
    """The events of a stream, one for each read; an event is made when it is read."""

    def __init__(
        self, request: Request, answer: EmulatedAnswer, events: StreamBytes, now: Callable[[], float], timeout: float
    ) -> None:
        self.status = answer.status
        self.headers = CIMultiDictProxy(CIMultiDict({**answer.headers, "Content-Type": EVENT_STREAM}))
        self._request = request
        self._events: StreamBytes = events
        self._now = now
        self._timeout = timeout

    async def read(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        silent_from = self._now() + self._timeout
        for event in self._events:
            if isinstance(event, bytes):
                return event
            if event is None:
                await self.aclose()
                raise _lost(self._request, "the connection broke within the stream")
            # The event that is due may come, or the request's timeout pass, whichever is first.
            await anyio.sleep(min(event, silent_from) - self._now())
            if self._now() >= silent_from:
                await self.aclose()
                raise _too_late(self._request)
        return b""

    async def aclose(self) -> None:
        self._events = iter(())


class _Download(ByteStream):
    """A body in pieces; one that a fault has cut breaks off where it ends."""

    def __init__(self, request: Request, answer: Response) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._request = request
        self._body = answer.body
        self._at = 0
        self._breaks = _is_cut(answer.headers, answer.body)

    async def read(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        piece = self._body[self._at : self._at + _PIECE_BYTES]
        self._at += len(piece)
        if not piece and self._breaks:
            raise _lost(self._request, "the connection broke within the answer")
        return piece

    async def aclose(self) -> None:
        self._body, self._breaks = b"", False


def _is_cut(headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether `damage="cut"` has shortened a body."""
    return len(body) < int(headers.get("Content-Length", 0))


async def _whole(stream: ByteStream) -> Response:
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    return Response(stream.status, stream.headers, b"".join(pieces))


def _after(seconds: float, act: Callable[[], None]) -> None:
    """Call a function after some seconds: at once for 0, never for infinity."""
    if not seconds:
        act()
    elif not math.isinf(seconds):
        asyncio.get_running_loop().call_later(seconds, act)


def _response(answer: EmulatedAnswer) -> Response:
    body = b"" if answer.status in _WITHOUT_BODY else answer.body
    return Response(answer.status, CIMultiDictProxy(CIMultiDict(answer.headers)), body)


def _too_late(request: Request) -> APITimeoutError:
    message = f"No answer in time: {request.method} {request.path} in memory. The server may have acted on it."
    return APITimeoutError(message, sent=True, method=request.method, path=request.path)


def _lost(request: Request, how: str) -> APIConnectionError:
    message = f"No answer to {request.method} {request.path} in memory ({how}). The server may have acted on it."
    return APIConnectionError(message, sent=True, method=request.method, path=request.path)
