#!/usr/bin/env python3
"""Kill and stop programs that watch runs with a journal in PostgreSQL, which is stopped at times, and print a table.

    python .ci/campaigns/kill_postgres.py [KILLS] [STOPS]

The suite does the same with a few. No call may begin twice, each outcome must be told, and nothing may be submitted
twice. A program that is stopped stays so for longer than its lease, and goes on beside the one that has taken its
watches. Exits with 1, and keeps the files of the campaign that failed, if that does not hold.
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
from postgres_server import PostgresServer


async def restart_sometimes(server: PostgresServer, chance: random.Random, restarts: list[float]) -> None:
    """Stop and start the server at times; note for how long it was away each time."""
    while True:
        await asyncio.sleep(chance.uniform(5.0, 25.0))
        began = time.monotonic()
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(chance.uniform(0.0, 1.5))
        await asyncio.to_thread(server.start)
        restarts.append(time.monotonic() - began)


async def campaign(server: PostgresServer, wire: str, chance: random.Random, restarts: list[float]) -> Counted:
    """Kill and stop some programs, on a new database."""
    dsn = await asyncio.to_thread(server.new_database)
    folder = Path(tempfile.mkdtemp(prefix="kill-postgres-"))
    restarting = asyncio.create_task(restart_sometimes(server, chance, restarts))
    try:
        counted = await kill_some(folder, wire, chance, runs=20, at_most=5, stops=1, dsn=dsn)
    finally:
        restarting.cancel()
        await asyncio.wait({restarting})
        await asyncio.to_thread(server.start)
    if not counted.is_well:
        sys.exit(f"{wire}: {counted}; the files are in {folder}")
    shutil.rmtree(folder)
    return counted


def main(kills: str = "50", stops: str = "10") -> None:
    seed = time.time_ns()
    print("The seed:", seed)
    chance, restarts, server = random.Random(seed), list[float](), PostgresServer()
    of_wire = {"threads": Counted(), "responses": Counted()}
    try:
        while sum(each.kills for each in of_wire.values()) < int(kills) or (
            sum(each.stops for each in of_wire.values()) < int(stops)
        ):
            for wire, total in of_wire.items():
                total.add(asyncio.run(campaign(server, wire, chance, restarts)))
                print(total, flush=True)
    finally:
        server.remove()
    print(f"PostgreSQL was stopped {len(restarts)} times, for {max(restarts, default=0.0):.1f} s at most\n")
    print("| |", " | ".join(of_wire), "|")
    print("|---|", "---|" * len(of_wire))
    for name in asdict(Counted()):
        print(f"| {name.replace('_', ' ')} |", " | ".join(str(getattr(total, name)) for total in of_wire.values()), "|")


if __name__ == "__main__":
    main(*sys.argv[1:])
