"""`asyncruns batch`: submit a file of requests, watch and cancel batches, print results, list batches.

Nothing here spends money by itself: only `submit` creates something, and only what the file says.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from asyncruns.cli.batch_cancel import cancel_command
from asyncruns.cli.batch_list import list_command
from asyncruns.cli.batch_results import results_command
from asyncruns.cli.batch_submit import submit_command
from asyncruns.cli.batch_watch import watch_command
from asyncruns.cli.process import run

COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], Awaitable[int]]]] = {
    "submit": submit_command,
    "watch": watch_command,
    "results": results_command,
    "list": list_command,
    "cancel": cancel_command,
}


def main(options: argparse.Namespace) -> int:
    """Perform the command on batches that the options name, and return its exit code."""

    async def perform() -> int:
        return await COMMANDS[options.batch_command](options)

    return run(perform())
