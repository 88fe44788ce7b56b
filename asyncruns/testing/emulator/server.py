"""The emulator as an HTTP server: aiohttp on a port of this machine.

It uses aiohttp's low-level server without routing: it has few paths, and answers thousands of polls in a test.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from functools import partial
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from asyncruns.abc import AsyncOnly
from asyncruns.sse import EVENT_STREAM
from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.answers import EmulatedAnswer
from asyncruns.testing.emulator.backend import Act, Backend, LateCancel, StreamBytes
from asyncruns.testing.emulator.batch_scenario import BatchSource
from asyncruns.testing.emulator.injected import InjectedFault
from asyncruns.testing.emulator.message_errors import as_message_error
from asyncruns.testing.emulator.scenario import ScenarioSource
from asyncruns.testing.emulator.seen import SeenRequest, without_secrets
from asyncruns.testing.emulator.store import MESSAGES, Target, target_of
from asyncruns.testing.emulator.webhooks import WebhookSender, WebhookSigner

log: Final = logging.getLogger("asyncruns.testing")

_SHUTDOWN_TIMEOUT_S: Final = 0.1
# All clients live in this process and may connect in one go.
_BACKLOG: Final = 1024
_MAX_BODY_BYTES: Final = 1024**2
_MAX_OTHER_BODY_BYTES: Final = {"POST /v1/files": 210 * 10**6, "POST /v1/messages/batches": 260 * 10**6}


class Emulator(AsyncOnly, Backend):
    """An emulated server of runs, responses and batches in this process, for tests and demonstrations.

    The task that leaves the `async with` block need not be the one that entered it. The emulator may be entered again;
    its state stays.

    Args:
        scenario: What runs and responses do: one scenario for all, or a function that chooses one. By default each
            function of a run is called once, then the run completes.
        batches: What batches do, on both wires: one scenario for all, or a function that chooses one.
        port: 0 takes a free port.
        host: Address to listen on. If other machines can reach it and no `api_key` is set, a warning is logged.
        api_key: If set, requests without this key are answered with 401; otherwise every request is accepted.
        poll_after_ms: If set, answers to a GET of an unfinished run or response carry `openai-poll-after-ms`.
        clock_skew: Seconds by which the server's clock is ahead of the local one; negative if it is behind.
        late_cancel: Status of the answer to a cancel of a response or a batch that has ended, which differs between
            servers: 400 and 409 refuse it, 200 returns the response or the batch as it is.
        webhook_url: If set, the signed event of each response in the background and each batch that ends is posted
            there; if the receiver does not answer with 2xx, after 1, 2, 4, ... s again, 10 times in all.
        webhook_secret: What these are signed with: "whsec_" and base64. By default a new one is made.

    Attributes:
        webhook_secret: The argument of the same name, or the secret that was made; "" without a `webhook_url`.
        requests: The requests in order of arrival; it grows without bound and may be cleared.
        faults: The injected faults with their counters, in order; entries may be removed, and the list may be cleared.

    Raises:
        ValueError: If `clock_skew` is not finite, `late_cancel` is not 200, 400 or 409, `webhook_url` is not one of
            HTTP, or `webhook_secret` is malformed or given without a `webhook_url`.
    """

    def __init__(
        self,
        scenario: ScenarioSource | None = None,
        *,
        batches: BatchSource | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        poll_after_ms: float | None = None,
        clock_skew: float = 0.0,
        late_cancel: LateCancel = 400,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
    ) -> None:
        super().__init__(
            scenario,
            batches=batches,
            api_key=api_key,
            poll_after_ms=poll_after_ms,
            clock_skew=clock_skew,
            late_cancel=late_cancel,
        )
        self._host, self._port = host, port
        self.webhook_secret: str = ""
        self._sender: WebhookSender | None = None
        if webhook_url is not None:
            signer = WebhookSigner(webhook_secret)
            self.webhook_secret, self._sender = signer.secret, WebhookSender(webhook_url, signer)
            self._send_webhooks(self._sender.send)
        elif webhook_secret is not None:
            raise ValueError("webhook_secret has no effect without webhook_url")
        self._runner: web.ServerRunner | None = None
        self._pausing: set[asyncio.Task[Any]] = set()

    def _base_url(self) -> str:
        return self.base_url

    def _where(self) -> str:
        return "stopped" if self._runner is None else self.base_url

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            RuntimeError: If it is already listening.
            OSError: If it cannot listen there; for example, the port is in use.
        """
        if self._runner is not None:
            raise RuntimeError(f"{self!r} is already started; stop it first")
        self._go_by(asyncio.get_running_loop())
        runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        if self._webhooks is not None:
            self._webhooks.plan_all()
        if self._api_key is None and not _is_of_this_machine(self._host):
            log.warning(
                "The emulator listens on %s without a key: anyone who can reach it can use it; set api_key",
                self._host or "all",
            )

    async def stop(self) -> None:
        """Stop listening and close every connection; do nothing if it is already stopped.

        Requests that a fault delays are not answered, and not performed if the delay came before that. A webhook that
        is being sent is lost; those of responses that have not ended are sent after the next start.
        """
        runner, self._runner = self._runner, None
        if self._webhooks is not None:
            self._webhooks.stop()
        if self._sender is not None:
            await self._sender.stop()
        # aiohttp would wait for the handlers whose client is connected, and forget those whose client has left.
        pausing = list(self._pausing)
        for task in pausing:
            task.cancel()
        await asyncio.gather(*pausing, return_exceptions=True)
        if runner is not None:
            await runner.cleanup()
            await asyncio.sleep(0)  # closed transports close their sockets in the loop's next iteration

    @property
    def base_url(self) -> str:
        """URL of the API, like `http://127.0.0.1:40123/v1`."""
        if self._runner is None:
            raise RuntimeError("the emulator is not started; use `async with Emulator() as emulator`")
        host, port = self._runner.addresses[0][:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        most = _MAX_OTHER_BODY_BYTES.get(f"{request.method} {path}", _MAX_BODY_BYTES)
        raw = await _read(request, most)
        if raw is None:
            return _refused(refusals.too_large(most), path)
        target = target_of(request.method, path, raw)
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        at = asyncio.get_running_loop().time()
        seen = SeenRequest(
            method=request.method,
            path=path,
            query=query,
            headers=without_secrets(request.headers),
            body=raw,
            at=at,
            operation=target.operation,
            run_id=target.run_id or parameters.get("run_id"),
        )
        injected, act = self._receive(seen, target, parameters, partial(self._check_headers, seen, request.headers))
        if injected is None:
            return await self._reply(request, target, seen, act(0.0))
        answer = await self._fail(injected, seen, act)
        if injected.fault.drop:
            return _drop(request)
        return await self._reply(request, target, seen, answer)

    async def _reply(
        self, request: web.BaseRequest, target: Target, seen: SeenRequest, answer: EmulatedAnswer
    ) -> web.StreamResponse:
        events = self._feed(seen, target, answer)
        return self._send(seen, answer) if events is None else await self._stream(request, answer, events)

    async def _stream(
        self, request: web.BaseRequest, answer: EmulatedAnswer, events: StreamBytes
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**answer.headers, "Content-Type": EVENT_STREAM})
        await response.prepare(request)
        try:
            for event in events:
                if event is None:
                    _drop(request)
                    return response
                if isinstance(event, bytes):
                    await response.write(event)
                else:
                    await self._pause(event - self.now())
            await response.write_eof()
        except ConnectionError:
            pass  # the client has disconnected; the run continues
        return response

    async def _fail(self, injected: InjectedFault, seen: SeenRequest, act: Act) -> EmulatedAnswer:
        await self._pause(injected.fault.delay_before)
        answer = self._spoil(injected, seen, act)
        await self._pause(injected.fault.delay_after)
        return answer

    def _send(self, seen: SeenRequest, answer: EmulatedAnswer) -> web.Response:
        self._answered(seen, answer)
        response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        if "Content-Length" in response.headers:
            response.force_close()  # a fault may have set a Content-Length that is longer than the body
        return response

    async def _pause(self, seconds: float) -> None:
        if not seconds > 0:
            return
        task = asyncio.current_task()
        assert task is not None
        self._pausing.add(task)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._pausing.discard(task)


def _is_of_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost" or host.endswith(".localhost")


async def _read(request: web.BaseRequest, most: int) -> bytes | None:
    """Read the body; return None if it is larger than so many bytes.

    Do not use `request.read()`: an idle connection keeps its last request, or the exception that refused it, with
    everything that it references, for more than a minute.
    """
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


def _refused(refusal: refusals.RefusedError, path: str) -> web.Response:
    body = as_message_error(refusal.body, refusal.status, None) if path.startswith(MESSAGES) else refusal.body
    return web.Response(status=refusal.status, body=msgspec.json.encode(body), content_type="application/json")


def _drop(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # written to a closed transport: to aiohttp, the client has disconnected
