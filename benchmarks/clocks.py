"""Servers with inconsistent times: how late the ends of runs are seen, compared to a server with correct times.

    python benchmarks/clocks.py
    python benchmarks/clocks.py --as before      # with PYTHONPATH set to an older version

Each trial has 60 runs that begin one after the other and are watched from then on, at a server with one kind of wrong
times: by a fleet, or by as many single watches; as runs of threads, or as background responses. The runs last 5 s,
120 s, or a median of 4 s with a wide spread. Everything is in virtual time, so the delays come only from the pauses. A
delay is the time from the end of a run to the outcome of its watch. The figure is the mean delay divided by that at the
same server with correct times. Exits with 1 if it is more than 1.5, or if a watch ends before its run. Writes
`results/clocks.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from asyncruns import Client, Fleet, RunRef
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.testing import VirtualTimeLoop

HERE: Final = Path(__file__).parent
EPOCH: Final = 1_700_000_000.25
LATENCY_S: Final = 0.02
RUNS: Final = 60
APART_S: Final = 0.31
LIFE_S: Final = 600.0
GOAL: Final = 1.5
MINUTE, HOUR, YEAR = 60.0, 3600.0, 31_536_000.0

Figures = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a server knows when it answers; times are in epoch seconds."""

    born: float  # when the run was created
    now: float
    number: int  # of the run
    chance: random.Random  # shared by all answers, so that each draws another value


Told = Callable[[Asked], object]


@dataclass(frozen=True)
class Times:
    """The times in a server's answers. If `date` returns None, there is no `Date` header."""

    created: Told = lambda asked: int(asked.born)
    expires: Told = lambda asked: int(asked.born + LIFE_S)
    date: Callable[[Asked], float | None] = lambda asked: asked.now


def off(seconds: float) -> Told:
    return lambda asked: int(asked.born + seconds)


def expires_off(seconds: float) -> Told:
    return off(LIFE_S + seconds)


