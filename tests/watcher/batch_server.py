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
        batch_id = request.path.split("/")[2]
        if request.path.endswith("/cancel"):
            self.cancelled.setdefault(batch_id, now)
        headers = {"date": formatdate(EPOCH + now, usegmt=True)}
        return Response(200, headers, json.dumps(self.batch(batch_id)).encode())

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
