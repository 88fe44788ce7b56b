"""`asyncruns batch list`: print the newest batches, one per line."""

from __future__ import annotations

import argparse
import datetime
from typing import Any, Final

from asyncruns.cli.batch_board import progress_text
from asyncruns.cli.batch_servers import batches_of, connected
from asyncruns.cli.output import on_one_line, say, say_json
from asyncruns.lifecycle import Snapshot
from asyncruns.wire.names import BATCH, MESSAGE_BATCH

_LONGEST_PAGE: Final = 100


async def list_command(options: argparse.Namespace) -> int:
    """Print the batches and return 0."""
    wire = MESSAGE_BATCH if options.anthropic else BATCH
    async with connected(options, {wire}) as clients:
        batches = batches_of(clients[wire], wire)
        left = options.limit
        async for batch in batches.list(limit=min(left, _LONGEST_PAGE)):
            if options.json:
                say_json(batch.to_dict())
            else:
                say(line_of(batches.alone.dialect.snapshot(batch)))
            left -= 1
            if not left:
                break
    return 0


def line_of(snapshot: Snapshot[Any]) -> str:
    """Return what is printed of a batch: its id, when it was created, its status, and its progress."""
    created = ""
    if snapshot.created_at is not None:
        created = f"{datetime.datetime.fromtimestamp(snapshot.created_at).astimezone():%Y-%m-%d %H:%M:%S}"
    counts = "" if snapshot.counts is None else progress_text(snapshot.counts)
    batch_id, status = on_one_line(snapshot.resource.id), on_one_line(snapshot.status)
    return f"{batch_id}  {created:<19}  {status:<11}  {counts}".rstrip()
