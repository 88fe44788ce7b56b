"""The requests of `asyncruns reap`: unfinished runs of threads, one poll of each run, cancels, and watches to the end.

A fleet without a journal sends them, under one budget. It has no tools, so nothing is ever run or submitted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import anyio
from msgspec import UNSET

from asyncruns.cli.options import DEFAULT_MAX_OUTAGE_S
from asyncruns.cli.output import complain
from asyncruns.cli.reap_rows import Unfinished
from asyncruns.cli.reports import sentence
from asyncruns.client.client import Client
from asyncruns.errors import InvalidRequestError
from asyncruns.fleet import Fleet, Watch
from asyncruns.lifecycle import CancelRefused, Notice, Phase, Reason, StatusChanged
from asyncruns.lifecycle.records import key_of_run
from asyncruns.watch.observers import Ended
from asyncruns.watch.outcome import AnyOutcome, GaveUp, NeedsCaller

Clients = Mapping[str, Client]
LISTED_AT_ONCE: Final = 100


async def unfinished_of(client: Client, thread_id: str) -> list[Unfinished]:
    """Return the runs of a thread that have not ended, the oldest first. Safe to cancel.

    Raises:
        APIError: They could not be listed.
    """
    found = []
    async for run in client.threads.runs.list(thread_id, order="asc", limit=LISTED_AT_ONCE):
        snapshot = client.dialect.snapshot(run)
        if not snapshot.phase.is_terminal:
            try:
                ref = client.dialect.identify(run, {})
            except InvalidRequestError as error:
                complain(f"a run of {thread_id} was left out: {error}")
                continue
            row = Unfinished(key=key_of_run(ref), ref=ref, created_at=snapshot.created_at)
            row.status, row.calls = snapshot.status, snapshot.calls
            row.needs_caller = snapshot.phase is Phase.NEEDS_CALLER
            found.append(row)
    return found


async def poll_each(clients: Clients, rows: Iterable[Unfinished]) -> None:
    """Poll the run of each row once, and note its status there. Safe to cancel."""

    async def poll(row: Unfinished, watch: Watch[Any]) -> None:
        async for event in watch:
            if _note(row, event):
                break

    await _with_each(clients, rows, poll)


async def cancel_each(clients: Clients, rows: Iterable[Unfinished]) -> None:
    """Cancel the run of each row, and note what became of that, without waiting for the end. Safe to cancel."""

    async def cancel(row: Unfinished, watch: Watch[Any]) -> None:
        await watch.cancel_run()
        async for event in watch:
            is_cancelling = isinstance(event, StatusChanged) and event.phase is Phase.CANCELLING
            _note(row, event)
            if isinstance(event, CancelRefused):
                row.trouble = f"not cancelled: {event.cause}"
            elif isinstance(event, Ended) and isinstance(event.outcome, NeedsCaller):
                row.trouble = f"not cancelled, as nothing runs at the server: {sentence(event.outcome)}"
            if isinstance(event, Ended) or is_cancelling or row.trouble:
                break
        row.done = "" if row.trouble else row.status

    await _with_each(clients, rows, cancel)


async def watch_each(
    clients: Clients,
    rows: Iterable[Unfinished],
    told: Callable[[Unfinished, AnyOutcome[Any]], Awaitable[None]],
    *,
    timeout: float | None,
) -> None:
    """Watch the run of each row to its end, and await `told` with each outcome. Safe to cancel: the runs go on."""

    async def wait(row: Unfinished, watch: Watch[Any]) -> None:
        outcome = await watch
        row.status = outcome.status
        await told(row, outcome)

    await _with_each(clients, rows, wait, timeout=timeout)


async def _with_each(
    clients: Clients,
    rows: Iterable[Unfinished],
    use: Callable[[Unfinished, Watch[Any]], Awaitable[None]],
    *,
    timeout: float | None = None,
) -> None:
    limit = UNSET if timeout is None else timeout
    fleet = Fleet(
        next(iter(clients.values())), journal=None, on_exit="leave", timeout=limit, max_outage=DEFAULT_MAX_OUTAGE_S
    )

    async def perform(row: Unfinished, watch: Watch[Any]) -> None:
        await use(row, watch)
        watch.cancel()  # it goes on at the server

    async with fleet, anyio.create_task_group() as group:
        for row in rows:
            try:
                watch = fleet.watch(row.ref, client=clients[row.ref.dialect])
            except InvalidRequestError as error:  # a dialect of the program's own
                row.trouble = str(error)
            else:
                group.start_soon(perform, row, watch)


def _note(row: Unfinished, event: Notice | Ended[Any]) -> bool:
    """Note what an event shows of a run; return whether that is its status."""
    if isinstance(event, StatusChanged):
        row.status, row.needs_caller = event.status, event.phase is Phase.NEEDS_CALLER
    elif isinstance(event, Ended):
        row.status = event.outcome.status
        if isinstance(event.outcome, GaveUp):
            row.status = row.status or _without_status(event.outcome)
            row.trouble = "" if has_vanished(event.outcome) else f"its status is not known: {event.outcome.cause}"
    return isinstance(event, StatusChanged | Ended)


def has_vanished(outcome: AnyOutcome[Any]) -> bool:
    """Return whether the run does not exist any more."""
    return outcome.reason in (Reason.GONE, Reason.NOT_FOUND)


def _without_status(outcome: AnyOutcome[Any]) -> str:
    return "gone" if has_vanished(outcome) else ""
