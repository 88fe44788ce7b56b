"""More runs than the request budget can poll: which run to poll next, so that ends are seen soonest.

    python benchmarks/fleet_budget.py
    python benchmarks/fleet_budget.py --sockets

5,000 runs arrive over two minutes; 60 % of them last about 2 s and 40 % about 45 s. The server accepts 200 requests in
any one second and answers 429 to more. The fleet and its competitor have the same budget and the same runs. The
competitor polls round robin: every 1/200 s the next run in a ring of all runs that are not known to have ended.

Both are measured in virtual time, with a server in memory that answers after about 50 ms. With `--sockets` they are
measured in real time, each in a process of its own with a server in another, which takes four minutes. A simulation
that knows the true distribution shows what is possible. Writes `results/fleet_budget.json` and, without `--sockets`,
`results/fleet_budget.png` beside this file; exits with 1 if the goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fleet_budget_sketch import sketch
from fleet_clients import KEY, control
from fleet_server import PLANS, Budget, Planned, ids, run_body

from asyncruns.abc import RunClient, Transport
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request, Response
from asyncruns.lifecycle.values import RunRef
from asyncruns.testing import VirtualTimeLoop
from asyncruns.wire import Message, Run

HERE: Final = Path(__file__).parent
RUNS: Final = 5_000
PER_SECOND: Final = 200
SEED: Final = 1
LATENCY_S: Final = 0.05
EPOCH: Final = 1_750_000_000.0
GOAL: Final = 0.45
OURS: Final = "asyncruns"
RING: Final = "round robin"
SKETCHES: Final = {"knows, most expected delay": "sum", "knows, most likely ended": "likely"}

Figures = dict[str, Any]


class Watching:
    """The runs that one client watches, with their arrivals and the times at which their ends are seen (loop time)."""

    def __init__(self, connection: RunClient[Run], arrivals: Sequence[float]) -> None:
        """Begin now; `arrivals` are in seconds from now, sorted."""
        self.connection = connection
        self.began = asyncio.get_running_loop().time()
        self.seen: dict[str, float] = {}
        self._arrivals = arrivals

    @property
    def all_seen(self) -> bool:
        return len(self.seen) == len(self._arrivals)

    def saw(self, ref: RunRef) -> None:
        """Record that the end of a run was seen."""
        self.seen[ref.ids[1]] = asyncio.get_running_loop().time()

    async def arrive(self, welcome: Callable[[RunRef], object]) -> None:
        """Call `welcome` with each run when it arrives."""
        loop, dialect = asyncio.get_running_loop(), ThreadRunDialect()
        for number, arrival in enumerate(self._arrivals):
            await asyncio.sleep(self.began + arrival - loop.time())
            welcome(dialect.ref(*ids(number)))

    def delays(self, ends: Sequence[float]) -> list[float]:
        """Return the time from the end of each run to when it was seen; `ends` are by the loop's clock."""
        return [self.seen[ids(number)[1]] - end for number, end in enumerate(ends)]


async def by_fleet(watching: Watching) -> None:
    from asyncruns import Fleet

    some = asyncio.Event()
    async with Fleet(watching.connection, requests_per_second=PER_SECOND) as fleet:

        def welcome(ref: RunRef) -> None:
            fleet.watch(ref)
            some.set()

        arriving = asyncio.create_task(watching.arrive(welcome))
        while not watching.all_seen:
            await some.wait()
            some.clear()
            async for outcome in fleet:  # ends when all that have arrived so far have ended
                assert outcome.status == "completed", outcome
                watching.saw(outcome.ref)
        await arriving
        print(fleet.statistics(), file=sys.stderr)


