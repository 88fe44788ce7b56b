"""The options of `asyncruns monitor`, and their help."""

from __future__ import annotations

import argparse
from typing import Final

from asyncruns.cli.arguments import a_count, add_server, add_version, seconds

_USAGE: Final = "asyncruns monitor [OPTIONS] [ID ...]"
MONITOR_EPILOG: Final = """\
A run is named by THREAD_ID/RUN_ID, or by both ids one after the other; a
response or a batch by its id. A file has one of these per line, or JSON as
`asyncruns list --json` prints it; empty lines and those that begin with "#"
are left out, and what names no run is reported with its number. Lines of
standard input are used as they come.

  asyncruns list --thread THREAD_ID --json | asyncruns monitor --file -
  asyncruns monitor --journal runs.db

Of a journal, the unfinished watches are shown, also those that begin later.
It is only read: they stay with the processes that own them. Prefer PGPASSWORD
or ~/.pgpass to a password in the URL, which other users of this machine see.

On a terminal there is a table: what needs its caller comes first, then what
failed, then what is active, the oldest first; the last line counts all
statuses. In a pipe, each new status is a line. It ends when all have ended.

keys:
  arrows, Page Up, Page Down, Home, End    select a run
  Enter    show it, as `asyncruns show` does; Esc returns
  c        cancel it, after a question; the owner in a journal is asked to
  /        show only runs with these words: ids, statuses, notes
  Tab      show only those that need their caller, failed, are active, ended
  Esc      show all
  p        pause the table; the runs are still watched
  q        quit; the runs go on at the server

The server and its key are taken from the options or the environment as for
`asyncruns watch`, or for message batches as for `asyncruns batch`.

exit codes, of several the highest; after q, of those that have ended:
  0  completed, or nothing to watch        5    incomplete
  1  failed, or the journal is unreadable  6    needs the caller
  2  a line named no run, or wrong usage   7    gave up (unreachable, gone)
  3  cancelled                             130  interrupted by Ctrl-C
  4  expired                               143  by SIGTERM
"""


def add_monitor(parser: argparse.ArgumentParser) -> None:
    """Add the options of `asyncruns monitor` to its parser."""
    parser.usage = _USAGE
    parser.add_argument("ids", metavar="ID", nargs="*", help="runs, responses and batches")
    parser.add_argument(
        "--file", action="append", default=[], metavar="FILE", help='also those in this file; "-" is standard input'
    )
    parser.add_argument(
        "--journal", metavar="JOURNAL", help="also those in the file of a SQLiteJournal, or at the URL of PostgreSQL"
    )
    parser.add_argument(
        "--rate", type=a_count, metavar="N", help="the most requests per second (default 100, less if refused)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="for each watch (default: a minute longer than the run can live)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per event, and no table")
    add_version(parser)
    add_server(parser)
