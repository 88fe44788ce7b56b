"""A server whose runs are in a list, newest first, and a dialect that polls them by its pages: no kind of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec

from asyncruns.abc import CollectivePolls, Dialect, Transport
from asyncruns.dialects.errors import bad_answer, error_object, refusal_kind, status_error
from asyncruns.dialects.list_polls import ListedRuns, ListPolls
from asyncruns.errors import InvalidRequestError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Answers, Phase, Refusal, RunRef, Snapshot

PHASES = {"working": Phase.RUNNING, "done": Phase.SUCCEEDED, "stopped": Phase.CANCELLED, "stopping": Phase.CANCELLING}
EPOCH = 1_700_000_000.0


class Job(msgspec.Struct, frozen=True):
    id: str
    state: str
    created_at: float | None = None


class JobPage(msgspec.Struct, frozen=True):
    data: list[Job]
    has_more: bool


def job_snapshot(job: Job) -> Snapshot[Job]:
    phase = PHASES.get(job.state, Phase.UNKNOWN)
    return Snapshot(
        phase=phase, status=job.state, resource=job, created_at=job.created_at, ref=RunRef("job", (job.id,))
    )


class JobPolls(ListPolls[Job]):
    def request(self, cursor: str) -> Request:
        return Request("GET", "/jobs", query=(("after", cursor),) if cursor else ())

    def page(self, request: Request, response: Response) -> ListedRuns:
        try:
            page = msgspec.json.decode(response.body, type=JobPage)
        except msgspec.DecodeError as error:
            raise bad_answer(request, response, error) from error
        shown = [(RunRef("job", (job.id,)), job_snapshot(job)) for job in page.data]
        return ListedRuns(shown, page.data[-1].id if page.data and page.has_more else None)


class JobDialect(Dialect[Job]):
    name = "job"
    without_expiry = 100_000.0

    def __init__(self, *, alone: bool = False) -> None:
        self.alone = alone
        self.polls: list[JobPolls] = []

    def identify(self, run: object, ids: Mapping[str, str]) -> RunRef:
        if isinstance(run, RunRef):
            return run
        if isinstance(run, Job):
            return RunRef("job", (run.id,))
        raise InvalidRequestError("no job")

    def snapshot(self, resource: Job) -> Snapshot[Job]:
        return job_snapshot(resource)

    def poll(self, ref: RunRef) -> Request:
        return Request("GET", f"/jobs/{ref.ids[0]}")

    def read(self, request: Request, response: Response) -> Snapshot[Job]:
        try:
            return job_snapshot(msgspec.json.decode(response.body, type=Job))
        except msgspec.DecodeError as error:
            raise bad_answer(request, response, error) from error

    def submit(
        self, ref: RunRef, snapshot: Snapshot[Job], answers: Answers, *, keep_tool_choice: bool = False
    ) -> Request:
        raise InvalidRequestError("a job calls no tools")

    def cancel(self, ref: RunRef) -> Request:
        return Request("POST", f"/jobs/{ref.ids[0]}/cancel")

    def collective(self) -> CollectivePolls[Job] | None:
        if self.alone:
            return None
        self.polls.append(JobPolls())
        return self.polls[-1]

    def refusal(self, request: Request, response: Response) -> Refusal:
        return Refusal(kind=refusal_kind(response, error_object(response)), cause=status_error(request, response))


class JobServer(Transport):
    """Jobs that end by the loop's clock. `requests` has the times and paths of all requests.

    Attributes:
        broken: Called with each request; returns a response in place of the server's, or None.
        lag: Seconds by which the list lags behind the jobs.
    """

    def __init__(self, *, latency: float = 0.05, page: int = 100) -> None:
        self.latency = latency
        self.page = page
        self.created: dict[str, float] = {}  # oldest first
        self.ends: dict[str, float] = {}
        self.stopped: dict[str, float] = {}
        self.requests: list[tuple[float, str]] = []
        self.broken: Callable[[Request], Response | None] = lambda request: None
        self.lag = 0.0
        self.order: list[str] = []
        self.places: dict[str, int] = {}

    def add(self, count: int, ends: Callable[[int], float], *, prefix: str = "job") -> list[Job]:
        """Create jobs; each ends so many seconds from now."""
        now = asyncio.get_running_loop().time()
        made = []
        for number in range(count):
            id_ = f"{prefix}_{len(self.order)}"
            self.created[id_], self.ends[id_] = now, now + ends(number)
            self.places[id_] = len(self.order)
            self.order.append(id_)
            made.append(self.job(id_, now))
        return made

    def job(self, id_: str, at: float) -> Job:
        stopped = self.stopped.get(id_, float("inf"))
        state = "stopped" if at >= stopped else "done" if at >= self.ends[id_] else "working"
        return Job(id_, state, EPOCH + self.created[id_])

    @property
    def lists(self) -> int:
        return sum(path.startswith("/jobs?") or path == "/jobs" for _, path in self.requests)

    @property
    def singles(self) -> int:
        return len(self.requests) - self.lists

    async def send(self, request: Request) -> Response:
        now = asyncio.get_running_loop().time()
        query = "".join(f"?{name}={value}" for name, value in request.query)
        self.requests.append((now, request.path + query))
        answer = self.broken(request) or self.answer(request, now)
        await anyio.sleep(self.latency)
        return answer

    def answer(self, request: Request, now: float) -> Response:
        parts = request.path.split("/")
        if len(parts) == 2:
            after = dict(request.query).get("after")
            if after is not None and after not in self.places:
                return Response(404, {}, b'{"error": {"message": "no such job"}}')
            end = len(self.order) if after is None else self.places[after]
            ids = self.order[max(end - self.page, 0) : end][::-1]
            return _ok(JobPage([self.job(id_, now - self.lag) for id_ in ids], end > self.page))
        if parts[2] not in self.created:
            return Response(404, {}, b'{"error": {"message": "no such job"}}')
        if len(parts) == 4:
            self.stopped[parts[2]] = min(now, self.ends[parts[2]])
        return _ok(self.job(parts[2], now))

    async def aclose(self) -> None:
        pass


def _ok(value: Any) -> Response:
    return Response(200, {}, msgspec.json.encode(value))


class JobClient:
    def __init__(self, transport: Transport, *, alone: bool = False) -> None:
        self.transport = transport
        self.dialect = JobDialect(alone=alone)

    async def answer(self, ref: RunRef) -> list[Any]:
        return []


def refused(status: int, message: str = "no") -> Response:
    return Response(status, {}, json.dumps({"error": {"message": message}}).encode())
