#!/usr/bin/env python3
"""Let programs with a journal die at random awaits, with a server in trouble, and print what became of their runs.

    python .ci/campaigns/deaths.py [SECONDS]

The suite does the same at every await once, and with some hundred seeds. Time is virtual, and the journal in memory. No
call may begin twice, no output that was recorded may be lost, each outcome must be told, and nothing may be submitted
twice. Raises an AssertionError, after the seed, if that does not hold.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "journal"))

from worlds import ShellName, WireName, lives

from asyncruns.testing import Fault, VirtualTimeLoop


def troubles_of(wire: WireName, chance: random.Random) -> list[Fault]:
    creates = ["create_run", "create_message"] if wire == "threads" else ["create_response"]
    lost: list[dict[str, Any]] = [{"drop": True, "acts": True}, {"status": 502, "acts": True}, {"status": 503}]
    faults = [
        Fault(on=on, skip=chance.randrange(4), **chance.choice(lost))  # type: ignore[arg-type]
        for on in (*creates, "submit", "submit")
        if chance.random() < 0.5
    ]
    if wire == "threads":
        faults.append(Fault(on="poll", stale=1.0, skip=chance.randrange(6), times=chance.randrange(1, 4)))
    faults.append(Fault(on="poll", status=500, every=3, times=4))
    return faults


async def history(wire: WireName, shell: ShellName, chance: random.Random) -> Counter[str]:
    deaths = [chance.randrange(1, 70) for _ in range(chance.randrange(1, 5))]
    world, processes = await lives(wire, shell, *deaths, faults=troubles_of(wire, chance))
    world.check()
    outcomes = [outcome for told in world.told.values() for outcome in told]
    return Counter(
        histories=1,
        deaths=sum(process.died.done() for process in processes),
        runs=len(world.told),
        **{"calls begun": sum(world.began.values()), "begun twice": sum(times > 1 for times in world.began.values())},
        **{"outputs recorded": len(world.outputs), "outcomes told": len(outcomes)},
        **{"submits accepted": sum(seen.operation == "submit" and seen.acted for seen in world.transport.requests)},
    )


def main(seconds: float = 300.0) -> None:
    seed, end = time.time_ns(), time.monotonic() + seconds
    kinds = [*itertools.product(get_args(WireName), get_args(ShellName))]
    totals: dict[tuple[str, str], Counter[str]] = {kind: Counter() for kind in kinds}
    while time.monotonic() < end:
        for wire, shell in kinds:
            seed += 1
            try:
                with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                    totals[wire, shell] += runner.run(history(wire, shell, random.Random(seed)))
            except AssertionError:
                print("Seed", seed, "of", wire, shell)
                raise
    rows = dict.fromkeys(name for total in totals.values() for name in total)
    print("| |", " | ".join(f"{wire}, {shell}" for wire, shell in kinds), "| all |")
    print("|---|", "---|" * (len(kinds) + 1))
    for name in [*rows, "begun twice"] if "begun twice" not in rows else rows:
        figures = [totals[kind][name] for kind in kinds]
        print(f"| {name} |", " | ".join(str(figure) for figure in figures), f"| {sum(figures)} |")


if __name__ == "__main__":
    main(*(float(seconds) for seconds in sys.argv[1:2]))
