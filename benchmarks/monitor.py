"""What the table of `asyncruns monitor` costs beside its fleet: 10,000 runs of an emulator in another process.

    python benchmarks/monitor.py [--runs 10000] [--seconds 60] [--rate 100]

The table is drawn on a pseudo-terminal, of 24 lines of 80 columns and of 50 of 200, which a thread reads. The CPU time
of the view is that of the event loop's thread while a frame is drawn, and while an event is noted and shown; that of
the fleet is all else of the process. Beside that, the CPU time of a fleet that nobody observes, for as long. Writes
`results/monitor.json`; exits with 1 if the view takes more than a fifth of what its fleet takes.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import platform
import random
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from asyncruns import Client, Fleet, RunRef
from asyncruns.cli.monitor import Monitor, monitor
from asyncruns.cli.monitor_screen import MonitorScreen
from asyncruns.cli.options import make_parser

RESULTS: Final = Path(__file__).parent / "results"
GOAL: Final = 0.2
SIZES: Final = ((24, 80), (50, 200))
Figures = dict[str, Any]


@contextmanager
def emulator() -> Iterator[str]:
    """Run an emulator whose runs last some minutes; some fail, some need their caller."""
    draw = random.Random(1)
    scenarios: list[Figures] = [{"working": draw.uniform(60, 400)} for _ in range(90)]
    scenarios += [{"working": draw.uniform(60, 400), "end": "failed", "error_code": "server_error"} for _ in range(7)]
    scenarios += [{"working": 60, "rounds": [[{"name": "look_up", "arguments": {}}]]} for _ in range(3)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(scenarios, file)
        file.flush()
        command = [sys.executable, "-m", "asyncruns", "emulate", "--scenario", file.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
            process.terminate()


async def create(base_url: str, count: int) -> list[RunRef]:
    few = asyncio.Semaphore(32)
    async with Client(base_url, api_key="any") as client:
        assistant = await client.assistants.create(model="m")

        async def one() -> RunRef:
            async with few:
                thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
                return RunRef.of(await client.threads.runs.create(thread.id, assistant_id=assistant.id))

        return list(await asyncio.gather(*(one() for _ in range(count))))


class Spent:
    """CPU time of this thread in some functions, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def within(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - began
                self.calls[name] = self.calls.get(name, 0) + 1

        return timed


@contextmanager
def terminal(lines: int, columns: int) -> Iterator[Console]:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def drain() -> None:
        try:
            while os.read(master, 1 << 16):
                pass
        except OSError:  # the other end was closed
            pass

    threading.Thread(target=drain, daemon=True).start()
    with open(slave, "w", encoding="utf-8") as file:
        yield Console(file=file, force_terminal=True, color_system="256", width=columns, height=lines)


async def watched(base_url: str, refs: list[RunRef], rate: int, seconds: float, size: tuple[int, int]) -> Figures:
    options = make_parser().parse_args(["monitor", "x", "--rate", str(rate), "--base-url", base_url])
    spent = Spent()
    polls: list[int] = []
    with terminal(*size) as console:
        observed, draw, perform = Monitor._observed, MonitorScreen.draw, Monitor.perform

        async def performed(self: Monitor, *arguments: Any) -> int:
            self.view = MonitorScreen(self, base_url, console)
            try:
                return await perform(self, *arguments)
            finally:
                polls.append(self.fleet.statistics().polls)

        vars_of: dict[type, dict[str, Any]] = {
            Monitor: {"_observed": spent.within("events", observed), "perform": performed},
            MonitorScreen: {"draw": spent.within("frames", draw)},
        }
        for owner, names in vars_of.items():
            for name, function in names.items():
                setattr(owner, name, function)
        began = time.process_time()
        try:
            async with asyncio.timeout(seconds):
                await monitor(options, refs, [])
        except TimeoutError:
            pass
        cpu = time.process_time() - began
        Monitor._observed, MonitorScreen.draw, Monitor.perform = observed, draw, perform  # type: ignore[method-assign]
    view = sum(spent.seconds.values())
    return {
        "lines": size[0],
        "columns": size[1],
        "cpu_s": cpu,
        "view_s": view,
        "view_of_fleet": view / (cpu - view),
        "frames": spent.calls["frames"],
        "frame_ms": 1e3 * spent.seconds["frames"] / spent.calls["frames"],
        "events": spent.calls.get("events", 0),
        "event_us": 1e6 * spent.seconds.get("events", 0.0) / max(spent.calls.get("events", 0), 1),
        "polls": polls[0],
        "cpu_us_per_poll": 1e6 * cpu / polls[0],
    }


async def unobserved(base_url: str, refs: list[RunRef], rate: int, seconds: float) -> Figures:
    began = time.process_time()
    async with (
        Client(base_url, api_key="any") as client,
        Fleet(client, observe_only=True, on_exit="leave", requests_per_second=rate) as fleet,
    ):
        await fleet.add_many(refs)
        await asyncio.sleep(seconds)
        polls = fleet.statistics().polls
    cpu = time.process_time() - began
    return {"cpu_s": cpu, "polls": polls, "cpu_us_per_poll": 1e6 * cpu / polls}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=100)
    given = parser.parse_args()
    results: Figures = {"runs": given.runs, "rate": given.rate, "seconds": given.seconds, "tables": []}
    for size in SIZES:
        with emulator() as base_url:
            refs = asyncio.run(create(base_url, given.runs))
            results["tables"].append(asyncio.run(watched(base_url, refs, given.rate, given.seconds, size)))
            print(results["tables"][-1], file=sys.stderr)
    with emulator() as base_url:
        refs = asyncio.run(create(base_url, given.runs))
        results["unobserved"] = asyncio.run(unobserved(base_url, refs, given.rate, given.seconds))
    results["machine"] = {
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "rich": version("rich"),
    }
    (RESULTS / "monitor.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    return int(any(table["view_of_fleet"] > GOAL for table in results["tables"]))


if __name__ == "__main__":
    raise SystemExit(main())
