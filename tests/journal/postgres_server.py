"""A PostgreSQL server in a folder, on a port of 127.0.0.1, that can be stopped and started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import pytest

_FOLDERS: Final = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
_PATH: Final = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/bin", *_FOLDERS])
_IN_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None


class PostgresServer:
    """A server that is started.

    Args:
        memory: Whether its files may be in memory, where they survive a stop of the server.
    """

    def __init__(self, *, memory: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="asyncruns-postgres-", dir=_IN_MEMORY if memory else None))
        self._user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
        if self._user:
            shutil.chown(self.folder, self._user)
        self._data = self.folder / "data"
        self._run("initdb", "-D", str(self._data), "-U", "tester", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, unless it runs; return when it accepts connections."""
        if self._process is not None:
            return
        command = [_found("postgres"), "-D", str(self._data), "-p", str(self.port), "-k", ""]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self._user, extra_groups=self._groups
            )
        for _ in range(200):
            if self._ready():
                return
            time.sleep(0.05)
        raise TimeoutError((self.folder / "log").read_text())

    def stop(self) -> None:
        """Stop the server at once, whatever is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._process = None

    def remove(self) -> None:
        """Stop the server, and delete its files."""
        self.stop()
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """Return the dsn of a new database."""
        self._databases += 1
        name = f"journal_{self._databases}"
        self.execute(self.dsn("postgres"), f"CREATE DATABASE {name}")
        return self.dsn(name)

    def dsn(self, database: str) -> str:
        return f"postgresql://tester:secret-word@127.0.0.1:{self.port}/{database}"

    @staticmethod
    def execute(dsn: str, query: str) -> list[tuple[object, ...]]:
        """Execute a query, and return its rows."""
        import psycopg

        with psycopg.connect(dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def _groups(self) -> list[int] | None:
        return [] if self._user else None

    def _ready(self) -> bool:
        command = [
            _found("pg_isready"),
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-d",
            "postgres",
            "-U",
            "tester",
        ]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, *command: str) -> None:
        subprocess.run(
            [_found(command[0]), *command[1:]],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            extra_groups=self._groups,
            cwd=self.folder,
        )


def why_not() -> str | None:
    """Return why there is no server here; None if there can be one."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed: pip install 'asyncruns[postgres]'"
    missing = [name for name in ("initdb", "postgres", "pg_isready") if shutil.which(name, path=_PATH) is None]
    return f"PostgreSQL is not installed: {missing} not found" if missing else None


def started_server() -> PostgresServer:
    """Return a server that is started; skip the test if there can be none, unless that is an error here."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("ASYNCRUNS_NEEDS_POSTGRES"):
            pytest.fail(reason)
        pytest.skip(reason)
    return PostgresServer()


def _found(name: str) -> str:
    path = shutil.which(name, path=_PATH)
    assert path is not None, name
    return path
