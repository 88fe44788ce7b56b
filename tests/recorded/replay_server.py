"""A server that replays the recorded answers for one run, in order, over real sockets.

A poll of the run gets the next recorded answer, but never one that follows a recorded submit or cancel: until that
request has come, the last answer is repeated, as it is at the end of the recording. The clock in `Date` keeps running.
Requests that were not recorded are answered with 404 and kept in `unrecorded`.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from aiohttp import web
from recordings import Lifecycle, Step

SHUTDOWN_TIMEOUT_S: Final = 0.1
# These belong to the recorded connection and its encoding, not to the answer.
UNREPLAYED_HEADERS: Final = frozenset({"connection", "content-encoding", "content-length", "transfer-encoding"})


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request that arrived; the body is parsed JSON, or None if there was none."""

    method: str
    path: str
    body: Any
    beta: str | None


@dataclass(kw_only=True)
class _Given:
    step: Step
    at: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def date(self) -> float:
        """The server's clock: the recorded time when the answer is first sent, and running from there."""
        recorded = self.step.exchange.headers.get("date")
        if recorded is not None:
            first = email.utils.parsedate_to_datetime(recorded).timestamp()
        else:
            run = self.step.run or {}
            first = run.get("created_at", 0) + self.step.at_s
        return float(first) + asyncio.get_running_loop().time() - self.at


class ReplayServer:
    """Replays one lifecycle; use it with `async with`."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.requests: list[Received] = []
        self.unrecorded: list[Received] = []
        self._lifecycle = lifecycle
        self._coming = list(lifecycle.steps)
        self._shown: _Given | None = None  # the answer that polls repeat
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> ReplayServer:
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            await asyncio.sleep(0)  # closed transports close their sockets in the loop's next iteration

    @property
    def base_url(self) -> str:
        """The URL of the server; recorded paths begin with its `/v1`."""
        assert self._runner is not None
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    @property
    def polls_left(self) -> int:
        """Number of recorded polls that were not replayed yet."""
        return sum(_is_poll(step) for step in self._coming)

    def received(self, method: str, ending: str) -> list[Received]:
        """Return the requests with this method whose path has this ending."""
        return [each for each in self.requests if each.method == method and each.path.endswith(ending)]

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        text = await request.text()
        received = Received(
            method=request.method,
            path=request.path,
            body=json.loads(text) if text else None,
            beta=request.headers.get("openai-beta"),
        )
        self.requests.append(received)
        is_poll = received.method == "GET" and received.path == self._lifecycle.path
        given = self._poll() if is_poll else self._recorded(received)
        if given is None:
            self.unrecorded.append(received)
            return web.json_response({"error": {"message": f"Not recorded: {received}"}}, status=404)
        return _response(given)

    def _poll(self) -> _Given | None:
        for index, step in enumerate(self._coming):
            if step.exchange.method == "POST":
                break
            if _is_poll(step):
                del self._coming[: index + 1]
                self._shown = _Given(step=step)
                break
        return self._shown

    def _recorded(self, received: Received) -> _Given | None:
        for index, step in enumerate(self._coming):
            if (step.exchange.method, step.exchange.path) == (received.method, received.path):
                del self._coming[index]
                given = _Given(step=step)
                if step.run is not None:
                    self._shown = given
                return given
        return None


def _is_poll(step: Step) -> bool:
    return step.exchange.method == "GET" and step.run is not None


def _response(given: _Given) -> web.Response:
    exchange = given.step.exchange
    headers = {name: value for name, value in exchange.headers.items() if name not in UNREPLAYED_HEADERS}
    headers["date"] = email.utils.formatdate(given.date, usegmt=True)
    headers.setdefault("content-type", "application/json")
    body = exchange.body if given.step.run is None else given.step.run
    return web.Response(status=exchange.status, headers=headers, body=json.dumps(body).encode())
