"""A thousand open batches, watched with few requests per second: how late their ends are noticed.

    python benchmarks/batches.py                      # writes results/batches.json and results/batches.png
    python benchmarks/batches.py --open 100000 --rate 10   # windows of 24 h, of which a hundredth end in an hour

The batches last for about 15 s (lognormal). They are watched by a fleet that polls pages of their list, by the same
fleet with single polls only, and as most packages do it, each batch by itself at a fixed interval; here the shortest
that the rate allows. All of it in virtual time; every request takes 50 ms. "Among ended ones": 20,000 batches that have
ended are in the list above the open ones, and 20,000 below. "Between ended ones": there are 20 between two open ones.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import gc
import json
import random
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import anyio
import msgspec

from asyncruns import Client, Fleet, RunRef
from asyncruns.abc import CollectivePolls, Transport
from asyncruns.dialects.batches import BatchDialect
from asyncruns.http import Request, Response
from asyncruns.testing import VirtualTimeLoop
from asyncruns.wire import Batch

RESULTS: Final = Path(__file__).parent / "results"
RATES: Final = (1.0, 3.0, 10.0, 30.0)
LATENCY_S: Final = 0.05
PAGE: Final = 100
EPOCH: Final = 1_800_000_000
WAYS: Final = ("pages of the list", "single polls", "fixed interval")
LISTS: Final = {"open ones only": (0, 0), "among ended ones": (20_000, 0), "between ended ones": (0, 20)}


class BatchServer(Transport):
    """Batches that end by the loop's clock, and the list of them, newest first."""

    def __init__(self) -> None:
        self.ids: list[str] = []  # oldest first
        self.places: dict[str, int] = {}
        self.ends: dict[str, float] = {}
        self.requests = 0
        self._open: dict[str, bytes] = {}

    def add(self, count: int, last: Callable[[], float]) -> list[str]:
        """Create batches; return their ids."""
        now = asyncio.get_running_loop().time()
        made = []
        for _ in range(count):
            id_ = f"batch_{len(self.ids):024d}"
            self.places[id_] = len(self.ids)
            self.ids.append(id_)
            self.ends[id_] = now + last()
            made.append(id_)
        return made

    def batch(self, id_: str, now: float) -> bytes:
        is_over = now >= self.ends[id_]
        body = {
            "id": id_,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": None,
            "input_file_id": "file-" + "1" * 22,
            "completion_window": "24h",
            "status": "completed" if is_over else "in_progress",
            "output_file_id": "file-" + "2" * 22 if is_over else None,
            "error_file_id": None,
            "created_at": EPOCH,
            "in_progress_at": EPOCH + 1,
            "expires_at": EPOCH + 86_400,
            "completed_at": EPOCH + 100 if is_over else None,
            "request_counts": {"total": 100, "completed": 100 if is_over else 50, "failed": 0},
            "metadata": {"job": id_},
        }
        return msgspec.json.encode(body)

    async def send(self, request: Request) -> Response:
        now = asyncio.get_running_loop().time()
        self.requests += 1
        if request.path == "/batches":
            after = dict(request.query).get("after")
            end = self.places[after] if after else len(self.ids)
            shown = self.ids[max(end - PAGE, 0) : end][::-1]
            more = b"true" if end > PAGE else b"false"
            pages = b",".join(self.batch(id_, now) for id_ in shown)
            body = b'{"object":"list","has_more":' + more + b',"data":[' + pages + b"]}"
        else:
            body = self.batch(request.path.split("/")[2], now)
        await anyio.sleep(LATENCY_S)
        return Response(200, {}, body)

    async def aclose(self) -> None:
        pass


class SingleDialect(BatchDialect):
    """The same, without collective polls."""

    def collective(self) -> CollectivePolls[Batch] | None:
        return None


async def fleet_delays(server: BatchServer, ids: Iterable[str], rate: float, *, together: bool) -> list[float]:
    now = asyncio.get_running_loop().time
    async with Client(transport=server) as client, Fleet(client, requests_per_second=rate) as fleet:
        own = None
        if not together:
            own = copy.copy(client.batches.alone)
            own.dialect = SingleDialect()
        for id_ in ids:
            fleet.watch(RunRef("batch", (id_,)), client=own)
        return [now() - server.ends[outcome.ref.ids[0]] async for outcome in fleet]


