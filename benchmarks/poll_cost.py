"""CPU time of one retrieve, decoded: asyncruns beside plain aiohttp + msgspec, other HTTP clients, and `openai`.

    python benchmarks/poll_cost.py
    python benchmarks/poll_cost.py --condition "1 KB, TLS" --only "asyncruns;asyncruns:httptools;plain"

asyncruns sends with aiohttp, or with httptools; both, and plain aiohttp, also run on uvloop. httpx, pyreqwest and wreq
(the last two are written in Rust) are used by hand, as plain aiohttp is, and decode to the same struct with msgspec.
The ratios are to plain aiohttp on the same loop. Each client runs in a process of its own, against a bare server in
another; the clients take turns, and the figure is the median of the repetitions. CPU time is user and system time of
the client's process, all its threads included, without its start and warm-up. A process that crashes is counted, and
not repeated. Over TLS, the official client is left out, since it takes no option for a self-signed certificate.
Writes `results/poll_cost.json` and `results/poll_cost.png` beside this file, unless options say what to measure.
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
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bars import plot_bars

if TYPE_CHECKING:
    from asyncruns.client.options import ClientOptions, HTTPLibrary

HERE = Path(__file__).parent
PLAIN = "plain"
UVLOOP = ", uvloop"
ON_ONE_LOOP = ("asyncruns", "asyncruns:httptools", PLAIN)
CLIENTS = (*ON_ONE_LOOP, *(name + UVLOOP for name in ON_ONE_LOOP), "httpx", "pyreqwest", "wreq", "openai")
LIBRARIES = ("asyncruns", "aiohttp", "httptools", "uvloop", "msgspec", "httpx", "pyreqwest", "wreq", "openai")
KIB = 1024
CONDITIONS = {"1 KB": (1 * KIB, False), "1 KB, TLS": (1 * KIB, True), "32 KB": (32 * KIB, False)}  # size, TLS
REQUESTS = 6000
FEWER_REQUESTS = 600  # of the two that take a millisecond or more
WARM_UP = 200
SETTLING_BLOCK = 4 * 1024 * 1024
IN_FLIGHT = 16
REPETITIONS = 5
TIMEOUT_S = 30.0
KEY = "sk-0123456789abcdef0123456789abcdef"

Retrieve = Callable[[int], Awaitable[object]]


def unchecked(base_url: str) -> bool:
    """Return the value of `ssl=` for a client: False over TLS, since the server's certificate is self-signed."""
    return not base_url.startswith("https:")


async def with_asyncruns(
    base_url: str, measure: Callable[[Retrieve], Awaitable[float]], http: HTTPLibrary = "aiohttp"
) -> float:
    from asyncruns import BearerAuth, Client

    options: ClientOptions = {"request_timeout": TIMEOUT_S, "ssl": unchecked(base_url), "http": http}
    async with Client(base_url, auth=BearerAuth(KEY), **options) as client:
        retrieve = client.threads.runs.retrieve
        return await measure(lambda n: retrieve(f"run_{n}", thread_id="thread_abc123"))


HEADERS = {"Authorization": f"Bearer {KEY}", "OpenAI-Beta": "assistants=v2", "Accept": "application/json"}


async def with_plain(base_url: str, measure: Callable[[Retrieve], Awaitable[float]]) -> float:
    import aiohttp
    import msgspec

    from asyncruns.wire import Run

    decoder = msgspec.json.Decoder(Run)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=10.0)
    async with aiohttp.ClientSession(headers=HEADERS, timeout=timeout) as session:

        async def retrieve(n: int) -> Run:
            url = f"{base_url}/threads/thread_abc123/runs/run_{n}"
            async with session.get(url, ssl=unchecked(base_url)) as response:
                body = await response.read()
                response.raise_for_status()
                return decoder.decode(body)

        return await measure(retrieve)


