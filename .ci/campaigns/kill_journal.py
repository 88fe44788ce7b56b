#!/usr/bin/env python3
"""Kill processes that write to a journal, four at a time, and check what a new owner finds.

    python .ci/campaigns/kill_journal.py [SECONDS]

The suite does the same with 100 kills. What a method of the journal had returned must be there, no watch of a living
process may be claimed, and the database must be sound. Exits with a traceback, and keeps the file, if that fails.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "journal"))

from writers import kill_some


def main(seconds: float = 600.0) -> None:
    path = Path(tempfile.mkdtemp(prefix="kill-journal-")) / "journal.db"
    print("The journal:", path)
    seed = time.time_ns()
    print("The seed:", seed)
    chance, end, rounds, steps = random.Random(seed), time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        steps += kill_some(path, f"w{rounds}", chance)
        rounds += 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    print(f"{4 * rounds} kills, {steps} steps that had returned, none lost")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
