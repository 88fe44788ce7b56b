"""The fixtures of the pytest plugin, in processes of their own: with each plugin for async tests, and unused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import asyncio
import pytest
from asyncruns import Client, Completed, Expired
from asyncruns.testing import Scenario, VirtualTimeLoop

pytestmark = {mark}
virtual_time = pytest.mark.usefixtures("asyncruns_virtual_time")


@virtual_time
async def test_emulator(asyncruns_emulator):
    asyncruns_emulator.script(Scenario(end="never"), assistant_id="asst_1")
    async with Client(asyncruns_emulator.base_url) as client:
        assert isinstance(await client.run(assistant_id="asst_1", message="Hello?"), Expired)


@virtual_time
async def test_client(asyncruns_client, asyncruns_memory):
    asyncruns_memory.script(Scenario(end="never"), assistant_id="asst_1")
    assert isinstance(await asyncruns_client.run(assistant_id="asst_1", message="Hello?"), Expired)


async def test_without_virtual_time(asyncruns_client, asyncruns_memory, asyncruns_emulator):
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    async with Client(asyncruns_emulator.base_url) as client:
        await client.threads.create()


@virtual_time
class TestClass:
    @pytest.mark.parametrize("seconds", [1000, 2000])
    async def test_parametrized(self, seconds, asyncruns_emulator):
        await asyncio.sleep(seconds)
"""
SYNC = """
import pytest

@pytest.mark.usefixtures("asyncruns_virtual_time")
def test_that_is_not_async(asyncruns_client, asyncruns_memory):
    pass
"""
UNUSED = """
import sys

def test_nothing_is_loaded():
    assert "asyncruns.testing.pytest_plugin" in sys.modules
    assert {"aiohttp", "msgspec", "asyncruns.client", "asyncruns.errors"}.isdisjoint(sys.modules)
"""
LOOP_SCOPE = "asyncio_default_fixture_loop_scope=function"


def run_pytest(folder: Path, *arguments: str) -> str:
    command = (sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pytest.ini")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize(
    ("mark", "arguments"),
    [
        ("[]", ["-o", "asyncio_mode=auto", "-o", LOOP_SCOPE]),
        ("pytest.mark.asyncio", ["-o", LOOP_SCOPE]),
        ('pytest.mark.asyncio(loop_scope="module")', ["-o", LOOP_SCOPE]),
        ("pytest.mark.anyio", ["-o", LOOP_SCOPE]),
        ("pytest.mark.anyio", ["-p", "no:asyncio"]),
    ],
    ids=["auto", "strict", "loop of the module", "anyio beside pytest-asyncio", "anyio alone"],
)
def test_the_fixtures_work_with_each_plugin(mark: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS.format(mark=mark), encoding="utf-8")
    (tmp_path / "test_sync.py").write_text(SYNC, encoding="utf-8")
    assert "6 passed" in run_pytest(tmp_path, *arguments)


@pytest.mark.slow
def test_a_test_may_choose_its_own_backend(tmp_path: Path) -> None:
    test = (
        'import pytest\npytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("asyncruns_virtual_time"),'
        'pytest.mark.parametrize("anyio_backend", ["asyncio"])]\n'
        "async def test_it():\n    import asyncio, asyncruns.testing as t\n"
        "    assert not isinstance(asyncio.get_running_loop(), t.VirtualTimeLoop)\n"
    )
    (tmp_path / "test_it.py").write_text(test, encoding="utf-8")
    assert "1 passed" in run_pytest(tmp_path, "-p", "no:asyncio")


def test_nothing_is_loaded_before_a_fixture_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(UNUSED, encoding="utf-8")
    assert "1 passed" in run_pytest(tmp_path, "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:hypothesispytest")


@pytest.mark.slow
def test_the_strict_mode_of_an_old_pytest_asyncio_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        'import pytest_asyncio\npytest_asyncio.__version__ = "1.0.0"\n', encoding="utf-8"
    )
    test = "import pytest\n@pytest.mark.asyncio\nasync def test_it(asyncruns_emulator):\n    pass\n"
    (tmp_path / "test_it.py").write_text(test, encoding="utf-8")
    said = run_pytest(tmp_path, "-o", LOOP_SCOPE)
    assert "asyncruns_emulator needs pytest-asyncio 1.1 or later" in said
    assert "Traceback" not in said
