#!/usr/bin/env python3
"""Kill programs that watch runs with a journal, on both wires, and print what became of the runs.

    python .ci/campaigns/kill_fleet.py [SECONDS]

The suite does the same with a few kills. No call may begin twice, each outcome must be told, and nothing may be
submitted twice. Exits with 1, and keeps the files of the campaign that failed, if that does not hold.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "journal"))

from killed_fleet import Counted, kill_some


def main(seconds: float = 600.0) -> None:
    seed = time.time_ns()
    print("The seed:", seed)
    chance, end = random.Random(seed), time.monotonic() + seconds
    of_wire = {"threads": Counted(), "responses": Counted()}
    while time.monotonic() < end:
        for wire, total in of_wire.items():
            folder = Path(tempfile.mkdtemp(prefix="kill-fleet-"))
            counted = asyncio.run(kill_some(folder, wire, chance))
            total.add(counted)
            if not counted.is_well:
                sys.exit(f"{wire}: {counted}; the files are in {folder}")
            shutil.rmtree(folder)
    print("| |", " | ".join(of_wire), "|")
    print("|---|", "---|" * len(of_wire))
    for name in asdict(Counted()):
        print(f"| {name.replace('_', ' ')} |", " | ".join(str(getattr(total, name)) for total in of_wire.values()), "|")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
