"""200 runs at once on a server with many faults: asyncruns (single watches, and a fleet) and the official client.

    python benchmarks/many_faults.py            # in virtual time: takes seconds
    python benchmarks/many_faults.py --real     # in real time: takes about a minute

Each run has two rounds of three calls. Every fifth answer is a 500, a 429 or a dropped connection, and every third
submit is accepted but its answer is lost. One client watches all runs at once. With asyncruns, every run must complete,
each call must be executed once, and no submit may be refused; otherwise this exits with 1.

The official client is used twice: as in its documentation, and in a loop that starts again after every error, as
applications do. Its figures are shown, not asserted. The runs are created before the faults begin, since only watching
is compared. Writes `results/many_faults.json` beside this file if run in virtual time with 200 runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from asyncruns import BearerAuth, Client, Completed, Fleet, Toolset
from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario, VirtualTimeLoop
from asyncruns.wire import Run

HERE = Path(__file__).parent
RUNS = 200
ROUNDS = 2
NAMES = ("get_weather", "get_time", "get_news")
TOOL_TAKES_S = 0.2
KEY = "sk-0123456789abcdef0123456789abcdef"
SCENARIO = Scenario(
    queued=0.5,
    working=1.0,
    rounds=tuple(tuple(FunctionCall(name, {"round": place}) for name in NAMES) for place in range(ROUNDS)),
)
# The first fault that is due strikes, so the faults of submits come first.
FAULTS = (
    Fault(on="submit", drop=True, acts=True, every=3, times=None),
    Fault(status=500, every=15, skip=0, times=None),
    Fault(status=429, every=15, skip=5, times=None),
    Fault(drop=True, every=15, skip=10, times=None),
)
RESTARTS = 20  # restarts after errors, before the application gives up

Execute = Callable[[str, Mapping[str, Any]], Awaitable[str]]
Watch = Callable[[Any, str, str, Execute], Awaitable[bool]]
"""Watches a run, given a client, the ids of thread and run, and a function that executes a call.

Returns whether the run was seen to complete.
"""


@dataclass(frozen=True)
class Figures:
    """The results, from the emulator's own counts and a counter in the tools."""

    completed: int  # as seen by the client
    completed_at_server: int
    executed: int
    executed_again: int
    submits_accepted: int
    submits_refused: int
    raised: dict[str, int]
    requests: int
    answers_spoiled: int
    submit_answers_lost: int
    seconds: float


async def measure(runs: int, watch: Watch, open_client: Callable[[str], Any]) -> Figures:
    executed: Counter[tuple[str, str, int]] = Counter()
    raised: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    async with Emulator(SCENARIO) as emulator, open_client(emulator.base_url) as client:
        names = await created(emulator.base_url, runs)
        emulator.requests.clear()
        emulator.inject(*FAULTS)

        async def one(thread_id: str, run_id: str) -> bool:
            async def execute(name: str, arguments: Mapping[str, Any]) -> str:
                executed[run_id, name, arguments["round"]] += 1
                await asyncio.sleep(TOOL_TAKES_S)
                return f"{name} of {run_id}"

            try:
                return await watch(client, thread_id, run_id, execute)
            except Exception as error:
                raised[type(error).__name__] += 1
                return False

        began = loop.time()
        seen = await asyncio.gather(*(one(*name) for name in names))
        seconds = loop.time() - began
        submits = [request for request in emulator.requests if request.operation == "submit"]
        return Figures(
            completed=sum(seen),
            completed_at_server=sum(emulator.runs[run_id]["status"] == "completed" for _, run_id in names),
            executed=executed.total(),
            executed_again=sum(count - 1 for count in executed.values()),
            submits_accepted=sum(len(emulator.submitted(run_id)) for _, run_id in names),
            submits_refused=sum(request.status == 400 for request in submits),
            raised=dict(raised),
            requests=len(emulator.requests),
            answers_spoiled=sum(request.fault is not None for request in emulator.requests),
            submit_answers_lost=sum(request.acted and request.status != 200 for request in submits),
            seconds=round(seconds, 1),
        )


async def created(base_url: str, runs: int) -> list[tuple[str, str]]:
    async with Client(base_url, auth=BearerAuth(KEY)) as client:
        assistant = await client.assistants.create(model="gpt-4o")
        names = []
        for _ in range(runs):
            thread = await client.threads.create()
            names.append((thread.id, (await client.threads.runs.create(thread.id, assistant_id=assistant.id)).id))
        return names


def tools_of(execute: Execute) -> Toolset:
    tools = Toolset()
    for name in NAMES:

        def tool(round: int, name: str = name) -> Awaitable[str]:
            return execute(name, {"round": round})

        tools.tool(tool, name=name)
    return tools


async def by_asyncruns(client: Client, thread_id: str, run_id: str, execute: Execute) -> bool:
    outcome = await client.watch(thread_id=thread_id, run_id=run_id, tools=tools_of(execute))
    return isinstance(outcome, Completed)


