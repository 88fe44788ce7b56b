"""`examples/many_machines` and the files of its guide, in processes of their own, with a server of Temporal."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client as TemporalClient

from asyncruns import Client, RunRef
from asyncruns.temporal import AsyncRunsPlugin
from asyncruns.testing import Emulator
from asyncruns.testing.emulator import default_scenario

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "many_machines"
GUIDE = ROOT / "examples" / "guides" / "many-machines.md"

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


@pytest.fixture
async def emulator(temporal_address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    """An emulator that takes little time, and is the server that the programs find."""
    async with Emulator(lambda request: replace(default_scenario(request), queued=0.0, working=0.05)) as emulator:
        monkeypatch.setenv("ASYNCRUNS_BASE_URL", emulator.base_url)
        monkeypatch.setenv("ASYNCRUNS_API_KEY", "any-key")
        monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_address)
        yield emulator


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """Return a folder with the files of the guide."""
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(text)
    return tmp_path


async def begin(program: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(program), *arguments), cwd=os.getcwd(), stdout=asyncio.subprocess.PIPE
    )


async def run(program: Path, *arguments: str) -> list[str]:
    """Run a program to its end, and return the lines that it printed."""
    process = await begin(program, *arguments)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, out.decode()
    return out.decode().splitlines()


@asynccontextmanager
async def worker(program: Path) -> AsyncIterator[list[str]]:
    """Run a worker; the list has the lines that it printed when it has ended."""
    process = await begin(program)
    lines: list[str] = []
    try:
        yield lines
        process.terminate()
        out, _ = await asyncio.wait_for(process.communicate(), 40)
        lines += out.decode().splitlines()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_two_workers_watch_the_runs_that_start_creates(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the ids of the runs are noted
    name = f"test-{uuid.uuid4()}"
    async with worker(EXAMPLE / "worker.py") as first, worker(EXAMPLE / "worker.py") as second:
        printed = await run(EXAMPLE / "start.py", "6", "--size", "3", "--id", name)
        again = await run(EXAMPLE / "start.py", "6", "--size", "3", "--id", name)
    outcomes = {f"Completed {line.replace(' ', '/')}" for line in (tmp_path / f"{name}.runs").read_text().splitlines()}
    assert printed[0] == f"--id {name}"
    assert set(printed[1:-1]) == set(again[1:-1]) == outcomes
    assert len(printed) == 8
    assert len(emulator.runs) == 6
    assert re.fullmatch(r"6 runs in \d+\.\d s: 6 Completed", printed[-1])
    called = [line.split() for line in first + second if line.startswith("called ")]
    assert [city for _, _, city in called] == ["city"] * 6
    assert len({call_id for _, call_id, _ in called}) == 6


async def test_start_takes_the_runs_of_a_file(emulator: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    async with Client.from_env() as client:
        assistant = await client.assistants.create(model="gpt-4o")
        runs = [await client.threads.create_and_run(assistant_id=assistant.id) for _ in range(3)]
    file.write_text("".join(f"{run.thread_id} {run.id}\n" for run in runs))
    async with worker(EXAMPLE / "worker.py"):
        printed = await run(EXAMPLE / "start.py", "--file", str(file))
    assert set(printed[1:-1]) == {f"Completed {run.thread_id}/{run.id}" for run in runs}


async def test_the_programs_of_the_guide_run(
    emulator: Emulator, guide: Path, temporal_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(guide)
    async with worker(guide / "worker.py"):
        assert await run(guide / "ask.py") == ["get_weather: 21 degrees in city"]
        ended = await run(guide / "shards.py", f"test-{uuid.uuid4()}")
        assert [line.split()[0] for line in ended] == ["Completed"] * 20
        assert await refunded(temporal_address) == 'approve_refund: {"approved":true}'


async def refunded(temporal_address: str) -> str:
    """Return the answer of a run whose refund was approved through the application of the guide."""
    from approvals import app  # type: ignore[import-not-found]  # written just now
    from fastapi.testclient import TestClient
    from worker import refunds  # type: ignore[attr-defined]  # that of the guide
    from workflows import Refund  # type: ignore[import-not-found]  # likewise

    async with Client.from_env() as client:
        assistant = await client.assistants.create(model="gpt-4o", tools=refunds.definitions())
        new = await client.threads.create_and_run(assistant_id=assistant.id)
    temporal = await TemporalClient.connect(temporal_address, plugins=[AsyncRunsPlugin()])
    name = f"refund-{uuid.uuid4()}"
    handle = await temporal.start_workflow(Refund.run, RunRef.of(new), id=name, task_queue="runs")

    def decide() -> tuple[Any, list[int]]:
        with TestClient(app) as server:
            while not (found := server.get(f"/refunds/{name}").json()):
                pass
            call_id = found[0]["id"]
            paths = [f"/refunds/unknown/{call_id}", f"/refunds/{name}/call_unknown", f"/refunds/{name}/{call_id}"]
            statuses = [server.post(path, params={"approved": True}).status_code for path in paths]
            return found, [server.get("/refunds/unknown").status_code, *statuses]

    found, statuses = await asyncio.to_thread(decide)
    assert found[0]["arguments"] == '{"order":"order","cents":1}'
    assert statuses == [404, 404, 409, 200]
    return str(await handle.result())


def test_the_other_blocks_of_the_guide_are_python() -> None:
    blocks = re.findall(r"^```py\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, GUIDE.name, "exec", flags=0x2000)  # with `await` at the top level
