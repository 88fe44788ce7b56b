"""What `temporal.py` compares: each watches the runs of a server from the first request to when the last end is known.

Started by `temporal.py` as a process of its own, which is the only worker, too; prints its figures as JSON. All have
the same budget of requests. Another way to watch is one more function in `CLIENTS`; it must call `temporal_told.note`
as soon as its caller is told of an end, and return the events of its histories when its workflows know of all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.request import urlopen

import temporal_told
from temporal_costs import Costs, Figures, Server, idle
from temporal_parts import SHARDS, parts
from temporal_workflows import HEARTBEAT_TIMEOUT, ActivityPerRun, NotesEnds
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from asyncruns import Client, Fleet, RunRef, Toolset
from asyncruns.temporal import AsyncRunsPlugin, start_shards

BEAT_S: Final = 10.0  # between heartbeats; the SDK sends one every 24 s, for a timeout of 30 s
QUEUE: Final = "benchmark"
Events = Mapping[str, int]  # number of events in histories, by type


@dataclass(frozen=True)
class Task:
    """What is to be watched, and the server that is measured."""

    base_url: str
    runs: int
    rate: float
    server: Server

    def client(self) -> Client:
        return Client(f"{self.base_url}/v1", api_key="none")


def ref(number: int) -> RunRef:
    return RunRef("thread.run", (f"thread_{number:024}", f"run_{number:024}"))


def number_of(run: RunRef) -> int:
    return int(run.ids[-1].rpartition("_")[2])


def output(arguments: str) -> str:
    return f"{arguments}: " + "x" * 200


def make_tools() -> Toolset:
    tools = Toolset()

    @tools.tool
    async def look_up(key: str) -> str:
        """Look something up."""
        return output(key)

    return tools


# One fleet


async def by_fleet(task: Task, costs: Costs) -> Events:
    """Watch with a plain `Fleet`, which executes the calls."""
    async with task.client() as client, Fleet(client, tools=make_tools(), requests_per_second=task.rate) as fleet:
        await costs.begin()
        await fleet.add_many(map(ref, range(task.runs)))
        async for outcome in fleet:
            temporal_told.note(number_of(outcome.ref))
    return {}


# An activity per run


class Activities:
    """Activities that share the one fleet of their worker."""

    def __init__(self, client: Client, fleet: Fleet[Any]) -> None:
        self._client = client
        self._fleet = fleet

    @activity.defn
    async def watch_run(self, number: int, outputs: dict[str, str]) -> dict[str, str]:
        """Submit outputs, if there are any, and return the arguments of the next calls, by id; of none at the end."""
        if outputs:
            thread_id, run_id = ref(number).ids
            sent = [{"tool_call_id": call_id, "output": text} for call_id, text in outputs.items()]
            await self._client.threads.runs.submit_tool_outputs(run_id, thread_id=thread_id, tool_outputs=sent)
        async with heartbeats():
            outcome = await self._fleet.watch(ref(number))
        return {call.id: call.arguments for call in outcome.calls}

    @activity.defn
    async def look_up(self, arguments: str) -> str:
        return output(arguments)


@asynccontextmanager
async def heartbeats() -> AsyncGenerator[None]:
    """Send heartbeats of this activity within the block."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(BEAT_S)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating


async def by_activities(task: Task, costs: Costs, *, size: int) -> Events:
    """Watch with an activity for each run; `size` is how many of them a workflow has."""
    temporal = await TemporalClient.connect(task.server.address)
    async with task.client() as client, Fleet(client, requests_per_second=task.rate, on_exit="leave") as fleet:
        own = Activities(client, fleet)
        worker = Worker(
            temporal,
            task_queue=QUEUE,
            workflows=[ActivityPerRun],
            activities=[own.watch_run, own.look_up],
            max_concurrent_activities=task.runs + 100,
            activity_task_poller_behavior=PollerBehaviorAutoscaling(),
            workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        )
        async with worker:
            await costs.begin()
            handles = await start(temporal, task.runs, size)
            await all_known(task.runs)
            return await events_of(temporal, handles)


async def start(temporal: TemporalClient, runs: int, size: int) -> list[WorkflowHandle[Any, Any]]:
    """Start a workflow for each `size` runs, 16 at once."""
    limit = asyncio.Semaphore(16)

    async def start_one(first: int) -> WorkflowHandle[Any, Any]:
        async with limit:
            numbers = list(range(first, min(first + size, runs)))
            return await temporal.start_workflow(ActivityPerRun.run, numbers, id=f"runs-{first}", task_queue=QUEUE)

    return await asyncio.gather(*map(start_one, range(0, runs, size)))