def iso(seconds: float = 0.0, zone: str = "Z") -> Told:
    return lambda asked: datetime.fromtimestamp(asked.born + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + zone


def of_run(asked: Asked, within: float) -> int:
    return int(asked.born + random.Random(asked.number).uniform(-within, within))


def nothing(asked: Asked) -> None:
    return None


RIGHT: Final = "right"
TIMES: Final[dict[str, Times]] = {
    RIGHT: Times(),
    "created_at constant": Times(created=lambda asked: 1_600_000_000),
    "created_at 3 s ago": Times(created=off(-3)),
    "created_at 30 s ago": Times(created=off(-30)),
    "created_at 5 min ago": Times(created=off(-5 * MINUTE)),
    "created_at 1 h ago": Times(created=off(-HOUR)),
    "created_at 3 years ago": Times(created=off(-3 * YEAR)),
    "created_at 8 h behind": Times(created=off(-8 * HOUR)),
    "created_at 5 min ahead": Times(created=off(5 * MINUTE)),
    "created_at 8 h ahead": Times(created=off(8 * HOUR)),
    "created_at random, of a run": Times(created=lambda asked: of_run(asked, YEAR)),
    "created_at random by 1 min, of a run": Times(created=lambda asked: of_run(asked, MINUTE)),
    "created_at random, each time": Times(created=lambda asked: int(asked.now - asked.chance.uniform(0, YEAR))),
    "created_at in milliseconds": Times(created=lambda asked: int(asked.born * 1000)),
    "created_at in ms, 8 h behind": Times(created=lambda asked: int((asked.born - 8 * HOUR) * 1000)),
    "created_at ISO": Times(created=iso()),
    "created_at ISO, naive local time": Times(created=iso(-8 * HOUR, "")),
    "created_at text of digits": Times(created=lambda asked: str(int(asked.born - HOUR))),
    "created_at null": Times(created=nothing),
    "created_at 0": Times(created=lambda asked: 0),
    "created_at always now": Times(created=lambda asked: int(asked.now)),
    "created_at always 1 h ago": Times(created=lambda asked: int(asked.now - HOUR)),
    "Date missing": Times(date=lambda asked: None),
    "Date constant": Times(date=lambda asked: EPOCH),
    "Date constant, years old": Times(date=lambda asked: EPOCH - 3 * YEAR),
    "Date 5 h ahead": Times(date=lambda asked: asked.now + 5 * HOUR),
    "Date 5 h behind": Times(date=lambda asked: asked.now - 5 * HOUR),
    "Date 11 min ahead": Times(date=lambda asked: asked.now + 11 * MINUTE),
    "Date random within 2 h": Times(date=lambda asked: asked.now + asked.chance.uniform(-2 * HOUR, 2 * HOUR)),
    "Date of three machines": Times(date=lambda asked: asked.now + asked.chance.choice((-HOUR, 0.0, HOUR))),
    "expires_at past": Times(expires=lambda asked: int(asked.born - 10)),
    "expires_at 1": Times(expires=lambda asked: 1),
    "expires_at always a moment ago": Times(expires=lambda asked: int(asked.now - 2)),
    "expires_at 8 h behind": Times(expires=expires_off(-8 * HOUR)),
    "expires_at 8 h ahead": Times(expires=expires_off(8 * HOUR)),
    "expires_at null": Times(expires=nothing),
    "expires_at in ms, 8 h behind": Times(expires=lambda asked: int((asked.born + LIFE_S - 8 * HOUR) * 1000)),
    "expires_at ISO, naive local time": Times(expires=iso(LIFE_S - 8 * HOUR, "")),
    "expires_at random, each time": Times(
        expires=lambda asked: int(asked.now + asked.chance.uniform(-2 * HOUR, 2 * HOUR))
    ),
    "both 8 h behind": Times(created=off(-8 * HOUR), expires=expires_off(-8 * HOUR)),
    "both 8 h ahead": Times(created=off(8 * HOUR), expires=expires_off(8 * HOUR)),
    "both 8 h behind, Date missing": Times(
        created=off(-8 * HOUR), expires=expires_off(-8 * HOUR), date=lambda asked: None
    ),
    "created_at constant, expires_at past": Times(
        created=lambda asked: 1_600_000_000, expires=lambda asked: int(asked.born - 10)
    ),
    "really an hour old": Times(created=off(-HOUR), expires=off(2 * HOUR)),
    "really an hour old, past its expiry": Times(created=off(-HOUR), expires=expires_off(-HOUR)),
    "really of any age to an hour": Times(created=lambda asked: int(asked.born - asked.number * MINUTE)),
}
LASTING: Final[dict[str, Callable[[random.Random], float]]] = {
    "5 s": lambda chance: 5.0,
    "120 s": lambda chance: 120.0,
    "about 4 s": lambda chance: chance.lognormvariate(1.4, 0.8),
}


class Server(Transport):
    """A server with these times, whose runs begin when they are first polled and end by themselves."""

    def __init__(self, times: Times, wire: str, lasts: list[float]) -> None:
        self.born: dict[int, float] = {}  # by the loop's clock
        self.polls = 0
        self.more: dict[str, object] = {}  # in each body
        self._times, self._wire, self._lasts = times, wire, lasts
        self._chance = random.Random(1)

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(LATENCY_S)
        self.polls += 1
        name = request.path.split("/")[4 if self._wire == "threads" else 2]
        number, now = int(name.rpartition("_")[2]), asyncio.get_running_loop().time()
        born = self.born.setdefault(number, now)
        asked = Asked(EPOCH + born, EPOCH + now, number, self._chance)
        body = {
            "id": name,
            "model": "m",
            "created_at": self._times.created(asked),
            "status": "completed" if now >= born + self._lasts[number] else "in_progress",
        }
        if self._wire == "threads":
            body |= {"thread_id": "t", "assistant_id": "a", "expires_at": self._times.expires(asked)}
        else:
            body |= {"object": "response", "output": []}
        body |= self.more
        date = self._times.date(asked)
        return Response(200, {} if date is None else {"date": formatdate(date, usegmt=True)}, json.dumps(body).encode())

    async def aclose(self) -> None:
        pass


def ref(wire: str, number: int) -> RunRef:
    return RunRef("thread.run", ("t", f"run_{number}")) if wire == "threads" else RunRef("response", (f"r_{number}",))


async def watched(shell: str, wire: str, server: Server, runs: int) -> dict[int, tuple[str, float]]:
    """Watch the runs until they end; return the outcome of each watch, and its time."""
    loop, ends = asyncio.get_running_loop(), dict[int, tuple[str, float]]()

    def note(outcome: Any) -> None:
        ends[int(outcome.ref.ids[-1].rpartition("_")[2])] = type(outcome).__name__, loop.time()

    client = Client(transport=server)
    if shell == "fleet":
        async with Fleet(client, on_outcome=note) as fleet:
            for number in range(runs):
                fleet.watch(ref(wire, number))
                await asyncio.sleep(APART_S)
    else:

        async def one(number: int) -> None:
            await asyncio.sleep(number * APART_S)
            note(await client.watch(ref(wire, number)))

        await asyncio.gather(*map(one, range(runs)))
    return ends


def trial(times: Times, shell: str, wire: str, lasting: str, runs: int = RUNS) -> Figures:
    """Return the mean delay, the polls per run, and the number of watches that ended before their runs."""
    random.seed(1)  # single watches spread their polls
    chance = random.Random(lasting)
    lasts = [LASTING[lasting](chance) for _ in range(runs)]
    server = Server(times, wire, lasts)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        ends = runner.run(watched(shell, wire, server, runs))
    delays = [ended - server.born[number] - lasts[number] for number, (_, ended) in ends.items()]
    wrong = sum(kind != "Completed" for kind, _ in ends.values())
    return {"delay_s": statistics.fmean(delays), "polls": server.polls / runs, "wrong_ends": wrong}


def measure(shell: str, wire: str, lasting: str) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for name, times in TIMES.items():
        if wire == "responses" and "expires_at" in name:  # a response has no `expires_at`
            continue
        one = found[name] = trial(times, shell, wire, lasting)
        one["ratio"] = one["delay_s"] / found[RIGHT]["delay_s"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--as", dest="label", default="after", help="name for the figures: before, or after")
    parser.add_argument("--lasting", choices=LASTING, action="append", help="measure only these runs and write nothing")
    options = parser.parse_args()
    trials = [(lasting, shell, wire) for lasting in options.lasting or LASTING for shell in ("fleet", "watch")
              for wire in ("threads", "responses")]  # fmt: skip
    results, missed = {}, 0
    for lasting, shell, wire in trials:
        found = results[f"{shell}, {wire}, {lasting}"] = measure(shell, wire, lasting)
        print(f"\n{shell}, {wire}, runs of {lasting}: delay, ratio, polls, wrong ends")
        for name, one in found.items():
            bad = one["ratio"] > GOAL or one["wrong_ends"]
            missed += bool(bad)
            print(
                f"{name:<40} {one['delay_s']:>8.2f} s {one['ratio']:>7.2f} {one['polls']:>7.1f} {one['wrong_ends']:>4}"
                f"{'  missed' if bad else ''}",
                flush=True,
            )
    if not options.lasting:
        write(results, options.label, missed)
    print(f"\n{sum(map(len, results.values()))} trials, {missed} missed")
    return 1 if missed else 0


def write(results: dict[str, dict[str, Figures]], label: str, missed: int) -> None:
    path = HERE / "results" / "clocks.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rounded = {
        name: {times: {key: round(value, 3) for key, value in one.items()} for times, one in found.items()}
        for name, found in results.items()
    }
    worst = max(one["ratio"] for found in results.values() for one in found.values())
    report |= {
        "what": "mean delay from the end of a run to its outcome, over that at a server whose times are right",
        "goal": f"at most {GOAL}, and no watch that ends before its run",
        "python": platform.python_version(),
        "version": version("asyncruns"),
        label: {
            "missed": missed,
            "worst": round(worst, 2),
            "wrong_ends": sum(one["wrong_ends"] for found in results.values() for one in found.values()),
            "trials": rounded,
        },
    }
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
