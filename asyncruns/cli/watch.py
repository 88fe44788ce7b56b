"""`asyncruns watch`: watch one run or response from the shell."""

from __future__ import annotations

import argparse
from typing import Any, Final

from msgspec import UNSET, UnsetType

from asyncruns.cli.arguments import version_of
from asyncruns.cli.connect import connect
from asyncruns.cli.ends import EXIT_CODES, end_of
from asyncruns.cli.process import run
from asyncruns.cli.reports import JsonReport, LineReport, Reporter
from asyncruns.client.client import Client
from asyncruns.errors import AsyncRunsError, InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.watch.observers import Ended
from asyncruns.watch.options import WatchOptions
from asyncruns.watch.outcome import Completed
from asyncruns.watch.watcher import RunWatcher

_NO_RESPONSE: Final = ("thread_", "run_")  # prefixes of the two ids of a run
_BATCHES: Final = ("batch_", "msgbatch_")


def main(options: argparse.Namespace) -> int:
    """Watch the run or the response and return the exit code of its outcome."""
    if options.run_id is None and options.id.startswith(_NO_RESPONSE):
        raise InvalidRequestError(
            f"{options.id} is not the id of a response; to watch a run, pass two ids: asyncruns watch THREAD_ID RUN_ID"
        )
    if options.id.startswith(_BATCHES):
        raise InvalidRequestError(f"{options.id} is a batch: asyncruns batch watch {options.id}")
    client = connect(
        options.base_url,
        options.api_key,
        auth_header=options.auth_header,
        headers=dict(options.header),
        default_query=dict(options.query),
        version=version_of(options),
    )
    return run(
        watch_runs(
            client,
            options.id,
            options.run_id,
            JsonReport() if options.json else LineReport(),
            timeout=UNSET if options.timeout is None else options.timeout,
            max_outage=options.max_outage,
            observe_only=options.observe,
        )
    )


async def watch_runs(
    client: Client,
    id: str,
    run_id: str | None,
    report: Reporter,
    *,
    timeout: float | UnsetType | None = UNSET,
    max_outage: float | None = None,
    observe_only: bool = False,
) -> int:
    """Watch a run or a response, report on it, close the client, and return the exit code.

    Safe to cancel: the run continues at the server.

    Args:
        id: Id of the run's thread, or of a response.
        run_id: Id of the run; None for a response.

    Raises:
        InvalidRequestError: An id is not valid.
    """
    given: WatchOptions = {"timeout": timeout, "max_outage": max_outage, "observe_only": observe_only}
    async with client:
        watcher: RunWatcher[Any]
        if run_id is not None:
            watcher = RunWatcher(client, thread_id=id, run_id=run_id, **given)
        else:
            responses = client.responses.continued()
            ref = RunRef(responses.dialect.name, (id,))
            watcher = RunWatcher(responses, ref, **given)
        async with watcher:
            async for event in watcher:
                if not isinstance(event, Ended):
                    report.notice(event)
            outcome = await watcher.wait()
        text, trouble = None, None
        if isinstance(outcome, Completed):
            try:
                text = await outcome.text()
            except AsyncRunsError as error:  # the run has completed even so: report the outcome
                trouble = error
        report.end(outcome, text, trouble)
        return EXIT_CODES[end_of(outcome)]
