"""A server that answers with what was recorded of one run, in order, over real sockets.

A poll the run takes the next recorded one, and never overtakes a recorded submit or cancel: until that has come, the
last answer is repeated, as it is at the end of the recording. The clock that `Date` tells goes on meanwhile. What was
not recorded is answered 404 and kept in `unrecorded`.
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
# They belong to the connection and the encoding of then, not to the answer.
UNREPLAYED_HEADERS: Final = frozenset({"connection", "content-encoding", "content-length", "transfer-encoding"})


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request that came; the body is parsed, and None where there was none."""

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
        """The server's clock: as recorded when the answer is given first, and going on from there."""
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
            await asyncio.sleep(0)  # closed transports give their sockets back in the loop's next round

    @property
    def base_url(self) -> str:
        """Where it listens; recorded paths begin with the `/v1`."""
        assert self._runner is not None
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    @property
    def polls_left(self) -> int:
        """How many recorded polls nobody has asked for yet."""
        return sum(_is_poll(step) for step in self._coming)

    def received(self, method: str, ending: str) -> list[Received]:
        """Give the requests whose path has that ending."""
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
