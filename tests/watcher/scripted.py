"""A transport whose answers the test specifies, and a client around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio

from asyncruns.abc import Transport
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.errors import APIConnectionError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import RunRef
from asyncruns.wire import Message

Scripted = Response | Exception | Callable[[], Response]


def run_body(status: str, *calls: tuple[str, str, str], **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "status": status, **fields}
    if calls:
        body["required_action"] = {
            "type": "submit_tool_outputs",
            "submit_tool_outputs": {
                "tool_calls": [
                    {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                    for call_id, name, arguments in calls
                ]
            },
        }
    return body


def ok(status: str, *calls: tuple[str, str, str], **fields: Any) -> Response:
    return Response(200, {}, json.dumps(run_body(status, *calls, **fields)).encode())


def error(status: int, message: str = "no", **fields: Any) -> Response:
    body = {"error": {"message": message, "type": "x", "param": None, "code": None, **fields}}
    return Response(status, {"x-request-id": "req_1"}, json.dumps(body).encode())


def lost() -> APIConnectionError:
    return APIConnectionError("dropped", sent=True)


def refused() -> APIConnectionError:
    return APIConnectionError("refused", sent=False)


class ScriptedTransport(Transport):
    """Answers polls, submits and cancels from one list each; the last answer of a list repeats."""

    def __init__(
        self,
        polls: list[Scripted],
        *,
        submits: list[Scripted] | None = None,
        cancels: list[Scripted] | None = None,
        takes: float = 0.01,
        cancels_take: float | None = None,
    ) -> None:
        self._answers = {"poll": polls, "submit": submits or [], "cancel": cancels or []}
        self._takes = takes
        self._cancels_take = takes if cancels_take is None else cancels_take
        self.submits_take = takes
        self.requests: list[tuple[float, str, Any]] = []
        self.finished: list[str] = []

    def count(self, kind: str) -> int:
        return sum(1 for _, asked, _ in self.requests if asked == kind)

    def times(self, kind: str) -> list[float]:
        return [at for at, asked, _ in self.requests if asked == kind]

    def bodies(self, kind: str) -> list[Any]:
        return [body for _, asked, body in self.requests if asked == kind]

    async def send(self, request: Request) -> Response:
        kind = "poll" if request.method == "GET" else "cancel" if request.path.endswith("/cancel") else "submit"
        body = None if request.body is None else json.loads(request.body)
        self.requests.append((anyio.current_time(), kind, body))
        takes = {"cancel": self._cancels_take, "submit": self.submits_take}
        await anyio.sleep(takes.get(kind, self._takes))
        answers = self._answers[kind]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.finished.append(kind)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    async def aclose(self) -> None:
        pass


class Scene:
    """The client that a watcher gets."""

    def __init__(self, transport: ScriptedTransport) -> None:
        self.transport = transport
        self.dialect = ThreadRunDialect()
        self.ref = self.dialect.ref("thread_1", "run_1")
        self.messages: list[list[Message]] = []

    async def answer(self, ref: RunRef) -> list[Message]:
        return self.messages.pop(0) if self.messages else []


def scene(*polls: Scripted, **more: Any) -> Scene:
    return Scene(ScriptedTransport(list(polls), **more))
