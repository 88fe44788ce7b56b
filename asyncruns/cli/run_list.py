"""`asyncruns list`: print the newest runs of threads, or the newest responses and batches, one per line."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterable, Callable
from functools import partial
from typing import Any, Final

from msgspec import Struct

from asyncruns.cli.batch_board import progress_text
from asyncruns.cli.batch_servers import client_for
from asyncruns.cli.board import said
from asyncruns.cli.output import complain, counted, on_one_line, plain_object, say_json
from asyncruns.cli.process import run
from asyncruns.cli.sheet import Sheet
from asyncruns.cli.show_sheet import STATUS_STYLES
from asyncruns.cli.times import local_time
from asyncruns.client.anthropic import ANTHROPIC_VERSION
from asyncruns.client.client import Client
from asyncruns.errors import (
    APIError,
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    InvalidRequestError,
    PermissionDeniedError,
)
from asyncruns.lifecycle import RunRef, Snapshot
from asyncruns.wire.names import THREAD_RUN

_LONGEST_PAGE: Final = 100
MOST_SEARCHED: Final = 1000  # of each list, for those of a status
_ABSENT: Final = (400, 404, 405, 422, 501)
_STATUS_WIDTH: Final = 15
_TIME_WIDTH: Final = 19


class ListedRow(Struct):
    """One line of the list."""

    ref: RunRef
    snapshot: Snapshot[Any]


class Source(Struct):
    """A list at the server.

    Attributes:
        name: What it is a list of.
        items: Its items, newest first.
        is_asked_for: Whether the command line names it, so that it is an error if it is not there.
    """

    name: str
    items: Callable[[], AsyncIterable[Any]]
    is_asked_for: bool = False


def main(options: argparse.Namespace) -> int:
    """Print the list, and return the exit code."""
    return run(list_runs(options))


async def list_runs(options: argparse.Namespace) -> int:
    """Print the list and return 0; 1 if there is none at the server.

    Raises:
        APIError: A list that the command line names, or all of them, could not be fetched.
    """
    async with client_for(options, THREAD_RUN) as client:
        sources = sources_of(client, options.thread, page=min(options.limit, _LONGEST_PAGE))
        results = await asyncio.gather(*(_read(client, each, options) for each in sources))
    found = [listed for result in results if not isinstance(result, APIError) for listed in result]
    if not _all_well(sources, results):
        return 1
    found.sort(key=lambda listed: listed.snapshot.created_at or 0.0, reverse=True)
    _print(found[: options.limit], as_json=options.json)
    if not found and not options.json:
        complain("nothing found" if options.thread else "nothing found; for the runs of a thread: --thread THREAD_ID")
    return 0


def sources_of(client: Client, threads: list[str], *, page: int) -> list[Source]:
    """Return the lists to read: those of these threads, or, without any, all that are not of threads."""
    if threads:
        runs = client.threads.runs.list
        return [
            Source(f"runs of {thread}", partial(runs, thread, limit=page, order="desc"), is_asked_for=True)
            for thread in dict.fromkeys(threads)
        ]
    version = {"anthropic-version": ANTHROPIC_VERSION}
    return [
        Source("responses", partial(client.responses.list, limit=page, order="desc")),
        Source("batches", partial(client.batches.list, limit=page)),
        Source("message batches", partial(client.message_batches.list, limit=page, extra_headers=version)),
    ]


async def _read(client: Client, source: Source, options: argparse.Namespace) -> list[ListedRow] | APIError:
    """Return the newest items of a list that have the wanted status, or why there are none."""
    found: list[ListedRow] = []
    searched = 0
    try:
        async for item in source.items():
            searched += 1
            try:
                ref = RunRef.of(item)
            except InvalidRequestError:
                complain(f"{source.name}: one was left out, as it has no id")
                continue
            snapshot = client.for_run(ref).dialect.snapshot(item)
            if not options.status or snapshot.status in options.status:
                found.append(ListedRow(ref, snapshot))
            if len(found) == options.limit:
                break
            if searched == max(MOST_SEARCHED, options.limit):
                complain(f"only the newest {searched} {source.name} were searched")
                break
    except APIError as error:
        return error
    return found


def _all_well(sources: list[Source], results: list[list[ListedRow] | APIError]) -> bool:
    """Complain of lists that could not be read, and return whether there was one that could.

    Raises:
        APIError: A list that the command line names, or each one, could not be read, or the key was refused.
    """
    failed = [(source, result) for source, result in zip(sources, results, strict=True) if isinstance(result, APIError)]
    for source, error in failed:
        if source.is_asked_for or (len(failed) == len(sources) and not _is_absent(error)):
            raise error
        if _is_absent(error) or isinstance(error, AuthenticationError | PermissionDeniedError):
            status = getattr(error, "status", 0)
            complain(f"{source.name}: the server shows no such list ({status})")
        else:
            complain(f"{source.name}: {error}")
    if len(failed) == len(sources):
        complain("nothing can be listed here; for the runs of a thread: --thread THREAD_ID")
    return len(failed) < len(sources)


def _is_absent(error: APIError) -> bool:
    if isinstance(error, APIResponseValidationError):  # such as the page of another application
        return False
    return isinstance(error, APIStatusError) and error.status in _ABSENT


def _print(found: list[ListedRow], *, as_json: bool) -> None:
    width = max((len(on_one_line(str(listed.ref))) for listed in found), default=0)
    sheet = Sheet(width, _STATUS_WIDTH, _TIME_WIDTH)
    for ref, snapshot in ((listed.ref, listed.snapshot) for listed in found):
        if as_json:
            facts = {"status": snapshot.status, "phase": snapshot.phase.value, "created_at": snapshot.created_at}
            say_json({"id": str(ref), "kind": ref.dialect, **facts, "object": plain_object(snapshot.resource)})
        else:
            at, note = local_time(snapshot.created_at), _note(snapshot)
            sheet.row(str(ref), snapshot.status, at, note, style=STATUS_STYLES.get(snapshot.phase, ""), styled=1)


def _note(snapshot: Snapshot[Any]) -> str:
    if snapshot.counts is not None:
        return progress_text(snapshot.counts)
    if snapshot.calls:
        names = ", ".join(call.name or call.type for call in snapshot.calls)
        return f"{counted(len(snapshot.calls), 'call')} without output: {names}"
    return said(snapshot.fault)