async def with_httpx(base_url: str, measure: Callable[[Retrieve], Awaitable[float]]) -> float:
    import httpx
    import msgspec

    from asyncruns.wire import Run

    decoder = msgspec.json.Decoder(Run)
    async with httpx.AsyncClient(headers=HEADERS, timeout=TIMEOUT_S, verify=unchecked(base_url)) as client:

        async def retrieve(n: int) -> Run:
            response = await client.get(f"{base_url}/threads/thread_abc123/runs/run_{n}")
            response.raise_for_status()
            return decoder.decode(response.content)

        return await measure(retrieve)


async def with_pyreqwest(base_url: str, measure: Callable[[Retrieve], Awaitable[float]]) -> float:
    from datetime import timedelta

    import msgspec
    from pyreqwest.client import ClientBuilder

    from asyncruns.wire import Run

    decoder = msgspec.json.Decoder(Run)
    builder = ClientBuilder().default_headers(HEADERS).timeout(timedelta(seconds=TIMEOUT_S)).error_for_status(True)
    if not unchecked(base_url):
        builder = builder.danger_accept_invalid_certs(True)
    async with builder.build() as client:

        async def retrieve(n: int) -> Run:
            response = await client.get(f"{base_url}/threads/thread_abc123/runs/run_{n}").build().send()
            return decoder.decode(await response.bytes())

        return await measure(retrieve)


async def with_wreq(base_url: str, measure: Callable[[Retrieve], Awaitable[float]]) -> float:
    from datetime import timedelta

    import msgspec
    import wreq

    from asyncruns.wire import Run

    decoder = msgspec.json.Decoder(Run)
    client = wreq.Client(headers=HEADERS, timeout=timedelta(seconds=TIMEOUT_S), tls_verify=unchecked(base_url))

    async def retrieve(n: int) -> Run:
        response = await client.get(f"{base_url}/threads/thread_abc123/runs/run_{n}")
        response.raise_for_status()
        return decoder.decode(await response.bytes())

    return await measure(retrieve)


async def with_openai(base_url: str, measure: Callable[[Retrieve], Awaitable[float]]) -> float:
    import warnings

    from openai import AsyncOpenAI

    warnings.simplefilter("ignore")
    async with AsyncOpenAI(base_url=base_url, api_key=KEY, timeout=TIMEOUT_S) as client:
        retrieve = client.beta.threads.runs.retrieve
        return await measure(lambda n: retrieve(f"run_{n}", thread_id="thread_abc123"))


WITH: dict[str, Callable[[str, Callable[[Retrieve], Awaitable[float]]], Awaitable[float]]] = {
    "asyncruns": with_asyncruns,
    "asyncruns:httptools": lambda base_url, measure: with_asyncruns(base_url, measure, "httptools"),
    PLAIN: with_plain,
    "httpx": with_httpx,
    "pyreqwest": with_pyreqwest,
    "wreq": with_wreq,
    "openai": with_openai,
}


async def measure_client(name: str, base_url: str) -> float:
    """Return the microseconds of CPU time for one retrieve."""

    requests = FEWER_REQUESTS if name in ("httpx", "openai") else REQUESTS

    async def measure(retrieve: Retrieve) -> float:
        async def several(numbers: list[int]) -> None:
            while numbers:
                await retrieve(numbers.pop())

        async def all_of(count: int) -> None:
            numbers = list(range(count))
            await asyncio.gather(*(several(numbers) for _ in range(IN_FLIGHT)))

        # asyncio reads into blocks of 256 KB. Until a process has freed one so large, glibc maps and unmaps each of
        # them, which costs 40 to 100 us a request at 32 KB. Whether the warm-up brings that about is luck, for each
        # client; so it is brought about here.
        del bytearray(SETTLING_BLOCK)[:]
        await all_of(WARM_UP)
        began = time.process_time()
        await all_of(requests)
        return (time.process_time() - began) / requests * 1e6

    return await WITH[name.removesuffix(UVLOOP)](base_url, measure)


def run_client(name: str, base_url: str) -> float:
    if not name.endswith(UVLOOP):
        return asyncio.run(measure_client(name, base_url))
    import uvloop

    return uvloop.run(measure_client(name, base_url))


