"""`asyncruns timeline`: make a picture of runs, from what was recorded of them, or from a journal.

It changes nothing but the file that it writes, and reads a journal without owning a watch of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Final

from asyncruns.cli.output import complain, counted, say_json
from asyncruns.cli.process import run
from asyncruns.cli.reap import journal_at
from asyncruns.cli.reap_rows import rows_of, waits_of
from asyncruns.cli.timeline_page import page_of
from asyncruns.errors import ConfigurationError
from asyncruns.lifecycle.records import WatchRecord, ref_of
from asyncruns.timeline import RunTimeline, read_timelines

_SQLITE: Final = b"SQLite format 3\0"


def main(options: argparse.Namespace) -> int:
    """Perform the command, and return its exit code."""
    if options.output is None and not options.json:
        raise ConfigurationError("pass -o FILE.html for the picture, or --json")
    if options.output not in (None, "-"):
        _check_output(Path(options.output), options.sources)
    return run(draw(options))


async def draw(options: argparse.Namespace) -> int:
    """Read the sources, and write what they hold as the options say; return the exit code.

    Raises:
        ConfigurationError: A source cannot be read, or the picture cannot be written.
        JournalError: A journal could not be read.
    """
    timelines = [timeline for source in options.sources for timeline in await timelines_in(source)]
    if options.json:
        for timeline in timelines:
            say_json(timeline.to_dict())
    if options.output is not None:
        title = ", ".join(_title(source) for source in options.sources)
        page = page_of(timelines, title, time.time()).encode()
        await asyncio.to_thread(_write, options.output, page)
        complain(f"{counted(len(timelines), 'run')} in {'the picture' if options.output == '-' else options.output}")
    return 0


async def timelines_in(source: str) -> list[RunTimeline]:
    """Return what a source holds.

    Raises:
        ConfigurationError: It cannot be read.
        JournalError: It is a journal, and could not be read.
    """
    if "://" not in source and (found := await asyncio.to_thread(_timelines_in_file, source)) is not None:
        return found
    async with journal_at(source) as journal:
        return [_timeline_of(record) for record in await journal.read()]


def _timelines_in_file(source: str) -> list[RunTimeline] | None:
    """Return what a file of timelines holds; None for a journal."""
    try:
        with open(source, "rb") as file:
            if file.seekable() and file.read(len(_SQLITE)) == _SQLITE:
                return None
        return read_timelines(source, complain)
    except OSError as error:
        raise ConfigurationError(f"{source} cannot be read: {error.strerror or error}") from error


def _timeline_of(record: WatchRecord) -> RunTimeline:
    (row,) = rows_of([record])
    outcome = record.outcome or {}
    finished = outcome.get("at")
    return RunTimeline(
        ref=ref_of(record),
        label=record.label,
        began_at=record.created_at or None,
        finished_at=finished if isinstance(finished, int | float) else None,
        outcome=str(outcome.get("outcome") or ""),
        reason=str(outcome.get("reason") or ""),
        status=str(outcome.get("status") or ""),
        waits_for="; ".join([*waits_of(row), *([f"watched by {row.owner}"] if row.owner else [])]),
    )


def _title(source: str) -> str:
    return "a journal in PostgreSQL" if "://" in source else Path(source).name  # its URL may hold a password


def _check_output(path: Path, sources: list[str]) -> None:
    """Check that no source is overwritten.

    Raises:
        ConfigurationError: One would be.
    """
    if path.exists() and any(Path(source).exists() and path.samefile(source) for source in sources):
        raise ConfigurationError(f"{path} is to be read: write the picture to another file")


def _write(where: str, page: bytes) -> None:
    if where == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(page)
        return
    try:
        descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(page)
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be written: {error.strerror or error}") from error