async def fixed_delays(server: BatchServer, ids: list[str], rate: float) -> list[float]:
    """Poll each batch every so many seconds, by itself."""
    now = asyncio.get_running_loop().time
    interval = len(ids) / rate
    delays: list[float] = []

    async def watch(client: Client, id_: str, first: float) -> None:
        await asyncio.sleep(first)
        while (await client.batches.retrieve(id_)).status != "completed":  # noqa: ASYNC110 - that is what is measured
            await asyncio.sleep(interval)
        delays.append(now() - server.ends[id_])

    async with Client(transport=server) as client:
        await asyncio.gather(*(watch(client, id_, place / rate) for place, id_ in enumerate(ids)))
    return delays


async def measured(way: str, rate: float, beside: int, between: int, batches: int) -> dict[str, float]:
    server, draw = BatchServer(), random.Random(1)
    server.add(beside, lambda: -1.0)
    ids: list[str] = []
    for _ in range(batches):
        ids += server.add(1, lambda: draw.lognormvariate(2.708, 0.8))
        server.add(between, lambda: -1.0)
    server.add(beside, lambda: -1.0)
    draw.shuffle(ids)
    if way == "fixed interval":
        delays = await fixed_delays(server, ids, rate)
    else:
        delays = await fleet_delays(server, ids, rate, together=way == "pages of the list")
    delays.sort()
    return {
        "mean_s": round(sum(delays) / len(delays), 2),
        "p99_s": round(delays[int(len(delays) * 0.99)], 2),
        "requests": server.requests,
    }


def run(way: str, rate: float, beside: int, between: int, batches: int) -> dict[str, float]:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(measured(way, rate, beside, between, batches))


async def long_windows(batches: int, rate: float, *, traced: bool) -> dict[str, float]:
    """Watch batches with windows of 24 h, of which a hundredth end in an hour."""
    server, draw, now = BatchServer(), random.Random(1), asyncio.get_running_loop().time
    ending = batches // 100
    lasts = [*(draw.uniform(1800.0, 5400.0) for _ in range(ending)), *[86_000.0] * (batches - ending)]
    draw.shuffle(lasts)
    refs = [RunRef("batch", (id_,)) for id_ in server.add(batches, lambda: lasts.pop())]
    delays: list[float] = []
    memory = 0.0
    gc.collect()
    if traced:
        tracemalloc.start()
    async with Client(transport=server) as client, Fleet(client, requests_per_second=rate, on_exit="leave") as fleet:
        await fleet.add_many(refs, at_most=2 * batches)
        await asyncio.sleep(600.0)
        if traced:
            gc.collect()
            memory = tracemalloc.get_traced_memory()[0] / batches
            return {"memory_of_a_batch_bytes": round(memory)}
        began, requests = time.process_time(), server.requests
        async for outcome in fleet:
            delays.append(now() - server.ends[outcome.ref.ids[0]])
            if len(delays) == ending:
                break
        spent, requests = time.process_time() - began, server.requests - requests
    return {
        "mean_s": round(sum(delays) / len(delays), 1),
        "floor_s": round(batches / PAGE / rate / 2, 1),  # each page in turn, without a request that is not of a page
        "requests": requests,
        "cpu_of_a_request_ms": round(1000 * spent / requests, 2),  # the server's included
    }


def run_long(batches: int, rate: float) -> dict[str, float]:
    found: dict[str, float] = {"open": batches, "rate": rate}
    for traced in (False, True):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            found |= runner.run(long_windows(batches, rate, traced=traced))
    return found


def plot(delays: dict[str, dict[str, dict[str, dict[str, float]]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(delays), figsize=(10, 3.6), sharey=True, layout="constrained")
    for place, (kind, ways) in zip(axes, delays.items(), strict=True):
        for way, rates in ways.items():
            place.plot([float(rate) for rate in rates], [each["mean_s"] for each in rates.values()], "o-", label=way)
        place.set_xscale("log")
        place.set_yscale("log")
        place.set_title(kind)
        place.set_xlabel("requests per second")
        place.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
        place.minorticks_off()
    axes[0].set_ylabel("mean delay of noticing an end, s")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open", type=int, default=0, help="only this many batches with windows of 24 h")
    parser.add_argument("--rate", type=float, default=10.0, help="requests per second for these")
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(run_long(arguments.open, arguments.rate), indent=2))
        return
    delays = {
        kind: {way: {f"{rate:g}": run(way, rate, *ended, 1000) for rate in RATES} for way in WAYS}
        for kind, ended in LISTS.items()
    }
    found = {"delays": delays, "long_windows": run_long(100_000, 10.0)}
    (RESULTS / "batches.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    plot(delays, RESULTS / "batches.png")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
