"""A process that ends during a watch closes everything, however it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, signal, sys
from asyncruns import Client, RunWatcher
from asyncruns.testing import Emulator, Scenario

async def main(how):
    async with Emulator() as emulator, Client(emulator.base_url) as client:
        emulator.script(Scenario(end="never", cancelling=0.0), assistant_id="asst_1")
        thread = await client.threads.create()
        run = await client.threads.runs.create(thread.id, assistant_id="asst_1")
        if how == "returns":
            await client.watch(run, timeout=0.1)
        elif how == "raises":
            async with RunWatcher(client, run):
                await asyncio.sleep(0.1)
                raise ValueError("mine")
        elif how == "is interrupted":
            asyncio.get_running_loop().call_later(0.1, signal.raise_signal, signal.SIGINT)
            try:
                await client.watch(run, on_exit="cancel")
            finally:
                print(emulator.runs[run.id]["status"])

# Without asyncio's debug mode, which `-X dev` turns on: on a busy machine, it reports slow callbacks.
asyncio.run(main(sys.argv[1]), debug=False)
"""

ENDS = {
    "returns": (0, ""),
    "raises": (1, "ValueError: mine"),
    "is interrupted": (-2, "KeyboardInterrupt"),
}


@pytest.mark.slow
def test_a_session_is_closed_however_the_process_ends() -> None:
    processes = {
        how: subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for how in ENDS
    }
    for how, process in processes.items():
        out, err = process.communicate(timeout=60)
        code, last = ENDS[how]
        assert process.returncode == code, err
        assert err.strip().splitlines()[-1:] == ([last] if last else []), err
        for trace in ("Unclosed", "Warning", "never awaited", "destroyed", "never retrieved", "Exception ignored"):
            assert trace not in err
        assert out == ("cancelled\n" if how == "is interrupted" else "")
