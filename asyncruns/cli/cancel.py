"""`asyncruns cancel`: cancel runs, responses and batches, and wait until each has ended.

It cancels nothing but what the command line names.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final

import anyio

from asyncruns.cli.batch_servers import connected
from asyncruns.cli.ends import end_of
from asyncruns.cli.ids import given_refs
from asyncruns.cli.output import complain, counted, on_one_line, say, say_json
from asyncruns.cli.process import run
from asyncruns.cli.reports import sentence
from asyncruns.cli.show import poll_once
from asyncruns.client.client import Client
from asyncruns.errors import APIError
from asyncruns.lifecycle import CancelRefused, EndKind, RunRef, Snapshot
from asyncruns.transport.retry import RetryTransport
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.watch.watcher import RunWatcher

AT_ONCE: Final = 8
_REFUSED: Final = 1
_GAVE_UP: Final = 7


def main(options: argparse.Namespace) -> int:
    """Cancel what the options name, and return the exit code."""
    return run(cancel_runs(options, given_refs(options.ids)))


async def cancel_runs(options: argparse.Namespace, refs: list[RunRef]) -> int:
    """Cancel the runs and return 0 if all have ended; 1 if one was refused, 7 if the end of one was not seen.

    If it is cancelled, requests that were sent may still take effect.
    """
    codes: dict[RunRef, int] = {}
    few = anyio.CapacityLimiter(AT_ONCE)
    cancel = _request if options.no_wait else _cancel_and_watch

    async def one(client: Client, ref: RunRef) -> None:
        async with few:
            codes[ref] = await cancel(client, ref, as_json=options.json)

    async with connected(options, {ref.dialect for ref in refs}) as clients:
        try:
            async with anyio.create_task_group() as group:
                for ref in refs:
                    group.start_soon(one, clients[ref.dialect], ref)
        except asyncio.CancelledError:
            left = [str(ref) for ref in refs if ref not in codes]
            complain(f"interrupted; {counted(len(left), 'run')} may be cancelled or not: {' '.join(left[:AT_ONCE])}")
            raise
    return max(codes.values())


async def _cancel_and_watch(client: Client, ref: RunRef, *, as_json: bool) -> int:
    """Cancel a run, watch it to its end, and return the exit code."""
    try:
        snapshot = await poll_once(client, ref)
    except APIError as error:
        return _refused(ref, str(error), as_json=as_json)
    if _is_over(snapshot):
        _print(ref, snapshot.status, "it had ended before", as_json=as_json)
        return 0
    async with RunWatcher(client.for_run(ref), ref, observe_only=True, max_outage=30.0) as watcher:
        await watcher.cancel_run()
        async for event in watcher:
            if isinstance(event, CancelRefused):  # the watch would go on to the end
                return await _after_refusal(client, ref, str(event.cause), as_json=as_json)
        outcome: AnyOutcome[Any] = await watcher.wait()
    kind = end_of(outcome)
    if kind is EndKind.GAVE_UP or kind is EndKind.NEEDS_CALLER:
        _print(ref, outcome.status, sentence(outcome), as_json=as_json)
        return _GAVE_UP
    note = "" if kind is EndKind.CANCELLED else "it ended before it was cancelled"
    _print(ref, outcome.status, note, as_json=as_json)
    return 0


async def _request(client: Client, ref: RunRef, *, as_json: bool) -> int:
    """Send the cancel, do not wait for its effect, and return the exit code."""
    watched = client.for_run(ref)
    request = watched.dialect.cancel(ref)
    try:
        response = await RetryTransport(watched.transport).send(request)
        if 200 <= response.status < 300:
            _print(ref, watched.dialect.read(request, response).status, "", as_json=as_json)
            return 0
        cause = watched.dialect.refusal(request, response).cause
    except APIError as error:
        return _refused(ref, str(error), as_json=as_json)
    return await _after_refusal(client, ref, str(cause), as_json=as_json)


async def _after_refusal(client: Client, ref: RunRef, why: str, *, as_json: bool) -> int:
    """Print that a cancel was refused, or that the run has ended, and return the exit code."""
    try:
        snapshot = await poll_once(client, ref)
    except APIError:
        return _refused(ref, why, as_json=as_json)
    if not _is_over(snapshot):
        return _refused(ref, why, as_json=as_json)
    _print(ref, snapshot.status, "it had ended before", as_json=as_json)
    return 0


def _is_over(snapshot: Snapshot[Any]) -> bool:
    return snapshot.phase.is_terminal or snapshot.is_final


def _refused(ref: RunRef, why: str, *, as_json: bool) -> int:
    if as_json:
        say_json({"id": str(ref), "kind": ref.dialect, "status": None, "error": why})
    else:
        complain(f"{ref}: {why}")
    return _REFUSED


def _print(ref: RunRef, status: str, note: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"id": str(ref), "kind": ref.dialect, "status": status, "note": note or None})
    else:
        say("  ".join(on_one_line(text) for text in (str(ref), status, note) if text))
