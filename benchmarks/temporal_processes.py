"""The processes of `temporal.py`: servers of runs and of Temporal, and the clients that are measured."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from temporal_costs import Figures, Server

HERE: Final = Path(__file__).parent
TIMEOUT_S: Final = 900.0


@contextmanager
def server_of_runs(runs: int, lasts: float, *, calls: bool) -> Generator[str]:
    """Yield the address of a fresh server of runs."""
    command = [sys.executable, str(HERE / "journal_server.py"), "--runs", str(runs), "--lasts", str(lasts)]
    command += ["--tools"] if calls else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.stdin.close()


@contextmanager
def temporal_server(folder: Path) -> Generator[Server]:
    """Yield a fresh dev server, whose database is in this folder."""
    program = Path(sysconfig.get_path("scripts")) / "temporal"
    port, metrics = free_port(), free_port()
    command = [str(program), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    command += ["--metrics-port", str(metrics)]
    command += ["--db-filename", str(folder / "temporal.db"), "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until_open(port)
            yield Server(f"127.0.0.1:{port}", server.pid, f"127.0.0.1:{metrics}")
        finally:
            server.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def wait_until_open(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the Temporal server did not start within 30 s")


def options_of(server: Server) -> list[str]:
    return ["--address", server.address, "--server-pid", str(server.pid), "--metrics", server.metrics]


@contextmanager
def client(options: Sequence[str]) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, str(HERE / "temporal_clients.py"), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def printed_by(process: subprocess.Popen[str]) -> Figures:
    """Return what a client prints at its end; closes its standard input."""
    text, _ = process.communicate(timeout=TIMEOUT_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    *logged, last = text.splitlines()  # Temporal's SDK logs to the standard output
    print(*logged, sep="\n", end="\n" if logged else "", file=sys.stderr)
    figures: Figures = json.loads(last)
    return figures
