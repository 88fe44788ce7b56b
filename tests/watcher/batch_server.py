"""A server of batches whose course in time the test specifies, as a transport."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import anyio

from asyncruns.abc import Transport
from asyncruns.errors import APIConnectionError
from asyncruns.http import Request, Response

EPOCH = 1_790_000_000.0  # the server's time when it begins
Course = Callable[[float], dict[str, Any]]
"""The fields of a batch by its age in seconds."""


def steady(ends_at: float, *, end: str = "completed", total: int = 1000) -> Course:
    """Return the course of a batch whose requests end at an even rate."""

    def course(age: float) -> dict[str, Any]:
        done = int(total * min(age / ends_at, 1.0))
        fields: dict[str, Any] = {"status": "in_progress" if age < ends_at else end}
        if age >= ends_at:
            fields[f"{end}_at"] = int(EPOCH + ends_at)
        return fields | {"request_counts": {"total": total, "completed": done, "failed": 0}}

    return course


class MessageBatchServer(Transport):
    """Serves one batch of Anthropic's wire, which ends after 20 s, or when it is cancelled."""

    def __init__(self) -> None:
        self._began = anyio.current_time()
        self._cancelled_at: float | None = None

    async def send(self, request: Request) -> Response:
        if request.path == "/messages/batches":
            return Response(404, {}, b'{"type": "error", "error": {"type": "not_found_error", "message": "no list"}}')
        if request.path.endswith("/cancel"):
            self._cancelled_at = anyio.current_time()
        return Response(200, {}, json.dumps(self.batch()).encode())

    def batch(self) -> dict[str, Any]:
        is_cancelled = self._cancelled_at is not None
        counts = {"processing": 0, "succeeded": 9, "errored": 1, "canceled": 0, "expired": 0}
        if is_cancelled:
            counts |= {"succeeded": 4, "canceled": 5}
        age = anyio.current_time() - self._began
        has_ended = age >= 20.0 or (self._cancelled_at is not None and anyio.current_time() > self._cancelled_at)
        if not has_ended:
            counts = dict.fromkeys(counts, 0) | {"processing": 10}
        at_work = "canceling" if is_cancelled else "in_progress"
        return {
            "id": "msgbatch_1",
            "type": "message_batch",
            "processing_status": "ended" if has_ended else at_work,
            "request_counts": counts,
            "created_at": "2026-11-30T20:00:00.000112+00:00",
            "expires_at": "2026-12-01T20:00:00.000112+00:00",
        }

    async def aclose(self) -> None:
        pass


class BatchServer(Transport):
    """Serves batches of OpenAI's wire; a cancel takes `cancel_takes` seconds.

    Attributes:
        courses: By id, the courses of the batches, which begin with the server.
        down: From when to when the server cannot be reached.
        requests: The time, method and path of each request.
    """

    def __init__(self, **courses: Course) -> None:
        self.courses = courses
        self._began = anyio.current_time()
        self.down: tuple[float, float] = (0.0, 0.0)
        self.requests: list[tuple[float, str, str]] = []
        self.cancel_takes = 300.0
        self.cancelled: dict[str, float] = {}
        self.window = 86_400.0

    @property
    def now(self) -> float:
        """Seconds since the server began."""
        return anyio.current_time() - self._began

    def polls(self, batch_id: str) -> list[float]:
        return [at for at, method, path in self.requests if (method, path) == ("GET", f"/batches/{batch_id}")]

    async def send(self, request: Request) -> Response:
        now = self.now
        self.requests.append((now, request.method, request.path))
        if self.down[0] <= now < self.down[1]:
            raise APIConnectionError("refused", sent=False)
        await anyio.sleep(0.01)
        _, _, batch_id, action, *_ = [*request.path.split("/"), "", ""]
        if action == "cancel":
            self.cancelled.setdefault(batch_id, now)
        listed = {"object": "list", "data": [self.batch(each) for each in self.courses], "has_more": False}
        body = self.batch(batch_id) if batch_id else listed
        headers = {"date": formatdate(EPOCH + now, usegmt=True)}
        return Response(200, headers, json.dumps(body).encode())

    def batch(self, batch_id: str) -> dict[str, Any]:
        now = self.now
        fields = self.courses[batch_id](now)
        since = self.cancelled.get(batch_id)
        if since is not None:
            fields["status"] = "cancelling" if now < since + self.cancel_takes else "cancelled"
        return {
            "id": batch_id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "created_at": int(EPOCH),
            "expires_at": int(EPOCH + self.window),
            **fields,
        }

    async def aclose(self) -> None:
        pass
