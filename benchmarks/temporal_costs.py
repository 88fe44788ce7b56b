"""What `temporal.py` measures of a Temporal server and its worker: CPU time, writes, memory and requests.

An idle dev server is busy for some seconds every minute, by up to 4 % of a core, and hardly at all in between: 10 s
before the start would say 3 % where three minutes say 1.1 %. So an idle twin, a server with a worker that has nothing
to do, runs beside each measurement, and what it has used after as many seconds is left out. Two of them, side by side,
differed by 0.1 s in three minutes, which is 0.1 ms a run for 1,000 runs. CPU time is read from the system; the counters
of the server are read before the first reading and after the last.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

SETTLE_S: Final = 5.0  # what the start of server and worker costs is in no figure
TICK: Final = os.sysconf("SC_CLK_TCK")
COUNTED: Final = re.compile(
    r'^(\w*persistence_requests|service_requests(?=\{.*service_name="frontend"))\{.*namespace="default"'
    r'.*operation="(\w+)".*\} ([\d.e+]+)$',
    re.MULTILINE,
)
READS: Final = ("Assert", "Count", "Get", "List", "Range", "Read", "Watch")
Figures = dict[str, Any]
NO_SERVER: Final[Figures] = {"seconds": [(0.0, 0.0)]}
"""The twin of what needs no Temporal server."""


@dataclass(frozen=True)
class Server:
    """A Temporal server that is measured; without a process id, there is none.

    Attributes:
        address: Where it takes requests.
        pid: Its process id.
        metrics: Where it tells its counters.
    """

    address: str = ""
    pid: int = 0
    metrics: str = ""

    def cpu_s(self) -> float:
        """Return the CPU time of all its threads so far."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def written(self) -> int:
        """Return how many bytes it has written to disks so far."""
        if not self.pid:
            return 0
        return int(Path(f"/proc/{self.pid}/io").read_text().partition("\nwrite_bytes: ")[2].split()[0])

    def counters(self) -> Counter[tuple[str, str]]:
        """Return how many requests of each operation the database, and the services, have got so far; costs CPU."""
        found: Counter[tuple[str, str]] = Counter()
        if self.metrics:
            with urlopen(f"http://{self.metrics}/metrics") as answer:
                for name, operation, count in COUNTED.findall(answer.read().decode()):
                    found[name.removeprefix("visibility_"), operation] += int(float(count))
        return found

    def peak_mib(self) -> float:
        """Return the most memory that it has had."""
        return peak_mib(self.pid) if self.pid else 0.0


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has had."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


class Costs:
    """What the Temporal server and this process use from `begin` to `end`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def begin(self) -> None:
        """Wait until server and worker have settled, then begin to count."""
        if self._server.pid:
            await asyncio.sleep(SETTLE_S)
        self._counters = await asyncio.to_thread(self._server.counters)
        self._began = time.monotonic(), self.cpu_s(), self._server.written()

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU time of the server and of this process so far."""
        return self._server.cpu_s(), time.process_time()

    def end(self, runs: int) -> Figures:
        """Return what was used since the beginning, for each run."""
        began, before, written = self._began
        took = time.monotonic() - began
        server, worker = (now - was for now, was in zip(self.cpu_s(), before, strict=True))
        wrote = self._server.written() - written
        counted = self._server.counters() - self._counters
        return {
            "took_s": took,
            "server_cpu_ms_per_run": 1e3 * server / runs,
            "worker_cpu_ms_per_run": 1e3 * worker / runs,
            "server_written_kib_per_run": wrote / 1024 / runs,
            "server_peak_mib": self._server.peak_mib(),
            "worker_peak_mib": peak_mib(os.getpid()),
            "database_writes_per_run": sum(writes(counted).values()) / runs,
            "database_writes": dict(writes(counted)),
            "requests_of_temporal": {
                name: count for (kind, name), count in counted.items() if kind == "service_requests" and count >= 10
            },
        }


def writes(counted: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Return how often the database was written to, by operation; without the leases of queues, idle or not."""
    return {
        name: count
        for (kind, name), count in counted.items()
        if kind == "persistence_requests" and not name.startswith(READS) and not name.endswith("TaskQueue")
    }


async def idle(costs: Costs) -> Figures:
    """Return the CPU time of a server and a worker that have nothing to do, after each second.

    Ends when the standard input is closed.
    """
    await costs.begin()
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    began = costs.cpu_s()
    seconds: list[tuple[float, ...]] = []
    while not ended.done():
        seconds.append(tuple(now - was for now, was in zip(costs.cpu_s(), began, strict=True)))
        await asyncio.wait({ended}, timeout=1.0)
    return {"seconds": seconds}


def net(figures: Figures, twin: Figures, runs: int) -> Figures:
    """Return figures with what is left when those of an idle twin over the same time are taken away."""
    took = figures["took_s"]
    used = at(twin["seconds"], took)
    found = {
        f"{name}_net_cpu_ms_per_run": figures[f"{name}_cpu_ms_per_run"] - 1e3 * idle_s / runs
        for name, idle_s in zip(("server", "worker"), used, strict=True)
    }
    return figures | found | {"idle_server_cores": used[0] / took}


def at(seconds: Iterable[tuple[float, ...]], took: float) -> tuple[float, ...]:
    """Return the CPU times of a twin after as many seconds."""
    known = list(seconds)
    return known[min(round(took), len(known) - 1)]
