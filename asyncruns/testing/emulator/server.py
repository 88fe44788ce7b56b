"""The emulator's HTTP side: an aiohttp server on a port of this machine.

A low-level server, without aiohttp's routing: it has few paths, and it answers thousands of polls in a test.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Literal, get_args
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.answers import Answer, spoiled
from asyncruns.testing.emulator.faults import Fault, StreamEnd
from asyncruns.testing.emulator.fields import Body, read_body
from asyncruns.testing.emulator.injected import InjectedFault, strike
from asyncruns.testing.emulator.run import Run
from asyncruns.testing.emulator.scenario import ScenarioSource, default_scenario
from asyncruns.testing.emulator.seen import SeenRequest, json_object, without_secrets
from asyncruns.testing.emulator.shown import Shown
from asyncruns.testing.emulator.store import Store, Target, may_stream, target_of
from asyncruns.testing.emulator.streaming import ERROR, RunFeed
from asyncruns.testing.emulator.timeline import TERMINAL

LateCancel = Literal[200, 400, 409]

_POLLED: Final = frozenset({"thread.run", "response"})
_SHUTDOWN_TIMEOUT_S: Final = 0.1
# All clients live in this process and may connect in one go.
_BACKLOG: Final = 1024


class Emulator:
    """A server of assistants and of responses in this process, for tests and demonstrations.

    It may be left from another task than it was entered in, and entered again; its state stays.

    Args:
        scenario: What runs and responses do: one scenario for all, or a function that chooses; by default each function
            that a run offers is called once, then the run completes.
        port: 0 takes a free one.
        api_key: If given, other keys get a 401; otherwise every request is accepted.
        poll_after_ms: If given, answers to a GET of an unfinished run or response carry
            `openai-poll-after-ms`.
        clock_skew: Seconds by which the server's clock is ahead of ours, or behind, if negative.
        late_cancel: How a cancel of a response that has ended is answered, which servers do differently: 400 and 409
            refuse it, 200 gives the response as it is.

    Attributes:
        requests: What arrived, in that order; it grows without bound, and may be cleared.
        faults: What was injected, with counters, in that order; entries may be removed, and the list be cleared.

    Raises:
        ValueError: If `clock_skew` is not finite, or `late_cancel` is another status.
    """

    def __init__(
        self,
        scenario: ScenarioSource | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        poll_after_ms: float | None = None,
        clock_skew: float = 0.0,
        late_cancel: LateCancel = 400,
    ) -> None:
        if not math.isfinite(clock_skew):
            raise ValueError(f"clock_skew is {clock_skew!r}; give a finite number of seconds")
        if late_cancel not in get_args(LateCancel):
            raise ValueError(f"late_cancel is {late_cancel!r}; give 200, 400 or 409")
        self.requests: list[SeenRequest] = []
        self.faults: list[InjectedFault] = []
        self._store = Store(default_scenario if scenario is None else scenario, late_cancel=late_cancel)
        self._host, self._port = host, port
        self._api_key = api_key
        self._poll_after_ms = poll_after_ms
        # Whole seconds: the wire's times then don't depend on the moment at which a test happened to start.
        self._epoch = float(math.floor(time.time() + clock_skew))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_start = 0.0
        self._runner: web.ServerRunner | None = None
        self._date = (0, "")
        self._pausing: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        where = "stopped" if self._runner is None else self.base_url
        runs, responses = len(self._store.runs.all), len(self._store.responses.all)
        return f"<Emulator {where} runs={runs} responses={responses} requests={len(self.requests)}>"

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
            RuntimeError: If it listens already.
            OSError: If the port is taken.
        """
        if self._runner is not None:
            raise RuntimeError(f"{self!r} is started already; stop it first")
        self._epoch, self._loop = self.now(), asyncio.get_running_loop()
        self._loop_start = self._loop.time()
        runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening and close every connection; nothing happens if it is stopped already.

        Requests that a fault holds up get no answer, and no effect if they had none yet.
        """
        runner, self._runner = self._runner, None
        # aiohttp would wait for those whose client is there, and forget those whose client has left.
        pausing = list(self._pausing)
        for task in pausing:
            task.cancel()
        await asyncio.gather(*pausing, return_exceptions=True)
        if runner is not None:
            await runner.cleanup()
            await asyncio.sleep(0)  # closed transports give their sockets back in the loop's next round

    @property
    def base_url(self) -> str:
        """Where it listens, like `http://127.0.0.1:40123/v1`."""
        if self._runner is None:
            raise RuntimeError("the emulator is not started; use `async with Emulator() as emulator`")
        host, port = self._runner.addresses[0][:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    @property
    def runs(self) -> Mapping[str, Body]:
        """Every run by its id, as a GET would show it now."""
        return Shown(self._store.runs.all, self.now)

    @property
    def responses(self) -> Mapping[str, Body]:
        """Every response by its id, as a GET would show it now."""
        return Shown(self._store.responses.all, self.now)

    def now(self) -> float:
        """Give the server's time: epoch seconds, advancing with the loop's clock."""
        if self._loop is None:
            return self._epoch
        return self._epoch + self._loop.time() - self._loop_start

    def script(self, scenario: ScenarioSource, *, assistant_id: str | None = None, model: str | None = None) -> None:
        """Set what an assistant's next runs do, or a model's next responses.

        An assistant that doesn't exist is made, with no tools. A chain of responses stays with what it began with.

        Raises:
            ValueError: If neither or both of `assistant_id` and `model` are given.
        """
        if (assistant_id is None) is (model is None):
            raise ValueError("give either assistant_id, for runs, or model, for responses")
        if model is not None:
            self._store.responses.scripts[model] = scenario
        elif assistant_id is not None:
            self._store.assistants.ensure(assistant_id, self.now())
            self._store.runs.scripts[assistant_id] = scenario

    def inject(self, *faults: Fault) -> None:
        """Let things go wrong from now on; `faults` shows them, and is where to take them back.

        If several are due for a request, the one that was injected first strikes; the others miss their turn.
        """
        self.faults.extend(InjectedFault(fault) for fault in faults)

    def submitted(self, run_id: str) -> list[dict[str, str]]:
        """Give the rounds of outputs that were accepted, each by call id; of a response, those on the way to it."""
        if (response := self._store.responses.all.get(run_id)) is not None:
            return [dict(done.outputs) for done in response.answered]
        return [dict(submission.outputs) for submission in self._store.runs.all[run_id].submissions]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        raw = await request.read()
        target = target_of(request.method, path, raw)
        asked = dict(parse_qsl(query, keep_blank_values=True))
        at = asyncio.get_running_loop().time()
        seen = SeenRequest(
            method=request.method,
            path=path,
            query=query,
            headers=without_secrets(request.headers),
            body=raw,
            at=at,
            operation=target.operation,
            run_id=target.run_id or asked.get("run_id"),
        )
        self.requests.append(seen)
        act = partial(self._act, seen, target, asked, request.headers.get("Authorization"))
        injected = strike(self.faults, seen)
        if injected is None:
            return await self._reply(request, target, seen, act())
        answer = await self._fail(injected, seen, act)
        if injected.fault.drop:
            return _drop(request)
        return await self._reply(request, target, seen, answer)

    async def _reply(
        self, request: web.BaseRequest, target: Target, seen: SeenRequest, answer: Answer
    ) -> web.StreamResponse:
        run = None
        if seen.acted and seen.asks_for_a_stream and answer.status == HTTPStatus.OK and may_stream(target):
            # An answer that a fault has made into something else is sent as it is.
            run = self._store.runs.all.get(str(json_object(answer.body).get("id")))
        return self._send(seen, answer) if run is None else await self._stream(request, seen, answer, run)

    async def _stream(
        self, request: web.BaseRequest, seen: SeenRequest, answer: Answer, run: Run
    ) -> web.StreamResponse:
        seen.status = answer.status
        thread = self._store.threads.find(run.thread_id, self.now())
        response = web.StreamResponse(headers={**answer.headers, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        end = None if seen.fault is None else seen.fault.stream
        left = math.inf if end is None or seen.fault is None else seen.fault.events
        try:
            for event in RunFeed(run, thread, self.now, operation=seen.operation).events():
                if left < 1:
                    return await self._end_early(request, response, end)
                if isinstance(event, bytes):
                    await response.write(event)
                    left -= 1
                else:
                    await self._pause(event - self.now())
            await response.write_eof()
        except ConnectionError:
            pass  # the client has left; the run goes on
        return response

    async def _end_early(
        self, request: web.BaseRequest, response: web.StreamResponse, end: StreamEnd | None
    ) -> web.StreamResponse:
        if end == "break":
            _drop(request)
            return response
        if end == "silence":
            await self._pause(math.inf)
        if end == "error":
            await response.write(ERROR)
        await response.write_eof()
        return response

    async def _fail(self, injected: InjectedFault, seen: SeenRequest, act: Callable[[float], Answer]) -> Answer:
        fault = injected.fault
        await self._pause(fault.delay_before)
        answer = act(fault.stale) if fault.reaches_server else Answer(200, self._headers(self.now()), b"")
        answer = spoiled(answer, fault, injected.earlier(seen))
        await self._pause(fault.delay_after)
        return answer

    def _act(
        self, seen: SeenRequest, target: Target, asked: Mapping[str, str], key: str | None, stale: float = 0.0
    ) -> Answer:
        now = self.now()
        headers = self._headers(now)
        try:
            self._check_key(key)
            status, body = 200, self._store.perform(target, asked, read_body(seen.body), now - stale)
            seen.acted = True
        except refusals.RefusedError as refusal:
            status, body = refusal.status, refusal.body
        self._hint(headers, seen.method, body)
        return Answer(status, headers, msgspec.json.encode(body))

    def _send(self, seen: SeenRequest, answer: Answer) -> web.Response:
        for injected in self.faults:
            injected.remember(seen, answer)
        seen.status = answer.status
        response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        if "Content-Length" in response.headers:
            response.force_close()  # it may promise more than there is
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

    def _check_key(self, authorization: str | None) -> None:
        if self._api_key is None:
            return
        if authorization is None:
            raise refusals.no_key()
        if authorization != f"Bearer {self._api_key}":
            raise refusals.wrong_key(authorization.removeprefix("Bearer "))

    def _headers(self, now: float) -> dict[str, str]:
        second = math.floor(now)
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True))
        return {
            "Content-Type": "application/json",
            "Date": self._date[1],
            "Server": "asyncruns-emulator",
            "openai-version": "2020-10-01",
            "openai-processing-ms": "25",
            "x-request-id": self._store.ids.new_request_id(),
        }

    def _hint(self, headers: dict[str, str], method: str, body: Body) -> None:
        if self._poll_after_ms is None or method != "GET" or body.get("object") not in _POLLED:
            return
        if body["status"] not in TERMINAL:
            headers["openai-poll-after-ms"] = f"{self._poll_after_ms:g}"


def _drop(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # written to a closed transport, which aiohttp takes for a client that has left
