"""The options of `asyncruns reap`, and their help."""

from __future__ import annotations

import argparse
from typing import Final

from asyncruns.cli.arguments import add_server, an_age, seconds

USAGE_TEXT: Final = """\
asyncruns reap [OPTIONS] JOURNAL [ID ...]
       asyncruns reap [OPTIONS] --thread THREAD_ID ... [RUN_ID ...]"""
EPILOG: Final = """\
JOURNAL is the file of a SQLiteJournal, or the URL (postgresql://...) of a
PostgresJournal; other users of this machine can see a password in it: prefer
PGPASSWORD or ~/.pgpass. By default the unfinished watches are listed, each
with its age, the status of its run at the server, and what it waits for;
nothing is changed. An ID selects watches: the name that the list prints, or
any id in it. With --thread, the unfinished runs of threads are listed,
without a journal.

  asyncruns reap runs.db                    list
  asyncruns reap runs.db --cancel           show what would be cancelled
  asyncruns reap runs.db --cancel --yes     cancel it

A watch that a living process owns is shown, and left to that process. With
--cancel, that process is asked to cancel the run.

--resume runs no tools and submits nothing. While it watches a run, no other
process does. An outcome that it prints is delivered with that, and the
journal forgets it. A run that is not created, needs its caller, or was given
up stays in the journal, for the program to resume.

--cancel keeps the watches, so that the program is told of the end.

--forget leaves the runs as they are at the server. Calls and outputs that
were recorded are gone.

Without --base-url, the server and its key are taken from the environment, as
for `asyncruns watch`, or for message batches as for `asyncruns batch`.

exit codes: 0 done; 1 a status could not be read, or not everything could be
done; 2 wrong usage, or no journal; 130 interrupted by Ctrl-C (143 by
SIGTERM). With --resume, the highest of those that `asyncruns watch` has.
"""


def add_reap(parser: argparse.ArgumentParser) -> None:
    """Add the options of `asyncruns reap` to its parser."""
    parser.usage = USAGE_TEXT
    parser.add_argument("journal", metavar="JOURNAL", nargs="?", help="the journal, which must exist")
    parser.add_argument("ids", metavar="ID", nargs="*", help="only these")
    parser.add_argument(
        "--thread", action="append", default=[], metavar="THREAD_ID", help="the runs of this thread; repeatable"
    )
    parser.add_argument("--older-than", type=an_age, metavar="AGE", help="only older ones: 90s, 30m, 2h, 7d")
    parser.add_argument("--offline", action="store_true", help="send nothing; show what the journal has")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--resume", action="store_true", help="watch the runs to their ends, and print the outcomes")
    action.add_argument("--cancel", action="store_true", help="show which runs would be cancelled; with --yes, do it")
    action.add_argument("--forget", action="store_true", help="show which watches would be deleted; with --yes, do it")
    parser.add_argument("--yes", action="store_true", help="do what --cancel or --forget shows")
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="of --resume, for each watch (default: as `asyncruns watch`)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    add_server(parser)
    parser.add_argument(
        "--version", choices=("v2", "v1", "none"), default="v2", help="of the header OpenAI-Beta (default %(default)s)"
    )
