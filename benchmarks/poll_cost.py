"""CPU time of one retrieve with decoding: asyncruns compared with plain aiohttp + msgspec and with the official client.

    python benchmarks/poll_cost.py

Each client runs in a process of its own, against a bare server in another; the clients take turns, and the figure is
the median of the repetitions. CPU time is the user and system time of the client's process, without its start and
warm-up. Writes `results/poll_cost.json` and `results/poll_cost.png` beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from bars import plot_bars

HERE = Path(__file__).parent
CLIENTS = ("asyncruns", "plain", "openai")
SIZES = {"1 KB": 1024, "32 KB": 32 * 1024}
REQUESTS = {"asyncruns": 6000, "plain": 6000, "openai": 600}
WARM_UP = 200
SETTLING_BLOCK = 4 * 1024 * 1024
IN_FLIGHT = 16
REPETITIONS = 5
TIMEOUT_S = 30.0
KEY = "sk-0123456789abcdef0123456789abcdef"

Retrieve = Callable[[int], Awaitable[object]]


async def with_asyncruns(base_url: str, measure: Callable[[Retrieve], Awaitable[float]]) -> float:
    from asyncruns import BearerAuth, Client

    async with Client(base_url, auth=BearerAuth(KEY), request_timeout=TIMEOUT_S) as client:
        retrieve = client.threads.runs.retrieve
        return await measure(lambda n: retrieve(f"run_{n}", thread_id="thread_abc123"))


async def with_plain(base_url: str, measure: Callable[[Retrieve], Awaitable[float]]) -> float:
    import aiohttp
    import msgspec

    from asyncruns.wire import Run

    headers = {"Authorization": f"Bearer {KEY}", "OpenAI-Beta": "assistants=v2", "Accept": "application/json"}
    decoder = msgspec.json.Decoder(Run)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=10.0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:

        async def retrieve(n: int) -> Run:
            async with session.get(f"{base_url}/threads/thread_abc123/runs/run_{n}") as response:
                body = await response.read()
                response.raise_for_status()
                return decoder.decode(body)

        return await measure(retrieve)


async def with_openai(base_url: str, measure: Callable[[Retrieve], Awaitable[float]]) -> float:
    import warnings

    from openai import AsyncOpenAI

    warnings.simplefilter("ignore")
    async with AsyncOpenAI(base_url=base_url, api_key=KEY, timeout=TIMEOUT_S) as client:
        retrieve = client.beta.threads.runs.retrieve
        return await measure(lambda n: retrieve(f"run_{n}", thread_id="thread_abc123"))


WITH = {"asyncruns": with_asyncruns, "plain": with_plain, "openai": with_openai}


async def measure_client(name: str, base_url: str) -> float:
    """Return the CPU time of one retrieve, in microseconds."""

    async def measure(retrieve: Retrieve) -> float:
        async def several(numbers: list[int]) -> None:
            while numbers:
                await retrieve(numbers.pop())

        async def all_of(count: int) -> None:
            numbers = list(range(count))
            await asyncio.gather(*(several(numbers) for _ in range(IN_FLIGHT)))

        # asyncio reads into blocks of 256 KB. Until a process has freed a block of that size, glibc maps and unmaps
        # each of them, which costs 40 to 100 us per request at 32 KB. Whether the warm-up frees one is a matter of
        # luck for each client, so free one here.
        del bytearray(SETTLING_BLOCK)[:]
        await all_of(WARM_UP)
        began = time.process_time()
        await all_of(REQUESTS[name])
        return (time.process_time() - began) / REQUESTS[name] * 1e6

    return await WITH[name](base_url, measure)


def measure_all() -> dict[str, dict[str, list[float]]]:
    figures: dict[str, dict[str, list[float]]] = {size: {name: [] for name in CLIENTS} for size in SIZES}
    for label, size in SIZES.items():
        with subprocess.Popen(
            [sys.executable, str(HERE / "bare_server.py"), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout is not None
            base_url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            for repetition in range(REPETITIONS):
                # In turns and each time in another order, so that no client always has the quietest moment.
                for name in CLIENTS[repetition % 3 :] + CLIENTS[: repetition % 3]:
                    command = [sys.executable, __file__, "--client", name, "--base-url", base_url]
                    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    figures[label][name].append(float(found))
                    print(f"{label:>6} {name:<10} {float(found):8.1f} us", flush=True)
            server.communicate()
    return figures


def report(figures: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    medians = {size: {name: statistics.median(runs) for name, runs in by.items()} for size, by in figures.items()}
    return {
        "what": "CPU microseconds of the client for one retrieve-run, decoded; median of repetitions",
        "in_flight": IN_FLIGHT,
        "repetitions": REPETITIONS,
        "requests": REQUESTS,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("asyncruns", "aiohttp", "msgspec", "openai")},
        "median_us": medians,
        "ratio_to_plain": {
            size: {name: round(value / by["plain"], 3) for name, value in by.items()} for size, by in medians.items()
        },
        "all_us": {
            size: {name: [round(x, 1) for x in runs] for name, runs in by.items()} for size, by in figures.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        print(asyncio.run(measure_client(arguments.client, arguments.base_url)))
        return
    result = report(measure_all())
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "poll_cost.json").write_text(json.dumps(result, indent=2) + "\n")
    medians = result["median_us"]
    assert isinstance(medians, dict)
    plot_bars(
        medians,
        list(CLIENTS),
        [f"a run of {size}" for size in SIZES],
        "CPU time of the client for one retrieve, microseconds (log)",
        results / "poll_cost.png",
    )
    print(json.dumps(result["ratio_to_plain"], indent=2))


if __name__ == "__main__":
    main()
