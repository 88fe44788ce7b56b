"""`asyncruns emulate`: run only the emulator."""

from __future__ import annotations

import argparse
import os
from typing import Final

import anyio

from asyncruns.cli.demo_runs import demo_scenario
from asyncruns.cli.output import complain, say
from asyncruns.cli.process import INTERRUPTED, TERMINATED, USAGE, run
from asyncruns.cli.scripts import in_turn
from asyncruns.testing import BatchScenario, Emulator, Scenario
from asyncruns.wire.shown_text import on_one_line

FORGET_EVERY_S: Final = 60.0


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM and return the exit code; these are the normal way to end it, so it is 0."""
    code = run(serve(options))
    return 0 if code in (INTERRUPTED, TERMINATED) else code


async def serve(options: argparse.Namespace) -> int:
    """Serve until cancelled; return an exit code if an option is unusable, or it cannot listen."""
    scenarios: tuple[Scenario, ...] | None = options.scenario
    batches: tuple[BatchScenario, ...] | None = options.batch
    try:
        # The demo's runs have the scenarios of its own emulator; all others call each of their functions once.
        emulator = Emulator(
            demo_scenario if scenarios is None else in_turn(scenarios),
            batches=None if batches is None else in_turn(batches),
            host=options.host,
            port=options.port,
            api_key=options.api_key,
            webhook_url=options.webhook_url,
            webhook_secret=options.webhook_secret,
        )
        emulator.inject(*options.fault)
        await emulator.start()
    except ValueError as error:
        complain(str(error))
        return USAGE
    except OSError as error:
        complain(f"cannot listen on {options.host}:{options.port}: {_why(error)}")
        return USAGE
    try:
        say(f"Serving on {emulator.base_url}")
        key = "" if options.api_key is None else " --api-key ..."
        shown_key = "any-key" if options.api_key is None else "..."
        say(f"Try: asyncruns demo --base-url {emulator.base_url}{key}    (Ctrl-C ends this)")
        say(f"Or:  export ASYNCRUNS_BASE_URL={emulator.base_url} ASYNCRUNS_API_KEY={shown_key}")
        for what, scripted in (("Runs", scenarios), ("Batches", batches)):
            if scripted is not None:
                say(f"{what} have {len(scripted)} {'scenario' if len(scripted) == 1 else 'scenarios, in turn'}")
        for fault in options.fault:
            say(on_one_line(repr(fault)))
        if options.webhook_url is not None:
            secret = "..." if options.webhook_secret else emulator.webhook_secret
            say(f"Webhooks are signed: export OPENAI_WEBHOOK_SECRET={secret}")
        while True:
            await anyio.sleep(FORGET_EVERY_S)
            emulator.requests.clear()  # they are recorded for tests, and would fill the memory within days
    finally:
        with anyio.CancelScope(shield=True):
            await emulator.stop()


def _why(error: OSError) -> str:
    # Errors of name resolution have negative numbers, which `os.strerror` does not know; their own text is clear.
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error.strerror or error)
