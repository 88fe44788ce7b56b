"""The pairs of examples: a script for another client prints the same after it was moved to this one."""

from __future__ import annotations

import asyncio
import difflib
import os
import sys
from pathlib import Path

import pytest

from asyncruns.testing import Emulator

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "examples" / "moving"
WARN_OF_NOTHING, WARN_OF_ALL = ("-W", "ignore"), ("-W", "error")


async def printed(emulator: Emulator, script: str, *arguments: str) -> str:
    environment = {
        **os.environ,
        **dict.fromkeys(("OPENAI_BASE_URL", "PROJECT_ENDPOINT"), emulator.base_url),
        **dict.fromkeys(("OPENAI_API_KEY", "PROJECT_KEY"), "test"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        str(FOLDER / script),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.real_time
@pytest.mark.parametrize("client", ["official", "azure"])
async def test_a_script_prints_the_same_after_moving_over(emulator: Emulator, client: str) -> None:
    after, before = await asyncio.gather(
        printed(emulator, f"{client}_after.py", *WARN_OF_ALL),
        printed(emulator, f"{client}_before.py", *WARN_OF_NOTHING),
    )
    lines = after.splitlines()
    assert lines[:2] == ["ended as completed", "user: What is the weather in Paris?"]
    assert lines[2].startswith("assistant: get_weather: 21 degrees in")
    assert before == after


PRINTED = """\
calls get_weather {"city":"city"}
assistant: get_weather:| 21| degrees| in| city|
completed: get_weather: 21 degrees in city
ended as completed
ended as requires_action
You| said:| What| is| the| weather| in| Paris?|
You| said:| Hi|
completed ['assistant']
"""


@pytest.mark.real_time
async def test_a_script_that_streams_prints_the_same_after_moving_over(emulator: Emulator) -> None:
    after, before = await asyncio.gather(
        printed(emulator, "streaming_after.py", *WARN_OF_ALL),
        printed(emulator, "streaming_before.py", *WARN_OF_NOTHING),
    )
    assert after == PRINTED
    assert before == PRINTED


def changed(client: str) -> int:
    """Return the number of lines that moving removes, plus those that it adds."""
    before, after = ((FOLDER / f"{client}_{name}.py").read_text().splitlines() for name in ("before", "after"))
    return sum(line[0] in "+-" for line in list(difflib.unified_diff(before, after))[2:])


def test_little_changes_except_the_constructor() -> None:
    assert changed("official") == 8
    assert changed("streaming") == 4
    assert changed("azure") <= 32