async def by_ring(watching: Watching) -> None:
    loop = asyncio.get_running_loop()
    ring: deque[RunRef] = deque()
    transport, dialect = watching.connection.transport, watching.connection.dialect

    async def poll(ref: RunRef) -> None:
        request = dialect.poll(ref)
        response = await transport.send(request)
        if response.status == 200 and dialect.read(request, response).status == "completed":
            watching.saw(ref)
        else:
            ring.append(ref)

    due = loop.time()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watching.arrive(ring.append))
        while not watching.all_seen:
            if ring:
                tasks.create_task(poll(ring.popleft()))
            # After a late timer, catch up by at most one poll: this uses the budget without exceeding it.
            due = max(due + 1.0 / PER_SECOND, loop.time() - 1.0 / PER_SECOND)
            await asyncio.sleep(due - loop.time())


CLIENTS: Final[dict[str, Callable[[Watching], Awaitable[None]]]] = {RING: by_ring, OURS: by_fleet}


class MemoryTransport(Transport):
    """A server in memory that answers after about 50 ms and accepts PER_SECOND requests in any one second."""

    def __init__(self, plan: Sequence[Planned]) -> None:
        self.polls = self.refused = 0
        self._plan = plan
        self._began = asyncio.get_running_loop().time()
        self._budget = Budget(PER_SECOND)
        self._draw = random.Random(SEED)

    @property
    def ends(self) -> list[float]:
        return [self._began + run.arrives + run.lasts for run in self._plan]

    async def send(self, request: Request) -> Response:
        response = self._answer(request, asyncio.get_running_loop().time() - self._began)
        await asyncio.sleep(self._draw.uniform(0.8, 1.2) * LATENCY_S)
        return response

    def _answer(self, request: Request, now: float) -> Response:
        headers = {"date": formatdate(EPOCH + now, usegmt=True)}
        if not self._budget.takes(self._began + now):
            self.refused += 1
            return Response(429, headers, b'{"error": {"message": "Too many requests", "type": "requests"}}')
        self.polls += 1
        number = int(request.path.rpartition("_")[2])
        run = self._plan[number]
        end = run.arrives + run.lasts
        completed_at = EPOCH + end if now >= end else None
        return Response(200, headers, run_body(number, EPOCH + run.arrives, completed_at))

    async def aclose(self) -> None:
        pass


