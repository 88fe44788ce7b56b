"""`asyncruns batch results`: print the results of a batch, or write them to a file, one JSON object per line.

They are streamed, so memory stays the same for any number of them. A file appears when all of them are in it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anyio.to_thread

from asyncruns.cli.batch_servers import batches_of, connected, wire_of
from asyncruns.cli.output import complain, counted, on_one_line, say_json
from asyncruns.dialects.result_lines import BatchResult
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import Snapshot

_WRITTEN_AT_ONCE: Final = 1000  # results: each write is a call in a thread

KINDS: Final = ("answered", "failed", "expired", "cancelled")


async def results_command(options: argparse.Namespace) -> int:
    """Print or write the results; return 0 if there is one for each request of the batch, and 1 otherwise.

    Raises:
        InvalidRequestError: The batch has not ended, or the file cannot be written.
    """
    batch_id, wire = options.id, wire_of(options.id)
    async with connected(options, {wire}) as clients:
        batches = batches_of(clients[wire], wire)
        batch = await batches.retrieve(batch_id)
        snapshot: Snapshot[Any] = batches.alone.dialect.snapshot(batch)
        if not snapshot.phase.is_terminal:
            raise InvalidRequestError(
                f"{batch_id} has not ended: it is {snapshot.status}. To wait: asyncruns batch watch {batch_id}"
            )
        results = batches.results(batch)
        if options.output is None:
            kinds = await _passed_on(results, say_json)
        else:
            kinds = await _written(results, options.output)
    return _report(batch_id, snapshot, kinds)


async def _passed_on(results: AsyncIterator[BatchResult], take: Callable[[dict[str, Any]], None]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    async for result in results:
        kinds[result.kind] += 1
        take(result.to_dict())
    return kinds


async def _written(results: AsyncIterator[BatchResult], path: str) -> Counter[str]:
    """Write results beside the file, and put them in its place at the end."""
    part, kinds, lines = f"{path}.part", Counter[str](), list[str]()
    try:
        file = await anyio.open_file(part, "w", encoding="utf-8", newline="\n")
        try:
            async for result in results:
                kinds[result.kind] += 1
                lines.append(result.to_json(indent=None) + "\n")
                if len(lines) >= _WRITTEN_AT_ONCE:
                    await file.write("".join(lines))
                    lines.clear()
            await file.write("".join(lines))
        finally:
            with anyio.CancelScope(shield=True):
                await file.aclose()
        await anyio.to_thread.run_sync(os.replace, part, path)
    except OSError as error:
        raise InvalidRequestError(f"{on_one_line(path)} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)
    return kinds


def _report(batch_id: str, snapshot: Snapshot[Any], kinds: Counter[str]) -> int:
    total = snapshot.counts.total if snapshot.counts else kinds.total()
    missing = max(total - kinds.total(), 0)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    complain(f"{batch_id} is {snapshot.status}: {counted(kinds.total(), 'result')}{f' ({counts})' if counts else ''}")
    if missing:
        complain(f"{missing} of {counted(total, 'request')} have no result")
    return 1 if missing else 0
