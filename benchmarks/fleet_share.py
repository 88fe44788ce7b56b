"""What a fleet itself costs a poll: the schedule, the lifecycle and the learning, without HTTP and decoding.

    python benchmarks/fleet_share.py

Ten thousand runs of about 5 s begin at once, in virtual time, at a server that answers each request after 8 ms, with a
snapshot that is ready: 57 polls are in flight at once, so some 7,000 a second, and thousands of polls wait for their
turn all the time. The time that is spent in each part is taken with `time.perf_counter()` around its functions. What
sending costs by itself (a request, a task that waits, an event) is measured in tasks without a fleet.
Writes `results/fleet_share.json` beside this file; exits with 1 if the goal is missed.
"""

from __future__ import annotations

import asyncio
import json
import math
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from asyncruns import Fleet, RunRef
from asyncruns.abc import Dialect, RunClient, Transport
from asyncruns.cadence.learned_pauses import LearnedPauses
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.fleet.member import Member
from asyncruns.fleet.schedule import Schedule
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Asked, Phase, Snapshot
from asyncruns.testing import VirtualTimeLoop
from asyncruns.watch.requests import send_for_event

HERE: Final = Path(__file__).parent
RUNS: Final = 10_000
MEAN_S, SIGMA = 5.0, 0.6
LATENCY_S: Final = 0.008
IN_FLIGHT: Final = 57
REPETITIONS: Final = 3
GOAL_US: Final = 20.0
EPOCH: Final = 1_750_000_000.0
ANSWER: Final = Response(200, {}, b"")
PARTS: Final[dict[str, tuple[tuple[type, str], ...]]] = {
    "schedule": ((Schedule, "plan"), (Schedule, "landed")),
    "lifecycle and learning": ((Member, "polled"),),
    "learning alone": ((LearnedPauses, "learn"),),
}


class Server(Transport):
    """Answers after a while, whatever is asked."""

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(LATENCY_S)
        return ANSWER

    async def aclose(self) -> None:
        pass


class Ready(ThreadRunDialect):
    """Reads no body: a run lasts as long as it was drawn."""

    def __init__(self) -> None:
        super().__init__()
        draw = random.Random(1)
        self.lasts = [MEAN_S * math.exp(draw.gauss(-SIGMA * SIGMA / 2, SIGMA)) for _ in range(RUNS)]
        self.began = asyncio.get_running_loop().time()

    def read(self, request: Request, response: Response) -> Snapshot[Any]:
        now = asyncio.get_running_loop().time()
        is_over = now - self.began >= self.lasts[int(request.path[-24:])]
        return Snapshot(
            phase=Phase.SUCCEEDED if is_over else Phase.RUNNING,
            status="completed" if is_over else "in_progress",
            resource=None,
            created_at=EPOCH + self.began,
            expires_at=EPOCH + self.began + 600.0,
            server_time=EPOCH + now,
            group=("asst_1", "gpt-4o"),
        )


class Connection(RunClient[Any]):
    """The server, as a fleet needs it."""

    def __init__(self) -> None:
        self._server, self._dialect = Server(), Ready()

    @property
    def transport(self) -> Transport:
        return self._server

    @property
    def dialect(self) -> Dialect[Any]:
        return self._dialect

    async def answer(self, resource: Any) -> Sequence[Any]:
        return ()


def timed(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, with the seconds that it takes added to a part."""
    clock = time.perf_counter

    def call(*arguments: Any, **named: Any) -> Any:
        began = clock()
        try:
            return function(*arguments, **named)
        finally:
            spent[name] += clock() - began

    return call


async def measured() -> dict[str, float]:
    """Return microseconds a poll."""
    client = Connection()
    refs = [RunRef("thread.run", (f"thread_{number:024}", f"run_{number:024}")) for number in range(RUNS)]
    began = time.process_time()
    async with Fleet(client, requests_per_second=None) as fleet:
        await fleet.add_many(refs)
    whole = time.process_time() - began
    polls = fleet.statistics().polls

    async def send() -> None:
        for ref in refs[: polls // IN_FLIGHT]:
            await send_for_event(client, client.dialect.poll(ref), Asked.POLL)

    began = time.process_time()
    await asyncio.gather(*[send() for _ in range(IN_FLIGHT)])
    return {"polls": polls, "whole": whole / polls * 1e6, "sending": (time.process_time() - began) / polls * 1e6}


def repetition() -> dict[str, float]:
    """Return the figures of one fleet whose parts are timed, and of one whose parts are not."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        figures = runner.run(measured())
    spent = dict.fromkeys(PARTS, 0.0)
    originals = [(owner, name, getattr(owner, name)) for those in PARTS.values() for owner, name in those]
    for part, those in PARTS.items():
        for owner, name in those:
            setattr(owner, name, timed(spent, part, getattr(owner, name)))
    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            polls = runner.run(measured())["polls"]
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)
    return figures | {part: seconds / polls * 1e6 for part, seconds in spent.items()}


def main() -> int:
    figures = min((repetition() for _ in range(REPETITIONS)), key=lambda one: one["whole"])
    share = figures["schedule"] + figures["lifecycle and learning"]
    report = {
        "what": "CPU microseconds a poll, of a fleet of 10,000 runs of about 5 s, saturated; least of the repetitions",
        "repetitions": REPETITIONS,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("asyncruns", "msgspec", "anyio")},
        "polls_per_run": round(figures.pop("polls") / RUNS, 2),
        "us_per_poll": {name: round(value, 1) for name, value in figures.items()},
        "schedule, lifecycle and learning": round(share, 1),
        "at_most": GOAL_US,
    }
    (HERE / "results" / "fleet_share.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    return 0 if share <= GOAL_US else 1


if __name__ == "__main__":
    sys.exit(main())