class MemoryConnection:
    """The part of a client that a fleet needs."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.dialect = ThreadRunDialect()

    async def answer(self, ref: RunRef) -> Sequence[Message]:
        return ()


def in_memory(name: str, plan: Sequence[Planned]) -> Figures:
    """Measure one client in virtual time."""

    async def measure() -> Figures:
        transport = MemoryTransport(plan)
        watching = Watching(MemoryConnection(transport), [run.arrives for run in plan])
        await CLIENTS[name](watching)
        return figures(watching.delays(transport.ends), plan) | {"polls": transport.polls, "refused": transport.refused}

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(measure())


async def over_sockets(name: str, base_url: str, plan: Sequence[Planned]) -> Figures:
    """Measure one client against a server in another process, in real time."""
    from asyncruns import BearerAuth, Client

    async with Client(f"{base_url}/v1", auth=BearerAuth(KEY)) as client:
        await client.threads.runs.retrieve(ids(10**6)[1], thread_id=ids(10**6)[0])
        start = control(base_url, "POST", f"/start?plan=mixed&n={len(plan)}&seed={SEED}")
        watching = Watching(client, start["arrives"])
        await CLIENTS[name](watching)
        server = control(base_url, "GET", "/ends")
    return figures(watching.delays(server["ends"]), plan) | {key: server[key] for key in ("polls", "refused")}


def over_sockets_apart(name: str, runs: int) -> Figures:
    """Measure one client over sockets, in a process of its own with a server of its own."""
    command = [sys.executable, str(HERE / "fleet_server.py"), "--budget", str(PER_SECOND)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        base_url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        client = [sys.executable, __file__, "--client", name, "--base-url", base_url, "--runs", str(runs)]
        try:
            found = subprocess.run(client, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            server.stdin.close()
    result: Figures = json.loads(found.stdout)
    return result


def figures(delays: Sequence[float], plan: Sequence[Planned]) -> Figures:
    assert min(delays) >= 0.0, "the end of a run was seen before it happened"
    ordered = sorted(delays)
    kinds = {
        f"delay_mean_{kind}_s": statistics.fmean(
            delay for delay, run in zip(delays, plan, strict=True) if run.kind == kind
        )
        for kind in ("short", "long")
    }
    return {
        "delay_mean_s": statistics.fmean(delays),
        **kinds,
        "delay_p50_s": ordered[len(ordered) // 2],
        "delay_p99_s": ordered[int(len(ordered) * 0.99)],
        "delay_max_s": ordered[-1],
        "delay_percentiles_s": [round(ordered[(len(ordered) - 1) * part // 100], 4) for part in range(101)],
    }


def gained(results: dict[str, Figures], name: str) -> float:
    """Return the share by which the mean delay is less than that of round robin."""
    return float(1.0 - results[name]["delay_mean_s"] / results[RING]["delay_mean_s"])


def show(results: dict[str, Figures]) -> None:
    keys = [key for key in results[RING] if key != "delay_percentiles_s"]
    print(f"{'':<26}", *(f"{key.removeprefix('delay_'):>12}" for key in keys), f"{'gained':>8}")
    for name, one in results.items():
        cells = [f"{one[key]:>12.4g}" if key in one else f"{'':>12}" for key in keys]
        print(f"{name:<26}", *cells, f"{gained(results, name):>8.1%}")


def write(results: dict[str, Figures], where: str) -> None:
    """Write the figures, keeping those of the other mode, and the plot if they were measured in memory."""
    path = HERE / "results" / "fleet_budget.json"
    path.parent.mkdir(exist_ok=True)
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    report |= {
        "what": "5,000 runs over two minutes, 60 % of about 2 s and 40 % of about 45 s, 200 requests per second; "
        "delay from the end of a run to when the client has seen it",
        "goal": f"a mean delay at least {GOAL:.0%} less than that of going round",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("asyncruns", "aiohttp", "msgspec")},
        where: {name: {"gained": round(gained(results, name), 3), **one} for name, one in results.items()},
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if where == "in_memory":
        plot(results, path.with_suffix(".png"))


def plot(results: dict[str, Figures], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    chart, axes = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
    for name, one in results.items():
        style = "-" if name in CLIENTS else ":"
        label = f"{name}: mean {one['delay_mean_s']:.2f} s"
        axes.plot(one["delay_percentiles_s"], range(101), style, label=label)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xticks([0, 0.5, 1, 2, 5, 10, 20], ["0", "0.5", "1", "2", "5", "10", "20"])
    axes.set_xlim(left=0)
    axes.set_ylim(0, 100)
    axes.set_xlabel("s from the end of a run to seeing it (log beyond 1 s)")
    axes.set_ylabel("% of the runs")
    axes.legend(loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    chart.savefig(path, dpi=130)


def measure_all(runs: int, *, sockets: bool) -> dict[str, Figures]:
    plan = PLANS["mixed"](runs, SEED)
    if sockets:  # both clients at the same time: 200 requests per second leave the machine nearly idle
        with ThreadPoolExecutor() as threads:
            return dict(zip(CLIENTS, threads.map(lambda name: over_sockets_apart(name, runs), CLIENTS), strict=True))
    results = {name: in_memory(name, plan) for name in CLIENTS}
    return results | {name: figures(sketch(plan, PER_SECOND, index), plan) for name, index in SKETCHES.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", action="store_true", help="measure in real time, over sockets")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="number of runs; with another than the default, nothing is written"
    )
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        plan = PLANS["mixed"](options.runs, SEED)
        json.dump(asyncio.run(over_sockets(options.client, options.base_url, plan)), sys.stdout)
        return 0
    results = measure_all(options.runs, sockets=options.sockets)
    show(results)
    if options.runs == RUNS:
        write(results, "over_sockets" if options.sockets else "in_memory")
    met = gained(results, OURS) >= GOAL
    print(f"{'met' if met else 'MISSED'}: mean delay {gained(results, OURS):.1%} less, at least {GOAL:.0%}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
