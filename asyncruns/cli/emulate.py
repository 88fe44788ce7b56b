"""`asyncruns emulate`: run only the emulator."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Final

import anyio

from asyncruns.cli.demo_runs import demo_scenario
from asyncruns.cli.output import complain, say
from asyncruns.cli.process import INTERRUPTED, TERMINATED, USAGE, run
from asyncruns.cli.scripts import in_turn
from asyncruns.testing import Emulator, Fault, Scenario
from asyncruns.wire.shown_text import on_one_line

FORGET_EVERY_S: Final = 60.0


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM and return the exit code; these are the normal way to end it, so it is 0."""
    code = run(serve(options.host, options.port, options.api_key, options.scenario, options.fault))
    return 0 if code in (INTERRUPTED, TERMINATED) else code


async def serve(
    host: str,
    port: int,
    api_key: str | None,
    scenarios: tuple[Scenario, ...] | None = None,
    faults: Sequence[Fault] = (),
) -> int:
    """Serve until cancelled; return an exit code if it cannot listen.

    Args:
        host: Where to listen.
        port: The port; 0 is a free one.
        api_key: The only key that is accepted; None accepts every request.
        scenarios: What new runs and responses do, in turn. By default, runs of the demo have the scenarios of its own
            emulator, and all others call each of their functions once.
        faults: What goes wrong.
    """
    source = demo_scenario if scenarios is None else in_turn(scenarios)
    emulator = Emulator(source, host=host, port=port, api_key=api_key)
    emulator.inject(*faults)
    try:
        await emulator.start()
    except OSError as error:
        complain(f"cannot listen on {host}:{port}: {_why(error)}")
        return USAGE
    try:
        say(f"Serving on {emulator.base_url}")
        key = "" if api_key is None else " --api-key ..."
        shown_key = "any-key" if api_key is None else "..."
        say(f"Try: asyncruns demo --base-url {emulator.base_url}{key}    (Ctrl-C ends this)")
        say(f"Or:  export ASYNCRUNS_BASE_URL={emulator.base_url} ASYNCRUNS_API_KEY={shown_key}")
        if scenarios is not None:
            say(f"Runs have {len(scenarios)} {'scenario' if len(scenarios) == 1 else 'scenarios, in turn'}")
        for fault in faults:
            say(on_one_line(repr(fault)))
        while True:
            await anyio.sleep(FORGET_EVERY_S)
            emulator.requests.clear()  # they are recorded for tests, and would fill the memory within days
    finally:
        with anyio.CancelScope(shield=True):
            await emulator.stop()


def _why(error: OSError) -> str:
    # Errors of name resolution have negative numbers, which `os.strerror` does not know; their own text is clear.
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error.strerror or error)
