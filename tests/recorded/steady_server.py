"""Steady, a third-party mock server: it checks each request against an API description, and makes up answers.

It runs in a process of its own, and reports errors of the request in the headers of each answer.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VARIABLE: Final = "STEADY"
STARTING_TIMEOUT_S: Final = 30.0
STOPPING_TIMEOUT_S: Final = 10.0

# `name[]=a&name[]=b` and `name[key]=a`, in queries and in forms.
BRACKETS: Final = tuple(
    f"--validator-{place}-{kind}-format=brackets" for place in ("query", "form") for kind in ("array", "object")
)

ERROR_COUNT: Final = "x-steady-error-count"
MATCHED_PATH: Final = "x-steady-matched-path"
SEED: Final = "x-steady-seed"
LIST_LENGTH: Final = "x-steady-array-size"


@contextmanager
def serving(description: Path) -> Iterator[str]:
    """Run the server; yield its base URL.

    Raises:
        AssertionError: It is not installed, or does not start.
    """
    port = _free_port()
    command = [_executable(), "--quiet", "--host", "127.0.0.1", "--port", str(port), *BRACKETS, str(description)]
    # Its output differs between terminals and CI, so connect to its port to find out whether it has started.
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=STOPPING_TIMEOUT_S)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + STARTING_TIMEOUT_S
    while not _answers(port):
        assert process.poll() is None, f"Steady ended with {process.returncode} instead of starting"
        assert time.monotonic() < until, "Steady did not start"
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def complaints(headers: dict[str, str]) -> list[str]:
    """Return the errors that the server found in a request, from the headers of its answer."""
    return sorted(f"{name}: {value}" for name, value in headers.items() if name.startswith("x-steady-error-"))


def _executable() -> str:
    found = shutil.which(os.environ.get(VARIABLE, ""))
    assert found is not None, (
        f"These tests need the mock server Steady: install it with `.ci/install-steady FOLDER`, which needs npm, and "
        f"set the environment variable {VARIABLE} to the path that this prints"
    )
    return found


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
