#!/usr/bin/env python3
"""Kill and stop workers that watch runs for workflows of Temporal, and the server of Temporal, and print a table.

    python .ci/campaigns/kill_temporal.py [--runs RUNS] [--seconds SECONDS] [--seed SEED] [--hosts]

Three workers watch runs with two rounds of calls, on both wires, in shards and one by one. In the second half of the
time, those that start are of another version. With --hosts, each has a network of its own, which is cut off at times.

No call may begin twice, unless its tool may run again; each outcome must be told, and outputs must be accepted once.
The follow-up of a response may be lost: its outcome says so then. Exits with 1, and keeps the files of the campaign, if
that does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from kill_temporal_counts import Counted, count_of
from kill_temporal_flows import Ask
from kill_temporal_worker import connected
from kill_temporal_world import HEARTBEAT_S, Hosts, TemporalServer, Workers, why_not
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError
from yarl import URL

from asyncruns import Client, RunRef
from asyncruns.temporal import AsyncRunsPlugin, Shards, start_shards
from asyncruns.testing import Emulator, FunctionCall, Scenario
from asyncruns.testing.emulator import RunRequest

WORKERS: Final = 3
SHARD: Final = 50  # runs
ALONE: Final = 5  # one run in so many has a workflow of its own
LATEST_S: Final = 180.0  # how long the last outcomes may take, when nothing is killed any more
QUIET: Final = TelemetryFilter(core_level="ERROR", other_level="ERROR")  # it warns of each retry of a request
KEY: Final = "secret-word"


@dataclass
class Watched:
    """The runs of one wire, and the workflows that watch them.

    Attributes:
        listed: The runs of shards that `Shards.outcomes` has listed.
        results: What the workflows of single runs returned.
    """

    refs: list[RunRef]
    shards: Shards
    asks: list[WorkflowHandle[Any, str]]
    listed: set[str] = field(default_factory=set)
    results: list[str] = field(default_factory=list)

    async def list_all(self) -> None:
        """Read how the runs end; from the first one again whenever the server of Temporal was away."""
        while True:
            try:
                async for ended in self.shards.outcomes():
                    self.listed.add(str(ended.ref))
                self.results = [await ask.result() for ask in self.asks]
            except RPCError:
                await asyncio.sleep(0.5)
            else:
                return


async def begin(temporal: TemporalClient, client: Client, wire: str, runs: int) -> Watched:
    """Create runs, and start the workflows that watch them."""
    refs = []
    for _ in range(runs):
        if wire == "threads":
            thread = await client.threads.create(messages=[{"role": "user", "content": "Pay"}])
            refs.append(RunRef.of(await client.threads.runs.create(thread.id, assistant_id="asst_1")))
        else:
            refs.append(RunRef.of(await client.responses.create(model="gpt-test", input="Pay", background=True)))
    many = [ref for number, ref in enumerate(refs) if number % ALONE]
    shards = await start_shards(
        temporal, many, id=wire, task_queue="campaign", size=SHARD, heartbeat_timeout=HEARTBEAT_S
    )
    asks = [
        await temporal.start_workflow(Ask.run, ref, id=f"{wire}-alone-{number}", task_queue="campaign")
        for number, ref in enumerate(refs[::ALONE])
    ]
    return Watched(refs, shards, asks)


def scenario(wire: str, chance: random.Random, seconds: float) -> Callable[[RunRequest], Scenario]:
    """Return what runs do: two rounds of calls, at any time of the campaign."""
    first = (FunctionCall("pay", {"to": f"{wire}-a"}), FunctionCall("look_up", {"name": f"{wire}-b"}))
    rounds = (first, (FunctionCall("pay", {"to": f"{wire}-c"}),))

    def chosen(_: RunRequest) -> Scenario:
        return Scenario(rounds=rounds, working=chance.uniform(0.2, seconds / 4), lifetime=seconds + 2 * LATEST_S)

    return chosen


async def disturb(workers: Workers, server: TemporalServer, chance: random.Random, seconds: float) -> None:
    """Kill and stop workers and the server at random, each deed at least once if there is time."""

    async def restart() -> None:
        await server.restart(away=chance.uniform(0.0, 3.0))

    deeds: dict[Callable[[], Awaitable[None]], int] = {workers.kill: 5, workers.stop: 3, restart: 2, workers.replace: 1}
    if workers.hosts is not None:
        deeds[workers.cut_off] = 2
    due = chance.sample(list(deeds), len(deeds))
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        await asyncio.sleep(chance.uniform(0.2, 3.0))
        workers.version = 2 if passed > seconds / 2 else 1
        await (due.pop() if due else chance.choices(list(deeds), list(deeds.values()))[0])()


async def nondeterministic(temporal: TemporalClient, watched: Watched) -> int:
    """Return how many times a worker could not replay a history."""
    number = 0
    for handle in [*watched.shards.handles, *watched.asks]:
        async for event in handle.fetch_history_events():
            failed = event.workflow_task_failed_event_attributes
            is_failure = event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
            number += (
                is_failure
                and failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
            )
    return number


async def campaign(folder: Path, chance: random.Random, runs: int, seconds: float, hosts: Hosts | None) -> bool:
    """Watch runs, disturb their workers, print what became of them, and return whether that is as it must be."""
    address = "127.0.0.1" if hosts is None else "0.0.0.0"
    server = TemporalServer(folder, address)
    async with (
        Emulator(host=address, api_key=KEY) as emulator,
        Client(URL(emulator.base_url).with_host("127.0.0.1"), api_key=KEY) as client,
    ):
        emulator.script(scenario("threads", chance, seconds), assistant_id="asst_1")
        emulator.script(scenario("responses", chance, seconds), model="gpt-test")
        workers = Workers(folder, URL(emulator.base_url), server.port, WORKERS, chance, hosts)
        try:
            await server.start()
            await workers.start()
            temporal = await connected(f"127.0.0.1:{server.port}", AsyncRunsPlugin())
            share = {"threads": runs - runs // 4, "responses": runs // 4}
            of_wire = {wire: await begin(temporal, client, wire, number) for wire, number in share.items()}
            reading = asyncio.gather(*(each.list_all() for each in of_wire.values()))
            await disturb(workers, server, chance, seconds)
            await workers.calm()
            calm_at = time.monotonic()
            try:
                await asyncio.wait_for(reading, LATEST_S)
            except TimeoutError:
                print(f"Some outcomes did not come within {LATEST_S:.0f} s")
            print(f"The last outcome came {time.monotonic() - calm_at:.1f} s after the last disturbance")
            wrong = sum([await nondeterministic(temporal, each) for each in of_wire.values()])
        finally:
            await workers.end()
            await server.kill()
        print(f"Workers: {dict(workers.deeds)}; the server of Temporal was killed {server.restarts} times")
        for line in workers.ended:
            print(f"A worker ended by itself: {line}")
        print(f"Histories that could not be replayed: {wrong}\n")
        counted = {}
        for wire, each in of_wire.items():
            counted[wire] = count_of(wire, each.refs, each.results, folder, emulator)
            counted[wire].never_listed = len(each.refs) - len(each.asks) - len(each.listed)
    show(counted)
    return not wrong and all(each.is_well for each in counted.values())


def show(of_wire: dict[str, Counted]) -> None:
    """Print a table."""
    print("| |", " | ".join(of_wire), "|")
    print("|---|", "---|" * len(of_wire))
    for name in asdict(Counted()):
        print(f"| {name.replace('_', ' ')} |", " | ".join(str(getattr(each, name)) for each in of_wire.values()), "|")


def main() -> None:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long workers are killed and stopped")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--hosts", action="store_true", help="give each worker a network namespace; needs root")
    given = parser.parse_args()
    if (reason := why_not()) is not None:
        sys.exit(reason)
    print("The seed:", given.seed, flush=True)
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(QUIET))))
    folder = Path(tempfile.mkdtemp(prefix="kill-temporal-"))
    hosts = Hosts(WORKERS) if given.hosts else None
    try:
        if hosts is not None:
            hosts.open()
        is_well = asyncio.run(campaign(folder, random.Random(given.seed), given.runs, given.seconds, hosts))
    finally:
        if hosts is not None:
            hosts.close()
    if not is_well:
        sys.exit(f"This must not be; the files are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
