"""Ten thousand runs of ten minutes in one fleet, in virtual time and without sockets: the CPU cost of our own code.

    python benchmarks/fleet_virtual.py                    # takes seconds
    python benchmarks/fleet_virtual.py --profile          # shows where they are spent, by cProfile
    python benchmarks/fleet_virtual.py --runs 1000 --requests-per-second 50

All time is CPU time, including that of the server in this process, so this shows the cost of a poll.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from asyncruns import Cadence, Client, Completed, Fleet
from asyncruns.testing import InMemoryTransport, Scenario, VirtualTimeLoop

ASSISTANT = "asst_1"
LASTS_S = 600.0
LATENCY_S = 0.02
MAX_IN_FLIGHT = 64


@dataclass(frozen=True)
class Figures:
    """The results of one measurement."""

    completed: int
    polls: int
    virtual_s: float  # from the first watch to the last outcome
    mean_delay_s: float  # from the end of a run to its outcome
    creating_s: float  # CPU time for creating the runs
    watching_s: float  # CPU time for watching them


async def watched(runs: int, per_second: float | None, cadence: Cadence | None, profile: cProfile.Profile) -> Figures:
    server, loop = InMemoryTransport(latency=LATENCY_S), asyncio.get_running_loop()
    lasting = random.Random(1)
    began = time.process_time()

    async def created() -> list[Any]:
        made = []
        for _ in range(runs):
            scenario = Scenario(queued=0.5, working=lasting.uniform(0.9, 1.1) * LASTS_S, lifetime=10 * LASTS_S)
            server.script(scenario, assistant_id=ASSISTANT)
            made.append(await client.threads.create_and_run(assistant_id=ASSISTANT))
            ends[made[-1].id] = loop.time() + scenario.queued + scenario.working
        return made

    ends: dict[str, float] = {}
    delays: list[float] = []
    async with Client(transport=server, max_retries=0) as client:
        made = await created()
        creating, began = time.process_time() - began, time.process_time()
        at, completed = loop.time(), 0
        fleet = Fleet(client, requests_per_second=per_second, max_in_flight=MAX_IN_FLIGHT, cadence=cadence)
        profile.enable()
        async with fleet:
            adding = asyncio.create_task(fleet.add_many(given(made)))
            async for outcome in fleet:
                completed += isinstance(outcome, Completed)
                delays.append(loop.time() - ends[outcome.ref.ids[-1]])
            await adding
        profile.disable()
        return Figures(
            completed=completed,
            polls=fleet.statistics().polls,
            virtual_s=loop.time() - at,
            mean_delay_s=sum(delays) / len(delays),
            creating_s=creating,
            watching_s=time.process_time() - began,
        )


async def given(runs: list[Any]) -> AsyncIterator[Any]:
    for run in runs:
        yield run


def run(
    runs: int, per_second: float | None, cadence: Cadence | None = None, profile: cProfile.Profile | None = None
) -> Figures:
    """Watch `runs` runs until they end."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(watched(runs, per_second, cadence, profile or _NoProfile()))


class _NoProfile(cProfile.Profile):
    def enable(self, *arguments: Any, **options: Any) -> None:
        pass

    def disable(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--requests-per-second", type=float, default=None)
    parser.add_argument(
        "--fixed", type=float, default=None, help="poll at this interval in seconds, instead of learning"
    )
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    profile = cProfile.Profile() if arguments.profile else None
    cadence = None if arguments.fixed is None else Cadence.fixed(arguments.fixed)
    figures = run(arguments.runs, arguments.requests_per_second, cadence, profile)
    print(f"completed        {figures.completed:>10}")
    print(f"polls            {figures.polls:>10}")
    print(f"virtual time     {figures.virtual_s:>10.1f} s")
    print(f"mean delay       {figures.mean_delay_s:>10.2f} s")
    print(f"creating         {figures.creating_s:>10.2f} s of CPU time")
    print(f"watching         {figures.watching_s:>10.2f} s of CPU time")
    print(f"per poll         {figures.watching_s / figures.polls * 1e6:>10.0f} us of CPU time")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