async def all_known(runs: int) -> None:
    """Wait until all ends are known; asks nobody."""
    while len(temporal_told.known) < runs:  # noqa: ASYNC110
        await asyncio.sleep(0.2)


async def events_of(temporal: TemporalClient, handles: Iterable[WorkflowHandle[Any, Any]]) -> Events:
    """Count the events in all histories of workflows that have ended, or are about to."""
    found: Counter[str] = Counter()
    for handle in handles:
        await handle.result()
        run_id = handle.first_execution_run_id
        while run_id:
            history = await temporal.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
            found.update(EventType.Name(each.event_type).removeprefix("EVENT_TYPE_").lower() for each in history.events)
            run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


# Shards


async def by_shards(task: Task, costs: Costs, *, size: int) -> Events:
    """Watch with workflows that own `size` runs each, whose one activity is a fleet; `on_outcome` tells the caller."""
    async with worker_of_shards(task) as temporal:
        await costs.begin()
        shards = await start_shards(
            temporal,
            map(ref, range(task.runs)),
            id="shards",
            task_queue=QUEUE,
            size=size,
            requests_per_second=task.rate,
            heartbeat_timeout=HEARTBEAT_TIMEOUT.total_seconds(),
        )
        await all_known(task.runs)
        return await events_of(temporal, shards.handles)


@asynccontextmanager
async def worker_of_shards(task: Task) -> AsyncGenerator[TemporalClient]:
    async with task.client() as client:
        plugin = AsyncRunsPlugin(
            client, tools=make_tools(), on_outcome=lambda outcome: temporal_told.note_told(number_of(outcome.ref))
        )
        temporal = await TemporalClient.connect(task.server.address, plugins=[plugin])
        async with Worker(temporal, task_queue=QUEUE, interceptors=[NotesEnds(number_of)]):
            yield temporal


CLIENTS: Final[Mapping[str, Callable[[Task, Costs], Awaitable[Events]]]] = {
    "one fleet": by_fleet,
    "an activity per run": partial(by_activities, size=100),
    "a workflow per run": partial(by_activities, size=1),
    "shards of 1,000": partial(by_shards, size=1_000),
    "shards of 100": partial(by_shards, size=100),
}
BY_DEFAULT: Final = tuple(name for name in CLIENTS if name != "a workflow per run")
WITHOUT_TEMPORAL: Final = frozenset({"one fleet"})
IDLE: Final = "idle twin"
PARTS: Final = "parts of shards"


def report_of(base_url: str) -> Any:
    with urlopen(f"{base_url}/report") as answer:
        return json.load(answer)


async def measure(name: str, task: Task) -> Figures:
    """Watch all runs, and return the figures."""
    costs = Costs(task.server)
    if name == IDLE:
        async with worker_of_shards(task):
            return await idle(costs)
    if name == PARTS:
        async with worker_of_shards(task) as temporal:
            return await parts(temporal, costs, list(map(ref, range(SHARDS))), QUEUE)
    watching = asyncio.ensure_future(CLIENTS[name](task, costs))
    while len(temporal_told.known) < task.runs and not watching.done():  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    found = costs.end(task.runs)  # before the histories are read, and the worker is shut down
    events = await watching
    report = await asyncio.to_thread(report_of, task.base_url)
    delays, known = (delays_of(times, report["ends"]) for times in (temporal_told.times, temporal_told.known))
    return found | {
        "delay_mean_s": statistics.fmean(delays),
        "delay_p50_s": delays[len(delays) // 2],
        "delay_p99_s": delays[int(len(delays) * 0.99)],
        "delay_max_s": delays[-1],
        "known_mean_s": statistics.fmean(known),
        "known_max_s": known[-1],
        "requests_per_run": (report["polls"] + report["submits"]) / task.runs,
        "requests": report["polls"] + report["submits"],
        "submitted_twice": report["submitted_twice"],
        "first_polls_took_s": report["first_polls_took_s"],
        "activities": events.get("activity_task_scheduled", 0),
        "events_per_run": sum(events.values()) / task.runs,
        "events": dict(events),
    }


def delays_of(times: Mapping[int, float], ends: list[float]) -> list[float]:
    delays = sorted(times[number] - end for number, end in enumerate(ends))
    assert delays[0] >= 0.0, "a run was taken for ended before it was"
    return delays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=(*CLIENTS, IDLE, PARTS), required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--address", default="", help="of the Temporal server")
    parser.add_argument("--server-pid", type=int, default=0)
    parser.add_argument("--metrics", default="", help="address of the metrics of the Temporal server")
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    args = parser.parse_args()
    task = Task(args.base_url, args.runs, args.rate, Server(args.address, args.server_pid, args.metrics))
    print(json.dumps(asyncio.run(measure(args.client, task))))


if __name__ == "__main__":
    main()
