"""Refusals (429) that do or do not depend on the request rate: a fleet compared with single watches, in virtual time.

    python benchmarks/fleet_refusals.py                  # a minute or two
    python benchmarks/fleet_refusals.py --label before   # with an older asyncruns: adds its figures to the file

By chance: 200 runs of 30 s, at a server that refuses a random share of all requests. Single watches have no budget and
poll each run every second; fleets have 100 requests per second (the default), 50, or no limit. With 50 requests per
second a run can be polled only once in 4 s even without refusals, so the row of 0 % shows the least possible delay.
Goal: no run is given up, and the mean delay is at most twice that of single watches; with 50 requests per second, plus
the difference between the two without refusals.

By rate: 200 runs of 235 to 245 s, polled every second if allowed, at a token bucket that holds the tokens of one
second. The lengths differ, because with equal lengths the delay would only show how the length fits the duration of a
round of polls: 240 s are 24 rounds of 200 polls at 20 per second. Goal: at least 95 % of the tokens are used, and less
than 6 % of all requests are refused.

Writes `results/fleet_refusals.json`; exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

from asyncruns import Cadence, Client, Completed, Fleet
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.testing import VirtualTimeLoop

PATH: Final = Path(__file__).parent / "results" / "fleet_refusals.json"
EPOCH: Final = 1_750_000_000
LATENCY_S: Final = 0.02
REFUSED: Final = b'{"error": {"message": "Rate limit reached"}}'
CHANCES: Final = [(0.0, 0.0), *((share, after) for share in (0.07, 0.15, 0.3) for after in (0.0, 1.0, 5.0))]
BUDGETS: Final[dict[str, float | None]] = {"fleet, 50/s": 50.0, "fleet, 100/s": 100.0, "fleet, no limit": None}
SINGLE: Final = "single watches"
BUCKETS: Final = (20.0, 40.0, 80.0)
SEEDS: Final = (1, 2)

Figures = dict[str, Any]


class Bucket:
    """A token bucket that holds the tokens of one second and is refilled evenly."""

    def __init__(self, per_second: float) -> None:
        self.per_second = self.tokens = per_second
        self._at = 0.0

    def refuses(self, now: float) -> bool:
        self.tokens = min(self.per_second, self.tokens + (now - self._at) * self.per_second)
        self._at = now
        if self.tokens < 1.0:
            return True
        self.tokens -= 1.0
        return False


class Server(Transport):
    """A server whose runs begin when they are first polled."""

    def __init__(self, lasts: Callable[[], float], refuses: Callable[[float], bool], retry_after: float | None) -> None:
        self._lasts = lasts
        self.refuses = refuses
        self.headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
        self.born: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.sent = self.refused = 0

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(LATENCY_S)
        now = asyncio.get_running_loop().time()
        self.sent += 1
        if self.refuses(now):
            self.refused += 1
            return Response(429, self.headers, REFUSED)
        run_id = request.path.split("/")[4]
        if run_id not in self.born:
            self.born[run_id], self.ends[run_id] = now, now + self._lasts()
        born = self.born[run_id]
        run = {"id": run_id, "thread_id": "t", "assistant_id": "a", "model": "m", "created_at": int(EPOCH + born)}
        run["expires_at"] = int(EPOCH + born) + 600
        run["status"] = "completed" if now >= self.ends[run_id] else "in_progress"
        return Response(200, {"date": formatdate(EPOCH + now, usegmt=True)}, json.dumps(run).encode())

    async def aclose(self) -> None:
        pass


async def watch(
    server: Server, runs: int, per_second: float | None, cadence: Cadence | None, *, single: bool
) -> Figures:
    client, loop = Client(transport=server), asyncio.get_running_loop()
    delays: list[float] = []
    began, given_up = loop.time(), 0

    def note(outcome: Any) -> None:
        nonlocal given_up
        given_up += not isinstance(outcome, Completed)
        delays.append(loop.time() - server.ends.get(outcome.ref.ids[1], began))

    if single:
        watches = [client.watch(thread_id="t", run_id=f"r{number}") for number in range(runs)]
        for ended in asyncio.as_completed(watches):
            note(await ended)
    else:
        async with Fleet(client, requests_per_second=per_second, cadence=cadence) as fleet:
            for number in range(runs):
                fleet.watch(thread_id="t", run_id=f"r{number}")
            async for outcome in fleet:
                note(outcome)
    return {
        "delay_s": statistics.fmean(delays),
        "given_up": given_up,
        "refused": server.refused / server.sent,
        "taken_per_s": (server.sent - server.refused) / (loop.time() - began),
    }


def measured(make: Callable[[int], Server], runs: int, per_second: float | None, **options: Any) -> Figures:
    """Return the means over the seeds."""
    found = []
    for seed in SEEDS:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            found.append(runner.run(watch(make(seed), runs, per_second, **options)))
    return {key: round(statistics.fmean(one[key] for one in found), 4) for key in found[0]}


def by_chance(share: float, retry_after: float) -> dict[str, Figures]:
    def make(seed: int) -> Server:
        draw = random.Random(seed)
        return Server(lambda: 30.0, lambda now: draw.random() < share, retry_after)

    options: Figures = {"cadence": None}
    found = {SINGLE: measured(make, 200, None, single=True, **options)}
    for name, per_second in BUDGETS.items():
        found[name] = measured(make, 200, per_second, single=False, **options)
    return found


def by_rate(per_second: float) -> dict[str, Figures]:
    def make(seed: int) -> Server:
        bucket, draw = Bucket(per_second), random.Random(seed)
        return Server(lambda: draw.uniform(235.0, 245.0), bucket.refuses, None)

    limits = {"fleet, 200/s": 200.0, "fleet, no limit": None}
    return {
        name: measured(make, 200, limit, single=False, cadence=Cadence.fixed(1.0)) for name, limit in limits.items()
    }


def show(chances: dict[str, dict[str, Figures]], rates: dict[str, dict[str, Figures]]) -> bool:
    """Print both tables; return whether the goals are met."""
    met = True
    print("mean delay in s (given up of 200)")
    names = [SINGLE, *BUDGETS]
    print(f"{'':<26}", *(f"{name:>18}" for name in names))
    none = next(iter(chances.values()))
    for key, found in chances.items():
        print(f"{key:<26}", *(f"{found[name]['delay_s']:>10.2f} ({found[name]['given_up']:>5.1f})" for name in names))
        for name in names[1:]:
            more = max(none[name]["delay_s"] - none[SINGLE]["delay_s"], 0.0) if name == "fleet, 50/s" else 0.0
            met &= found[name]["given_up"] == 0 and found[name]["delay_s"] <= 2.0 * found[SINGLE]["delay_s"] + more
    print("\ntoken buckets")
    for key, found in rates.items():
        for name, one in found.items():
            used = one["taken_per_s"] / float(key)
            print(f"{key:>5}/s {name:<16} used {used:6.1%}  refused {one['refused']:6.2%}  late {one['delay_s']:.2f} s")
            met &= used >= 0.95 and one["refused"] < 0.06
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", default="after", help="name for the figures in the results")
    label = parser.parse_args().label
    chances = {f"{share:.0%}, Retry-After: {after:g}": by_chance(share, after) for share, after in CHANCES}
    rates = {f"{per_second:g}": by_rate(per_second) for per_second in BUCKETS}
    met = show(chances, rates)
    report = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    report |= {
        "what": "429s by chance: 200 runs of 30 s; token buckets: 200 runs of 235 to 245 s polled each second where "
        f"allowed; means over {len(SEEDS)} seeds, virtual time",
        label: {"by chance": chances, "token buckets": rates},
    }
    PATH.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print("met" if met else "MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
