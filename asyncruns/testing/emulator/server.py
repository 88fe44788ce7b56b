"""The emulator's HTTP side: an aiohttp server on a port of this machine.

A low-level server, without aiohttp's routing: it has few paths, and it answers thousands of polls in a test.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from asyncruns.testing.emulator import refusals
from asyncruns.testing.emulator.fields import Body, read_body
from asyncruns.testing.emulator.scenario import ScenarioSource, default_scenario
from asyncruns.testing.emulator.store import Store
from asyncruns.testing.emulator.timeline import TERMINAL

_SECRET_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-portkey-api-key"}
)
_SHUTDOWN_TIMEOUT_S: Final = 0.1
# All clients live in this process and may connect in one go.
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """A request that was answered.

    Attributes:
        path, query: As they were sent, not unquoted; the query without its `?`.
        headers: Lower-case names; credentials are replaced by `***`.
        at: When it arrived, by the loop's clock.
        status: The answer's HTTP status.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    status: int


class Emulator:
    """An Assistants server in this process, for tests and demonstrations.

    It may be left from another task than it was entered in, and entered again; its state stays.

    Args:
        scenario: What runs do: one scenario for all, or a function that chooses; by default each function that a run
            offers is called once, then the run completes.
        port: 0 takes a free one.
        api_key: If given, other keys get a 401; otherwise every request is accepted.
        poll_after_ms: If given, answers to a GET of an unfinished run carry `openai-poll-after-ms`.
    """

    def __init__(
        self,
        scenario: ScenarioSource | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        poll_after_ms: float | None = None,
    ) -> None:
        self.requests: list[SeenRequest] = []
        self._store = Store(default_scenario if scenario is None else scenario)
        self._host, self._port = host, port
        self._api_key = api_key
        self._poll_after_ms = poll_after_ms
        # Whole seconds: the wire's times then don't depend on the moment at which a test happened to start.
        self._epoch = float(math.floor(time.time()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_start = 0.0
        self._runner: web.ServerRunner | None = None
        self._date = (0, "")

    def __repr__(self) -> str:
        where = "stopped" if self._runner is None else self.base_url
        return f"<Emulator {where} runs={len(self._store.runs.all)} requests={len(self.requests)}>"

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
        """Stop listening and close every connection; nothing happens if it is stopped already."""
        runner, self._runner = self._runner, None
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
        return _Runs(self)

    def now(self) -> float:
        """Give the server's time: epoch seconds, advancing with the loop's clock."""
        if self._loop is None:
            return self._epoch
        return self._epoch + self._loop.time() - self._loop_start

    def script(self, scenario: ScenarioSource, *, assistant_id: str) -> None:
        """Set what an assistant's next runs do; an assistant that doesn't exist is made, with no tools."""
        self._store.assistants.ensure(assistant_id, self.now())
        self._store.runs.scripts[assistant_id] = scenario

    def submitted(self, run_id: str) -> list[dict[str, str]]:
        """Give the rounds of outputs that were accepted, each by call id."""
        return [dict(submission.outputs) for submission in self._store.runs.all[run_id].submissions]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        at = asyncio.get_running_loop().time()
        path, _, query = request.raw_path.partition("?")
        raw = await request.read()
        now = self.now()
        headers = self._headers(now)
        try:
            self._check_key(request.headers.get("Authorization"))
            asked = dict(parse_qsl(query, keep_blank_values=True))
            status, body = 200, self._store.perform(request.method, path, asked, read_body(raw), now)
        except refusals.RefusedError as refusal:
            status, body = refusal.status, refusal.body
        self._hint(headers, request.method, body)
        self.requests.append(
            SeenRequest(
                method=request.method,
                path=path,
                query=query,
                headers=_without_secrets(request.headers),
                body=raw,
                at=at,
                status=status,
            )
        )
        return web.Response(status=status, headers=headers, body=msgspec.json.encode(body))

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
        if self._poll_after_ms is None or method != "GET" or body.get("object") != "thread.run":
            return
        if body["status"] not in TERMINAL:
            headers["openai-poll-after-ms"] = f"{self._poll_after_ms:g}"


class _Runs(Mapping[str, Body]):
    """The runs by id; each body is made when it is asked for."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def __getitem__(self, run_id: str) -> dict[str, Any]:
        return self._emulator._store.runs.all[run_id].body(self._emulator.now())

    def __iter__(self) -> Iterator[str]:
        return iter(self._emulator._store.runs.all)

    def __len__(self) -> int:
        return len(self._emulator._store.runs.all)


def _without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    lowered = ((name.lower(), value) for name, value in headers.items())
    return {name: "***" if name in _SECRET_HEADERS else value for name, value in lowered}
