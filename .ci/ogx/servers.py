"""Runs OGX over the scripted model, on free ports of this machine, in a folder that goes with them.

Ends both when the block is left, however it is left. Never uses a server that it did not start.

    with ogx_server("path/of/ogx") as base_url: ...
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
START_S: Final = 60.0
END_S: Final = 10.0
MODEL: Final = "ours/scripted"  # the provider's id in ogx.yaml, and the name in model.py


@contextlib.contextmanager
def ogx_server(command: str) -> Iterator[str]:
    """Run the model and OGX, and yield the base URL; end both at the end.

    Raises:
        RuntimeError: One of them did not start within a minute; the message has the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="asyncruns-ogx-") as folder, contextlib.ExitStack() as stack:
        model_port, port = free_port(), free_port()
        environment = {**os.environ, "OGX_FOLDER": folder, "MODEL_URL": f"http://127.0.0.1:{model_port}/v1"}
        model = [sys.executable, str(HERE / "model.py"), str(model_port)]
        ogx = [str(Path(command).absolute()), "run", str(HERE / "ogx.yaml"), "--port", str(port), "--insecure"]
        stack.enter_context(_running(model, environment, Path(folder) / "model.log", model_port))
        stack.enter_context(_running(ogx, environment, Path(folder) / "ogx.log", port))
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def _running(command_line: list[str], environment: dict[str, str], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command_line, env=environment, stdout=output, stderr=output, cwd=log.parent)
    try:
        _wait_for(f"http://127.0.0.1:{port}/v1/models", process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < START_S and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{log.stem} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
