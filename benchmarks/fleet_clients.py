"""What `fleet.py` compares: each client watches the runs of a server from the start to the end of the last one.

Started by `fleet.py` as a process of its own; prints its figures as JSON.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import contextlib
import gc
import http.client
import json
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from fleet_server import ids

KEY: Final = "sk-0123456789abcdef0123456789abcdef"
WARM_UPS: Final = 100
WARM: Final = 10**6  # the first number of runs that only warm up
UVLOOP: Final = ", uvloop"
INTERVAL_S: Final = 1.0
TICK_S: Final = 0.001
SAMPLE_S: Final = 0.02
MOST_BEATS: Final = 1_000_000
TERMINAL: Final = frozenset({"completed", "failed", "cancelled", "expired", "incomplete", "requires_action"})

Names = Sequence[tuple[str, str]]


def control(base_url: str, method: str, path: str) -> Any:
    """Ask the server for something that is not polling, over a connection that is closed again."""
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc)
    with contextlib.closing(connection):
        connection.request(method, path)
        return json.loads(connection.getresponse().read())


class Window:
    """The time from the start to when the last end was learned of, and what it cost.

    What it keeps is allocated before the memory is first measured.

    Args:
        base_url: Where the server is.
        count: How many runs it has.
        seed: Of their durations.
        heart: Whether a heartbeat measures the stalls of the loop, which costs CPU time, so not where that counts.
    """

    def __init__(self, base_url: str, count: int, seed: int, *, heart: bool) -> None:
        self.base_url = base_url
        self.names: Names = [ids(number) for number in range(count)]
        self._seed = seed
        self._heart = heart
        self._seen = array.array("d", bytes(8 * count))
        self._late = array.array("d", bytes(8 * MOST_BEATS if heart else 0))
        self._late[:] = array.array("d", [1.0]) * len(self._late)  # so that the pages are there
        self._beats = 0
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)

    def saw(self, run_id: str) -> None:
        """Note that the end of a run was learned of."""
        self._seen[int(run_id[-24:])] = time.monotonic()

    async def measure(self, watch_all: Callable[[], Awaitable[None]]) -> dict[str, Any]:
        """Begin the runs, watch them all, give the figures."""
        gc.collect()
        self._peak = memory = self._resident()
        start = control(self.base_url, "POST", f"/start?plan=at_once&n={len(self.names)}&seed={self._seed}")
        background = asyncio.create_task(self._beat() if self._heart else self._sample())
        worked = time.process_time()
        await watch_all()
        worked, took = time.process_time() - worked, time.monotonic() - start["started"]
        self._peak = max(self._peak, self._resident())
        background.cancel()
        server = control(self.base_url, "GET", "/ends")
        delays = sorted(seen - end for seen, end in zip(self._seen, server["ends"], strict=True))
        assert delays[0] >= 0.0, "a run was taken for ended before it was, or not seen at all"
        if self._heart:
            return self._stalls()
        return {
            "delay_mean_s": statistics.fmean(delays),
            "delay_p50_s": delays[len(delays) // 2],
            "delay_p99_s": delays[int(len(delays) * 0.99)],
            "delay_max_s": delays[-1],
            "polls_per_run": server["polls"] / len(self.names),
            "cpu_us_per_poll": worked / server["polls"] * 1e6,
            "memory_kib_per_run": (self._peak - memory) / len(self.names) / 1024,
            "connections": server["most_connections"],
            "seconds": took,
            "baseline_mib": memory / 2**20,
            "server_us_per_poll": server["cpu_seconds"] / server["polls"] * 1e6,
            "server_busiest_polls_per_s": server["busiest_second"]["polls"],
            "server_busiest_cpu_share": server["busiest_second"]["cpu_share"],
            "delay_percentiles_s": [round(delays[(len(delays) - 1) * part // 100], 4) for part in range(101)],
        }

    def _resident(self) -> int:
        return int(os.pread(self._statm, 100, 0).split()[1]) * resource.getpagesize()

    async def _sample(self) -> None:
        while True:
            self._peak = max(self._peak, self._resident())
            await asyncio.sleep(SAMPLE_S)

    async def _beat(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self._late[self._beats] = time.perf_counter() - began - TICK_S
            self._beats += 1

    def _stalls(self) -> dict[str, float]:
        late = sorted(self._late[: self._beats])
        busy = sorted(self._late[: self._beats // 5])
        return {
            "stall_worst_ms": late[-1] * 1000,
            "stall_p99.9_ms": late[int(len(late) * 0.999)] * 1000,
            # The first beats are those of the time when most runs are still there.
            "stall_p99.9_of_first_fifth_ms": busy[int(len(busy) * 0.999)] * 1000,
            "beats": len(late),
        }


async def with_asyncruns(window: Window, http: Literal["aiohttp", "httptools"] = "aiohttp") -> dict[str, Any]:
    from asyncruns import BearerAuth, Client, Fleet, RunRef

    async with Client(f"{window.base_url}/v1", auth=BearerAuth(KEY), http=http) as client:
        retrieve = client.threads.runs.retrieve

        async def watch_all(names: Names) -> None:
            async with Fleet(client, requests_per_second=None) as fleet:
                await fleet.add_many(RunRef("thread.run", name) for name in names)
                async for outcome in fleet:
                    assert outcome.status == "completed", outcome
                    if names is window.names:
                        window.saw(outcome.ref.ids[1])

        await asyncio.gather(*[retrieve(run_id, thread_id=thread_id) for thread_id, run_id in warm_ups()])
        await watch_all(warm_ups()[:1])
        return await window.measure(lambda: watch_all(window.names))


async def with_plain(window: Window, limit: int = 100) -> dict[str, Any]:
    """The loop that one writes by hand, with care: one session, one decoder, the address made once."""
    import aiohttp
    import msgspec

    from asyncruns.wire import Run

    decoder = msgspec.json.Decoder(Run)
    connector = aiohttp.TCPConnector(limit=limit)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}, connector=connector) as session:

        async def retrieve(url: str) -> Run:
            async with session.get(url) as response:
                response.raise_for_status()
                return decoder.decode(await response.read())

        async def watch(thread_id: str, run_id: str) -> None:
            url = f"{window.base_url}/v1/threads/{thread_id}/runs/{run_id}"
            while True:
                if (await retrieve(url)).status in TERMINAL:
                    return
                await asyncio.sleep(INTERVAL_S)

        return await one_task_each(window, watch)


async def with_openai(window: Window) -> dict[str, Any]:
    from openai import AsyncOpenAI

    warnings.simplefilter("ignore")
    async with AsyncOpenAI(base_url=f"{window.base_url}/v1", api_key=KEY) as client:
        retrieve = client.beta.threads.runs.retrieve

        async def watch(thread_id: str, run_id: str) -> None:
            while True:
                if (await retrieve(run_id, thread_id=thread_id)).status in TERMINAL:
                    return
                await asyncio.sleep(INTERVAL_S)

        return await one_task_each(window, watch)


async def one_task_each(window: Window, watch: Callable[[str, str], Awaitable[None]]) -> dict[str, Any]:
    """Warm up, then watch each run in a task of its own."""

    async def watch_and_note(thread_id: str, run_id: str) -> None:
        await watch(thread_id, run_id)
        window.saw(run_id)

    async def watch_all() -> None:
        await asyncio.gather(*[watch_and_note(*name) for name in window.names])

    await asyncio.gather(*[watch(*name) for name in warm_ups()])
    return await window.measure(watch_all)


def warm_ups() -> Names:
    return [ids(WARM + number) for number in range(WARM_UPS)]


CLIENTS: Final[dict[str, Callable[[Window], Awaitable[dict[str, Any]]]]] = {
    "asyncruns": with_asyncruns,
    "asyncruns:httptools": lambda window: with_asyncruns(window, "httptools"),
    "plain aiohttp": with_plain,
    "plain aiohttp, limit=0": lambda window: with_plain(window, limit=0),
    "openai": with_openai,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=[*CLIENTS, *(name + UVLOOP for name in CLIENTS)], required=True)
    parser.add_argument("--base-url", required=True, help="where its server is")
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--heart", action="store_true", help="measure the stalls of the loop, and nothing else")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def client() -> dict[str, Any]:
        window = Window(options.base_url, options.runs, options.seed, heart=options.heart)
        return await CLIENTS[options.client.removesuffix(UVLOOP)](window)

    json.dump(run(client(), on_uvloop=options.client.endswith(UVLOOP)), sys.stdout)


def run(client: Coroutine[Any, Any, dict[str, Any]], *, on_uvloop: bool) -> dict[str, Any]:
    if not on_uvloop:
        return asyncio.run(client)
    import uvloop

    return uvloop.run(client)


if __name__ == "__main__":
    main()
