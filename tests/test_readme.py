"""Every block of Python in the README and in the guides runs, as it stands there; so do the examples.

A block that calls `asyncio.run` is a script. One that begins with the name of a file is that file. The others of a page
are one program, with `await` at the top level.
"""

from __future__ import annotations

import ast
import asyncio
import codeop
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from asyncruns import Client, Fleet, RunRef, Toolset
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.testing import BatchScenario, Emulator, Fault, Scenario
from asyncruns.testing.emulator import default_scenario

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))
INDEX = ROOT / "examples" / "README.md"
OTHER_PAGES = [INDEX, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md", ROOT / ".github" / "CONTRIBUTING.md"]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HAVE_TESTS = {"many_prompts.py", "aiohttp_backend.py"}  # test_many_prompts.py, web_backend/test_aiohttp_backend.py
MOST_LINES = 150


def blocks_of(page: Path, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def file_name(block: str) -> str | None:
    found = re.match(r"# (\w+\.\w+)\n", block)
    return found and found[1]


def is_script(block: str) -> bool:
    return "asyncio.run(" in block or "asyncio.Runner(" in block


def scripts_of(page: Path) -> list[str]:
    return [block for block in blocks_of(page) if is_script(block) and not file_name(block)]


def program_of(page: Path) -> list[str]:
    return [block for block in blocks_of(page) if not is_script(block) and not file_name(block)]


def write_files_of(page: Path, folder: Path) -> None:
    for block in blocks_of(page, "(?:python|toml)"):
        if name := file_name(block):
            (folder / name).write_text(block, encoding="utf-8")


async def run_program(page: Path, names: dict[str, Any]) -> None:
    for block in program_of(page):
        code = compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        assert isinstance(code, CodeType)
        running = eval(code, names)
        if running is not None:
            await running


@pytest.fixture
async def emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    """An emulator that takes little real time, and is the server that `Client.from_env()` finds."""
    batches = BatchScenario(validating=0.0, working=0.05, finalizing=0.0)
    async with Emulator(
        lambda request: replace(default_scenario(request), queued=0.0, working=0.05), batches=batches
    ) as emulator:
        monkeypatch.setenv("ASYNCRUNS_BASE_URL", emulator.base_url)
        monkeypatch.setenv("ASYNCRUNS_API_KEY", "any-key")
        yield emulator


async def run_python(*arguments: str, folder: Path | None = None) -> str:
    """Run Python in a process of its own, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode() + err.decode()
    return out.decode()


# The README


@pytest.mark.real_time
async def test_the_script_of_the_readme_prints_the_answer(emulator: Emulator) -> None:
    (script,) = scripts_of(README)
    assert "21 degrees in" in await run_python("-c", script)


async def test_the_other_blocks_of_the_readme_run(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    def get_weather(city: str) -> str:
        return f"21 degrees in {city}"

    tools = Toolset([get_weather])
    async with Client.from_env() as client:
        assistant = await client.assistants.create(model="gpt-4o", tools=tools.definitions())
        await run_program(README, {"client": client, "assistant": assistant, "tools": tools})
    printed = capsys.readouterr().out
    assert "21 degrees in" in printed
    assert printed.count("completed") == 20


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


# The guides


@pytest.mark.parametrize("page", [page for page in GUIDES if program_of(page)], ids=lambda page: page.stem)
async def test_the_program_of_a_guide_runs(
    emulator: Emulator, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    await run_program(page, {})


@pytest.mark.parametrize("page", [README, *GUIDES], ids=lambda page: page.stem)
def test_a_program_can_be_pasted_into_an_interactive_python(page: Path) -> None:
    """Before Python 3.13, an empty line there ends whatever is indented."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    pasted: list[str] = []
    for line in "\n".join(program_of(page)).split("\n"):
        pasted.append(line)
        if compiler("\n".join(pasted), page.name, "single") is not None:
            pasted.clear()
    assert pasted == []


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize(
    "script",
    [pytest.param(script, id=page.stem) for page in GUIDES for script in scripts_of(page)],
)
async def test_a_script_of_a_guide_runs(emulator: Emulator, script: str) -> None:
    assert await run_python("-c", script)


@pytest.mark.slow
@pytest.mark.real_time
async def test_the_tests_of_the_guide_to_testing_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files_of(ROOT / "examples" / "guides" / "testing.md", tmp_path)
    async with Emulator() as emulator:  # it has no assistant yet, as that of `asyncruns emulate` has none
        emulator.inject(Fault(on="create_run", drop=True, acts=True), Fault(on="poll", drop=True, times=2))
        monkeypatch.setenv("ASYNCRUNS_BASE_URL", emulator.base_url)
        monkeypatch.setenv("ASYNCRUNS_API_KEY", "the-key-of-the-server")
        assert "get_weather: 21 degrees in city" in await run_python("record.py", folder=tmp_path)
    assert "the-key-of-the-server" not in (tmp_path / "bad_day.jsonl").read_text(encoding="utf-8")
    assert "4 passed" in await run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path)


@pytest.mark.slow
@pytest.mark.real_time
async def test_the_dialect_of_the_guide_to_dialects_is_watched(tmp_path: Path) -> None:
    write_files_of(ROOT / "examples" / "guides" / "dialects.md", tmp_path)
    printed = await run_python("watch_jobs.py", folder=tmp_path)
    assert "21 degrees in Paris" in printed
    assert "48 results" in printed


def test_the_guide_to_web_backends_quotes_the_examples() -> None:
    files = [ROOT / "examples" / "web_backend" / "app.py", ROOT / "examples" / "aiohttp_backend.py"]
    programs = [file.read_text(encoding="utf-8") for file in files]
    quoted = blocks_of(ROOT / "examples" / "guides" / "web-backend.md", "py")
    assert len(quoted) > 5
    assert [block for block in quoted if not any(block in program for program in programs)] == []


@pytest.mark.slow
@pytest.mark.real_time
async def test_the_application_of_the_guide_to_fleets_answers(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files_of(ROOT / "examples" / "guides" / "fleets.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def ask() -> Any:
        app = import_module("app").app  # written just now
        from fastapi.testclient import TestClient

        with TestClient(app) as server:
            answers = [server.post("/questions", params={"text": f"Weather in {city}?"}).json() for city in "AB"]
            return answers, server.get("/health").json()

    answers, health = await asyncio.to_thread(ask)
    assert [answer["answer"].startswith("get_weather: 21 degrees in") for answer in answers] == [True, True]
    assert health["active"] == 0


@pytest.mark.slow
async def test_the_list_of_the_guide_to_dialects_shows_many_jobs_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files_of(ROOT / "examples" / "guides" / "dialects.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import jobs  # type: ignore[import-not-found]  # written just now
    import listed_jobs  # type: ignore[import-not-found]  # likewise

    began = asyncio.get_running_loop().time()
    all_jobs = [jobs.Job(f"job_{number}", "working") for number in range(150)]
    requests = []

    class Server(Transport):
        async def send(self, request: Request) -> Response:
            requests.append(request)
            state = "done" if asyncio.get_running_loop().time() > began + 20.0 else "working"
            after = dict(request.query).get("after")
            start = 0 if after is None else int(after.removeprefix("job_")) + 1
            shown: Any = [jobs.Job(job.id, state) for job in all_jobs]
            shown = shown[start : start + 100] if request.path == "/jobs" else shown[int(request.path[10:])]
            return Response(200, {}, msgspec.json.encode(shown))

        async def aclose(self) -> None:
            pass

    class JobClient:
        transport = Server()
        dialect = listed_jobs.ListedJobDialect()

        async def answer(self, ref: RunRef) -> list[Any]:
            return []

    async with Fleet(JobClient()) as fleet:
        await fleet.add_many(all_jobs)
        outcomes = [outcome async for outcome in fleet]
    assert len(outcomes) == 150
    assert sum(outcome.polls for outcome in outcomes) > 10 * len(requests)


@pytest.mark.slow
@pytest.mark.real_time
async def test_the_application_of_the_guide_to_webhooks_is_told_of_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files_of(ROOT / "examples" / "guides" / "webhooks.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    server: Any = None

    async def forward(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        answer = await asyncio.to_thread(server.post, "/webhooks", content=body, headers=dict(request.headers))
        told.append(answer.json())
        return web.Response(status=answer.status_code)

    def ask() -> Any:
        nonlocal server
        from fastapi.testclient import TestClient
        from hooks import app  # type: ignore[import-not-found]  # written just now

        with TestClient(app) as server:
            refused = server.post("/webhooks", content="{}").status_code
            return server.post("/questions", params={"text": "Hi"}).json(), refused

    told: list[Any] = []
    receiver = RawTestServer(forward)
    await receiver.start_server()
    slow = Scenario(queued=0.0, working=1.7)
    async with Emulator(slow, webhook_url=str(receiver.make_url("/"))) as emulator:
        monkeypatch.setenv("ASYNCRUNS_BASE_URL", emulator.base_url)
        monkeypatch.setenv("ASYNCRUNS_API_KEY", "any-key")
        monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", emulator.webhook_secret)
        answer, refused = await asyncio.to_thread(ask)
    await receiver.close()
    assert answer == {"status": "completed", "answer": "You said: Hi"}
    assert refused == 400
    assert len(told) == 1


def test_each_file_of_a_guide_is_run_by_one_of_these_tests() -> None:
    """Those of the guide to many machines are run by temporal/test_examples.py."""
    named = {name for page in GUIDES for block in blocks_of(page) if (name := file_name(block))}
    assert named == {
        "app.py", "approvals.py", "ask.py", "hooks.py", "jobs.py", "listed_jobs.py", "record.py", "shards.py",
        "test_bad_day.py", "test_weather.py", "watch_jobs.py", "weather.py", "worker.py", "workflows.py",
    }  # fmt: skip


# The examples


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.name not in HAVE_TESTS], ids=lambda path: path.name)
async def test_an_example_runs(emulator: Emulator, path: Path) -> None:
    assert await run_python(str(path))


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize(("wire", "other"), [("threads", "create_response"), ("responses", "create_run")])
async def test_the_agent_loop_runs_on_either_wire(emulator: Emulator, wire: str, other: str) -> None:
    printed = await run_python(str(ROOT / "examples" / "agent_loop.py"), wire)
    assert printed.count("get_weather: 21 degrees in") == 2
    seen = {request.operation for request in emulator.requests}
    assert {"poll", "submit"} <= seen
    assert other not in seen


# All pages


def test_other_pages_have_no_code_that_nothing_runs() -> None:
    assert [page.name for page in OTHER_PAGES if blocks_of(page)] == []


def test_the_index_has_every_guide_and_every_example() -> None:
    index, readme = INDEX.read_text(encoding="utf-8"), README.read_text(encoding="utf-8")
    assert [path.name for path in (*GUIDES, *EXAMPLES) if f"{path.name})" not in index] == []
    assert [page.name for page in GUIDES if f"guides/{page.name})" not in readme] == []


@pytest.mark.parametrize("page", [README, *GUIDES, *OTHER_PAGES], ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`((?:tests|benchmarks|asyncruns|examples)/[\w/.]+)`", text):
        assert (ROOT / target).exists(), target


def test_every_file_in_the_table_of_layers_exists() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", OTHER_PAGES[-1].read_text(encoding="utf-8"), re.MULTILINE)
    named = [ROOT / "asyncruns" / folder / name for folder, text in rows for name in re.findall(r"`(\w+\.py)`", text)]
    assert named
    assert [path for path in named if not path.exists()] == []