Figures = dict[str, dict[str, list[float]]]
Crashes = dict[str, int]


def measure_all(clients: Sequence[str], conditions: Sequence[str], repetitions: int) -> tuple[Figures, Crashes]:
    figures: Figures = {label: {} for label in conditions}
    crashes: Crashes = {}
    for label in conditions:
        size, tls = CONDITIONS[label]
        some = [name for name in clients if not (tls and name == "openai")]
        command = [sys.executable, str(HERE / "bare_server.py"), str(size), *(["--tls"] if tls else [])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            base_url = f"{'https' if tls else 'http'}://127.0.0.1:{server.stdout.readline().strip()}/v1"
            for repetition in range(repetitions):
                # Turns, and in another order each time, so that no client always has the quiet moment.
                turn = repetition % len(some)
                for name in (*some[turn:], *some[:turn]):
                    command = [sys.executable, __file__, "--client", name, "--base-url", base_url]
                    found = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
                    if found.returncode:
                        crashes[name] = crashes.get(name, 0) + 1
                        print(f"{label:>9} {name:<28} ended with {found.returncode}", flush=True)
                        continue
                    figures[label].setdefault(name, []).append(float(found.stdout))
                    print(f"{label:>9} {name:<28} {float(found.stdout):8.1f} us", flush=True)
            server.communicate()
    return figures, crashes


def medians_of(figures: Figures) -> dict[str, dict[str, float]]:
    return {size: {name: statistics.median(runs) for name, runs in by.items()} for size, by in figures.items()}


def ratios(figures: Figures) -> dict[str, dict[str, float]]:
    """Return each client's median beside that of plain aiohttp on the same loop, where both were measured."""
    found: dict[str, dict[str, float]] = {}
    for size, by in medians_of(figures).items():
        for name, value in by.items():
            beside = PLAIN + (UVLOOP if name.endswith(UVLOOP) else "")
            if beside in by:
                found.setdefault(size, {})[name] = round(value / by[beside], 3)
    return found


def report(figures: Figures, crashes: Crashes) -> dict[str, object]:
    return {
        "what": "CPU microseconds of the client for one retrieve-run, decoded; median of repetitions",
        "in_flight": IN_FLIGHT,
        "repetitions": REPETITIONS,
        "requests": {"httpx": FEWER_REQUESTS, "openai": FEWER_REQUESTS, "others": REQUESTS},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "median_us": medians_of(figures),
        "ratio_to_plain": ratios(figures),
        "processes_that_crashed": crashes,
        "all_us": {
            label: {name: [round(x, 1) for x in runs] for name, runs in by.items()} for label, by in figures.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    parser.add_argument("--only", help="some of the clients, with semicolons: " + "; ".join(CLIENTS))
    parser.add_argument("--condition", choices=CONDITIONS, help="one only")
    parser.add_argument("--repeat", type=int, default=REPETITIONS)
    arguments = parser.parse_args()
    if arguments.client:
        print(run_client(arguments.client, arguments.base_url))
        return
    clients = [name for name in CLIENTS if not arguments.only or name in arguments.only.split(";")]
    conditions = [arguments.condition] if arguments.condition else list(CONDITIONS)
    figures, crashes = measure_all(clients, conditions, arguments.repeat)
    if len(sys.argv) == 1:
        write(figures, crashes)
    print(json.dumps(medians_of(figures), indent=2))
    print(json.dumps(ratios(figures), indent=2))


def write(figures: Figures, crashes: Crashes) -> None:
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "poll_cost.json").write_text(json.dumps(report(figures, crashes), indent=2) + "\n")
    plot_bars(
        medians_of(figures),
        list(CLIENTS),
        [f"a run of {label}" for label in CONDITIONS],
        "CPU time of the client for one retrieve, microseconds (log)",
        results / "poll_cost.png",
    )


if __name__ == "__main__":
    main()