async def by_fleet(fleet: Fleet[Run], thread_id: str, run_id: str, execute: Execute) -> bool:
    outcome = await fleet.watch(thread_id=thread_id, run_id=run_id, tools=tools_of(execute))
    return isinstance(outcome, Completed)


async def by_openai(client: Any, thread_id: str, run_id: str, execute: Execute) -> bool:
    """Watch as in https://platform.openai.com/docs/assistants/tools/function-calling."""
    runs = client.beta.threads.runs
    run = await runs.poll(run_id=run_id, thread_id=thread_id)
    while run.status == "requires_action":
        calls = run.required_action.submit_tool_outputs.tool_calls
        texts = await asyncio.gather(
            *(execute(call.function.name, json.loads(call.function.arguments)) for call in calls)
        )
        outputs = [{"tool_call_id": call.id, "output": text} for call, text in zip(calls, texts, strict=True)]
        run = await runs.submit_tool_outputs_and_poll(run_id=run_id, thread_id=thread_id, tool_outputs=outputs)
    return bool(run.status == "completed")


async def by_openai_with_restarts(client: Any, thread_id: str, run_id: str, execute: Execute) -> bool:
    """Watch in the same way, but start again with the run after every error."""
    from openai import OpenAIError

    for _ in range(RESTARTS):
        try:
            return await by_openai(client, thread_id, run_id, execute)
        except OpenAIError:
            await asyncio.sleep(1.0)
    return await by_openai(client, thread_id, run_id, execute)


def open_asyncruns(base_url: str) -> Client:
    return Client(base_url, auth=BearerAuth(KEY))


@asynccontextmanager
async def open_fleet(base_url: str) -> AsyncIterator[Fleet[Run]]:
    async with open_asyncruns(base_url) as client, Fleet(client, requests_per_second=None) as fleet:
        yield fleet


def open_openai(base_url: str) -> Any:
    from openai import AsyncOpenAI

    warnings.simplefilter("ignore", DeprecationWarning)
    return AsyncOpenAI(base_url=base_url, api_key=KEY)


CLIENTS: Mapping[str, tuple[Watch, Callable[[str], Any]]] = {
    "asyncruns": (by_asyncruns, open_asyncruns),
    "asyncruns, a fleet": (by_fleet, open_fleet),
    "openai": (by_openai, open_openai),
    "openai, started again": (by_openai_with_restarts, open_openai),
}


OURS = tuple(name for name in CLIENTS if name.startswith("asyncruns"))


def run(name: str, runs: int, *, real: bool = False) -> Figures:
    """Watch `runs` runs with one of the clients."""
    watch, open_client = CLIENTS[name]
    with asyncio.Runner(loop_factory=None if real else VirtualTimeLoop) as runner:
        return runner.run(measure(runs, watch, open_client))


def violations(figures: Figures, runs: int) -> list[str]:
    """Return the figures that are not as required."""
    rounds = runs * ROUNDS
    wanted = {
        "completed": runs,
        "completed_at_server": runs,
        "executed": rounds * len(NAMES),
        "executed_again": 0,
        "submits_accepted": rounds,
        "submits_refused": 0,
        "raised": {},
    }
    found = asdict(figures)
    return [f"{name} is {found[name]}, not {value}" for name, value in wanted.items() if found[name] != value]


def show(results: Mapping[str, Figures]) -> None:
    names = list(results)
    print(f"{'':>20}", *(f"{name:>22}" for name in names))
    for row in asdict(results[names[0]]):
        cells = []
        for name in names:
            value = getattr(results[name], row)
            cells.append(f"{sum(value.values()) if isinstance(value, dict) else value:>22}")
        print(f"{row.replace('_', ' '):>20}", *cells)
    for name in names:
        for error, count in results[name].raised.items():
            print(f"{name}: raised {error} {count} times")


def is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--real", action="store_true", help="in real time")
    arguments = parser.parse_args()
    names = [name for name in CLIENTS if name in OURS or is_installed("openai")]
    results = {name: run(name, arguments.runs, real=arguments.real) for name in names}
    show(results)
    if arguments.runs == RUNS and not arguments.real and len(names) == len(CLIENTS):
        report = {
            "what": "200 runs of two rounds of three calls, watched at once in virtual time; every fifth answer is a "
            "500, a 429 or a dropped connection, every third submit is accepted and its answer lost",
            "target": "200 completed, 1200 executed, none again, no submit refused",
            "runs": arguments.runs,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("asyncruns", "aiohttp", "openai")},
            "figures": {name: asdict(figures) for name, figures in results.items()},
        }
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "many_faults.json").write_text(json.dumps(report, indent=2) + "\n")
    wrong = [f"{name}: {line}" for name in OURS for line in violations(results[name], arguments.runs)]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
