"""The code of the README and of the examples runs, as it stands there."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import asyncruns
from asyncruns import BearerAuth, Client, Toolset
from asyncruns.testing import Emulator, FunctionCall, Scenario
from asyncruns.testing.emulator import default_scenario

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SCRIPTS = [block for block in BLOCKS if "import asyncio" in block]
CONSTRUCTORS = [block for block in BLOCKS if "Client.portkey" in block]
FRAGMENTS = [block for block in BLOCKS if block not in SCRIPTS and block not in CONSTRUCTORS]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator that calls what is offered, and takes little of the real time that the scripts wait for."""
    async with Emulator(lambda request: replace(default_scenario(request), queued=0.0, working=0.05)) as emulator:
        yield emulator


async def run_script(emulator: Emulator, *arguments: str) -> str:
    """Run Python in a process of its own, with the pair that from_env reads; give what it printed."""
    environment = {**os.environ, "ASYNCRUNS_BASE_URL": emulator.base_url, "ASYNCRUNS_API_KEY": "test"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


def test_every_block_is_run_by_one_of_these_tests() -> None:
    assert len(SCRIPTS) == 2
    assert len(CONSTRUCTORS) == 1
    assert len(FRAGMENTS) == 9
    assert len(EXAMPLES) >= 2


@pytest.mark.real_time
async def test_the_first_script_prints_the_answer(emulator: Emulator) -> None:
    assert "21 degrees in" in await run_script(emulator, "-c", SCRIPTS[0])


@pytest.mark.real_time
async def test_the_script_for_tests_runs(emulator: Emulator) -> None:
    await run_script(emulator, "-c", SCRIPTS[1])


@pytest.mark.real_time
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
async def test_an_example_runs(emulator: Emulator, path: Path) -> None:
    assert await run_script(emulator, str(path))


@pytest.mark.real_time
@pytest.mark.parametrize(("wire", "other"), [("threads", "create_response"), ("responses", "create_run")])
async def test_the_agent_loop_runs_on_either_wire(emulator: Emulator, wire: str, other: str) -> None:
    printed = await run_script(emulator, str(ROOT / "examples" / "agent_loop.py"), wire)
    assert printed.count("get_weather: 21 degrees in") == 2
    seen = {request.operation for request in emulator.requests}
    assert {"poll", "submit"} <= seen
    assert other not in seen


async def test_the_constructors_construct() -> None:
    class Credential:
        async def get_token(self, *scopes: str) -> Any: ...

    exec(compile(CONSTRUCTORS[0], "README.md", "exec"), {"credential": Credential()})


@pytest.mark.parametrize(
    "block",
    FRAGMENTS,
    ids=["watch", "fleet", "streamed watch", "stream", "held", "responses", "tools", "in the open", "one call"],
)
async def test_the_fragments_run(emulator: Emulator, block: str, capsys: pytest.CaptureFixture[str]) -> None:
    calls = (FunctionCall("get_weather", {"city": "Paris"}), FunctionCall("delete_everything"))
    tools = Toolset({"get_weather": lambda city: city, "delete_everything": lambda: None})
    emulator.script(Scenario(rounds=(calls,), answer="21 degrees"), assistant_id="asst_1")
    async with Client(emulator.base_url, auth=BearerAuth("test")) as client:
        thread = await client.threads.create()
        names: dict[str, Any] = {name: getattr(asyncruns, name) for name in asyncruns.__all__}
        names |= {
            "client": client,
            "thread_id": thread.id,
            "assistant_id": "asst_1",
            "tools": tools,
        }
        if "runs.create" not in block:
            names["run"] = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert isinstance(code, CodeType)
        running = eval(code, names)
        if running is not None:
            await running
    if "print" in block:
        assert capsys.readouterr().out.strip().splitlines()[-1] in (
            "21 degrees",
            "ended as completed",
            "200 queued",
            "completed after 2 responses",
            "done",
        )


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"`((?:tests|benchmarks|asyncruns)/[\w/.]+)`", README):
        assert (ROOT / target).exists(), target
