"""`asyncruns batch watch`: watch any number of batches of both wires, by their ids, to their ends.

It only polls: what is interrupted is taken up again with the same ids.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
from msgspec import UNSET, UnsetType

from asyncruns.cli.batch_board import BatchBoard
from asyncruns.cli.batch_servers import connected, wire_of
from asyncruns.cli.batch_views import BatchJson, BatchLines, BatchView
from asyncruns.cli.ends import EXIT_CODES
from asyncruns.cli.output import complain, counted
from asyncruns.client.client import Client
from asyncruns.fleet import Fleet
from asyncruns.lifecycle import Notice, RunRef
from asyncruns.watch.observers import Ended

SHOWN_IDS: Final = 5


def view_of(options: argparse.Namespace, where: str) -> BatchView:
    """Return JSON if that is asked for, bars on a terminal, and lines elsewhere."""
    if options.json:
        return BatchJson()
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return BatchLines()
    try:
        from asyncruns.cli.batch_bars import BatchBars
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":  # only a missing `rich` is expected here
            raise
        complain("for bars: pip install 'asyncruns[cli]'")
        return BatchLines()
    return BatchBars(where)


async def watch_command(options: argparse.Namespace) -> int:
    """Watch the batches that the command line names, and return the exit code."""
    batch_ids = list(dict.fromkeys(options.ids))
    async with connected(options, {wire_of(batch_id) for batch_id in batch_ids}) as clients:
        view = view_of(options, next(iter(clients.values())).base_url)
        return await watch_batches(clients, batch_ids, view, timeout=options.timeout)


async def watch_batches(
    clients: Mapping[str, Client], batch_ids: Sequence[str], view: BatchView, *, timeout: float | None = None
) -> int:
    """Watch batches until all have ended, and return the highest of their exit codes.

    Safe to cancel: the batches go on at the server.

    Args:
        clients: The client for each wire.
        batch_ids: The ids; those of message batches begin with "msgbatch_".
        view: Shows the batches.
        timeout: For each watch, in seconds; by default it follows the expiry of the batch.

    Raises:
        InvalidRequestError: An id is not valid.
    """
    board = BatchBoard(batch_ids)

    def observed(event: Notice | Ended[Any]) -> None:
        if isinstance(event, Ended):
            view.ended(board.ended(event.outcome), event.outcome)
        else:
            view.noticed(board.note(event), event)

    limit: float | UnsetType = UNSET if timeout is None else timeout
    fleet = Fleet(next(iter(clients.values())), on_event=observed, on_exit="leave", timeout=limit)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(view.show, board)
            async with fleet:
                for batch_id in batch_ids:
                    ref = RunRef(wire_of(batch_id), (batch_id,))
                    fleet.watch(ref, client=clients[ref.dialect])
                await fleet.drain()
            group.cancel_scope.cancel()
    except asyncio.CancelledError:
        _say_how_to_go_on(board)  # below the view, which has drawn its last frame
        raise
    view.close(board)
    return max(EXIT_CODES[row.end] for row in board.rows.values() if row.end is not None)


def _say_how_to_go_on(board: BatchBoard) -> None:
    ids = [row.batch_id for row in board.open]
    named = " ".join(ids) if len(ids) <= SHOWN_IDS else "with the same ids"
    complain(
        f"interrupted; {counted(len(ids), 'batch', 'batches')} still open; to go on: asyncruns batch watch {named}"
    )
