"""The options of `asyncruns timeline`, and their help."""

from __future__ import annotations

import argparse
from typing import Final

TIMELINE_USAGE: Final = "asyncruns timeline [-o FILE.html | --json] SOURCE [SOURCE ...]"
TIMELINE_EPILOG: Final = """\
A SOURCE is a file that `fleet.record(path)` or `TimelineFile(path)` writes,
also while it is being written; or a journal: the file of a SQLiteJournal, or
the URL (postgresql://...) of a PostgresJournal. A journal has no statuses and
polls: its unfinished watches are shown with their ages and what they wait for.

  asyncruns timeline runs.jsonl -o runs.html
  asyncruns timeline runs.db -o - > left.html

The picture is one file that a browser shows without a network: a row for each
run from its creation to its end, with statuses as colours, calls as bars,
polls as ticks, and how late the end was noticed; how many runs were in which
status at a time; and how long runs took, by assistant.

exit codes: 0 done; 1 a journal or standard output failed; 2 wrong usage, or a
file that cannot be read or written. A line that is malformed is reported, and
the others are shown.
"""


def add_timeline(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `asyncruns timeline`."""
    parser.usage = TIMELINE_USAGE
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="a file of timelines, or a journal")
    parser.add_argument("-o", "--output", metavar="FILE.html", help="where to write the picture; - is standard output")
    parser.add_argument("--json", action="store_true", help="print the timeline of each run as a JSON object on a line")
