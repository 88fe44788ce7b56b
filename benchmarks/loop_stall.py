"""How long the event loop stalls while a thousand runs are watched, including their start and a blocking tool.

    python benchmarks/loop_stall.py

Each client runs in a process of its own, against a server in another. A heartbeat sleeps for 1 ms and records how late
it woke; this is how long a request to the same web backend would have waited. All runs begin at once; each makes one
call of a tool that blocks for 50 ms, and then completes. The figures are of the whole time, from before the first watch
to after the last. Each client is measured twice: with Python's defaults, and with the cyclic garbage collector off,
since with so many objects a full collection stops everything for tens of milliseconds. Writes `results/loop_stall.json`
and `results/loop_stall.png` beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
CLIENTS = ("asyncruns", "plain", "openai")
COLLECTORS = ("on", "off")
WATCHERS = 1000
TICK_S = 0.001
BLOCKS_S = 0.05
THREAD = "thread_abc123"
KEY = "sk-0123456789abcdef0123456789abcdef"

Watch = Callable[[str], Awaitable[str]]
Measure = Callable[[Watch], Awaitable[dict[str, float]]]


def look_up(key: str) -> str:
    """Look something up, blocking, as database drivers do."""
    time.sleep(BLOCKS_S)
    return key


async def with_asyncruns(base_url: str, measure: Measure) -> dict[str, float]:
    from asyncruns import BearerAuth, Client, Toolset

    tools = Toolset([look_up])
    async with Client(base_url, auth=BearerAuth(KEY)) as client:

        async def watch(run_id: str) -> str:
            return (await client.watch(thread_id=THREAD, run_id=run_id, tools=tools)).status

        return await measure(watch)


async def with_plain(base_url: str, measure: Measure) -> dict[str, float]:
    """Watch with a hand-written loop, with the tool in a thread."""
    import aiohttp
    import msgspec

    from asyncruns.wire import Run

    decoder = msgspec.json.Decoder(Run)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def watch(run_id: str) -> str:
            url = f"{base_url}/threads/{THREAD}/runs/{run_id}"
            while True:
                async with session.get(url) as response:
                    run = decoder.decode(await response.read())
                if run.status == "requires_action":
                    assert run.required_action
                    assert run.required_action.submit_tool_outputs
                    outputs = [
                        {"tool_call_id": call.id, "output": await asyncio.to_thread(look_up, "a")}
                        for call in run.required_action.submit_tool_outputs.tool_calls or ()
                    ]
                    async with session.post(url + "/submit_tool_outputs", json={"tool_outputs": outputs}) as response:
                        await response.read()
                elif run.status == "completed":
                    return run.status
                await asyncio.sleep(1.0)

        return await measure(watch)


async def with_openai(base_url: str, measure: Measure) -> dict[str, float]:
    """Watch with the official client's own polling, with the tool in a thread."""
    import warnings

    from openai import AsyncOpenAI

    warnings.simplefilter("ignore")
    async with AsyncOpenAI(base_url=base_url, api_key=KEY, timeout=120.0) as client:
        runs = client.beta.threads.runs

        async def watch(run_id: str) -> str:
            run = await runs.poll(run_id, thread_id=THREAD)
            while run.status == "requires_action" and run.required_action:
                calls = run.required_action.submit_tool_outputs.tool_calls
                run = await runs.submit_tool_outputs_and_poll(
                    run_id=run_id,
                    thread_id=THREAD,
                    tool_outputs=[
                        {"tool_call_id": call.id, "output": await asyncio.to_thread(look_up, "a")} for call in calls
                    ],
                )
            return run.status

        return await measure(watch)


WITH = {"asyncruns": with_asyncruns, "plain": with_plain, "openai": with_openai}


async def measure(watch: Watch) -> dict[str, float]:
    """Watch all runs at once; return the delays of the heartbeat, in milliseconds."""
    late: list[float] = []
    busy: list[float] = []

    async def beat() -> None:
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(TICK_S)
            late.append((time.perf_counter() - began - TICK_S) * 1000)
            busy.append((time.thread_time() - worked) * 1000)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    statuses = await asyncio.gather(*[watch(f"run_{number}") for number in range(WATCHERS)])
    took = time.perf_counter() - began
    await asyncio.sleep(0.2)
    heart.cancel()
    assert statuses == ["completed"] * WATCHERS
    late.sort()
    busy.sort()
    return {
        "worst_ms": late[-1],
        "p99.9_ms": late[int(len(late) * 0.999)],
        "p99_ms": late[int(len(late) * 0.99)],
        "p50_ms": late[len(late) // 2],
        "share_over_10_ms": sum(one > 10.0 for one in late) / len(late),
        # CPU time of the loop's thread between two beats: without delays that other processes cause.
        "worst_cpu_ms": busy[-1],
        "p99.9_cpu_ms": busy[int(len(busy) * 0.999)],
        "beats": len(late),
        "seconds": took,
        "cpu_seconds": time.process_time(),
    }


def measured(name: str, collector: str) -> dict[str, float]:
    """Run one client against a new server, each in a process of its own, and return its figures."""
    command = [sys.executable, str(HERE / "runs_server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        port = server.stdout.readline().strip()
        client = [sys.executable, __file__, "--client", name, "--base-url", f"http://127.0.0.1:{port}/v1"]
        client += ["--collector", collector]
        result = subprocess.run(client, stdout=subprocess.PIPE, text=True, check=True)
        server.stdin.close()
    figures: dict[str, float] = json.loads(result.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--client", choices=CLIENTS, help="measure this client in this process (used by the benchmark itself)"
    )
    parser.add_argument("--base-url", help="URL of the server")
    parser.add_argument("--collector", choices=COLLECTORS, default="on", help="the cyclic garbage collector")
    parser.add_argument("--only", choices=CLIENTS, help="measure only this client and write nothing")
    options = parser.parse_args()
    if options.client:
        if options.collector == "off":
            gc.disable()
        print(json.dumps(asyncio.run(WITH[options.client](options.base_url, measure))))
        return
    results: dict[str, dict[str, float]] = {}
    for name in [options.only] if options.only else CLIENTS:
        for collector in COLLECTORS:
            key = f"{name}, collector {collector}"
            results[key] = measured(name, collector)
            figures = ", ".join(f"{what} {figure:.4g}" for what, figure in results[key].items())
            print(f"{key:>24}: {figures}", flush=True)
    if not options.only:
        write(results)


def write(results: dict[str, dict[str, float]]) -> None:
    """Write the figures and the plot."""
    versions = {name: version(name) for name in ("asyncruns", "aiohttp", "msgspec", "openai")}
    facts = {"python": platform.python_version(), "versions": versions, "watchers": WATCHERS, "tool_blocks_s": BLOCKS_S}
    text = json.dumps({**facts, "clients": results}, indent=2)
    (HERE / "results" / "loop_stall.json").write_text(text + "\n", encoding="utf-8")

    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.8, 3.6))
    for offset, (what, label) in enumerate((("p99.9_ms", "99.9 %"), ("worst_ms", "worst"))):
        places = [place + (offset - 0.5) * 0.36 for place in range(len(results))]
        bars = axes.barh(places, [one[what] for one in results.values()], height=0.34, label=label)
        axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"ms for which the loop stalled, {WATCHERS} runs watched (log)")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(HERE / "results" / "loop_stall.png", dpi=150)


if __name__ == "__main__":
    main()
