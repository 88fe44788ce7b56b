"""What a journal costs a fleet of 10,000 runs: CPU time of the process and mean delay, beside a fleet without one.

    python benchmarks/journal_fleet.py [--runs 10000] [--rate 300] [--lasts 150]

The server is a process of its own, on loopback, and so is each fleet; the one with a journal and the one without run at
the same time, each with its server, so that whatever else the machine does slows both. The runs last 40 to 100 % of
`--lasts` seconds and are polled several times each, within a budget of `--rate` requests a second; once without tools,
and once with one round of a tool call each. The delay of an outcome is the time from the run's end at the server to its
arrival. CPU time is that of all threads of the fleet's process, from before its runs are added until all outcomes have
come. `restart` is a fleet that finds all runs unfinished in its journal: the seconds and requests until it had polled
as many runs, and what it wrote meanwhile. Writes `results/journal_fleet.json` and `results/journal_fleet.png`; exits
with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from asyncruns import Client, Fleet, RunRef, SQLiteJournal, Toolset
from asyncruns.journal.database import Database

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
GOAL: Final = 1.15  # times the CPU time and the mean delay without a journal
TIMEOUT_S: Final = 900.0
Figures = dict[str, Any]


def refs(count: int) -> list[RunRef]:
    return [RunRef("thread.run", (f"thread_{n:024}", f"run_{n:024}")) for n in range(count)]


def make_tools() -> Toolset:
    tools = Toolset()

    @tools.tool
    async def look_up(key: str) -> str:
        """Look something up."""
        return f"{key}: " + "x" * 200

    return tools


def report_of(base_url: str) -> Any:
    with urlopen(f"{base_url}/report") as answer:
        return json.load(answer)


class Written:
    """Counts the transactions and statements of all journals."""

    def __init__(self) -> None:
        self.transactions = self.statements = 0
        run = Database.run

        def counted(database: Database, statements: Any) -> Any:
            self.transactions += 1
            self.statements += len(statements)
            return run(database, statements)

        vars(self)["run"] = run
        setattr(Database, "run", counted)  # noqa: B010


async def watch(base_url: str, count: int, rate: float, path: str) -> Figures:
    """Watch all runs to their ends, with a journal at this path if it is not empty."""
    written = Written()
    arrived: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(SQLiteJournal(path)) if path else None
        client = await stack.enter_async_context(Client(f"{base_url}/v1", api_key="none"))
        cpu, began = time.process_time(), time.monotonic()
        fleet = Fleet(client, journal=journal, tools=make_tools(), requests_per_second=rate)
        async with fleet:
            await fleet.add_many(refs(count))
            added_s = time.monotonic() - began
            async for outcome in fleet:
                arrived[outcome.ref.ids[-1]] = time.monotonic()
        cpu_s = time.process_time() - cpu
    report = await asyncio.to_thread(report_of, base_url)
    delays = [arrived[ref.ids[-1]] - end for ref, end in zip(refs(count), report["ends"], strict=True)]
    requests = report["polls"] + report["submits"]
    return {
        "cpu_s": cpu_s,
        "cpu_us_per_run": 1e6 * cpu_s / count,
        "delay_mean_s": sum(delays) / count,
        "added_s": added_s,
        "requests_per_run": requests / count,
        "submitted_twice": report["submitted_twice"],
        "transactions": written.transactions,
        "statements_per_run": written.statements / count,
        "took_s": time.monotonic() - began,
    }


async def leave(base_url: str, count: int, path: str) -> None:
    """Leave all runs unfinished in a journal."""
    async with (
        SQLiteJournal(path) as journal,
        Client(f"{base_url}/v1", api_key="none") as client,
        Fleet(client, journal=journal, on_exit="leave", requests_per_second=1.0) as fleet,
    ):
        await fleet.add_many(refs(count))


async def restart(base_url: str, count: int, rate: float | None, path: str) -> Figures:
    """Take up all runs; stop when each was polled once."""
    await leave(base_url, count, path)
    before = (await asyncio.to_thread(report_of, base_url))["polls"]
    written = Written()
    async with SQLiteJournal(path) as journal, Client(f"{base_url}/v1", api_key="none") as client:
        cpu, began = time.process_time(), time.monotonic()
        fleet = Fleet(client, journal=journal, on_exit="leave", tools=make_tools(), requests_per_second=rate)
        async with fleet:
            watches = await fleet.resume()
            resumed_s = time.monotonic() - began
            at_resume = written.transactions
            while fleet.statistics().polls < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            polled_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
            writes = written.transactions - at_resume
    polls = (await asyncio.to_thread(report_of, base_url))["polls"] - before
    assert len(watches) == count
    return {"resumed_s": resumed_s, "polled_s": polled_s, "cpu_s": cpu_s, "requests": polls, "writes_of_polls": writes}


def measured(what: str, args: argparse.Namespace, *, tools: bool, journal: bool) -> Figures:
    """Run one fleet against a fresh server, each in its process."""
    server = [sys.executable, str(HERE / "journal_server.py"), "--runs", str(args.runs), "--lasts", str(args.lasts)]
    server += ["--tools"] if tools else []
    with (
        tempfile.TemporaryDirectory(dir=args.folder) as folder,
        subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as serving,
    ):
        assert serving.stdin
        assert serving.stdout
        path = str(Path(folder) / "journal.db") if journal else ""
        base_url = f"http://127.0.0.1:{serving.stdout.readline().strip()}"
        command = [sys.executable, __file__, "--child", what, base_url, path, "--runs", str(args.runs)]
        command += ["--rate", str(args.rate)]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT_S)
        finally:
            serving.stdin.close()
    figures: Figures = json.loads(done.stdout)
    return figures


def beside(with_journal: Figures, without: Figures) -> Figures:
    """Return how many times a fleet with a journal costs what one without does."""
    return {key: with_journal[key] / without[key] for key in ("cpu_s", "delay_mean_s")}


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def measure_all(args: argparse.Namespace) -> Figures:
    results: Figures = {}
    for name, tools in (("no tools", False), ("one round", True)):
        with ThreadPoolExecutor() as pool:
            futures = {
                kind: pool.submit(measured, "watch", args, tools=tools, journal=kind == "journal")
                for kind in ("none", "journal")
            }
            rows = {kind: future.result() for kind, future in futures.items()}
        results[name] = {**rows, "times": beside(rows["journal"], rows["none"])}
        print(name, json.dumps(rounded(results[name]), indent=1), flush=True)
    results["restart"] = measured("restart", args, tools=True, journal=True)
    print("restart", json.dumps(rounded(results["restart"]), indent=1), flush=True)
    return results


def plot(results: Figures, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for axis, (key, title) in zip(
        axes, {"cpu_us_per_run": "CPU of the process, us per run", "delay_mean_s": "mean delay, s"}.items(), strict=True
    ):
        names = ("no tools", "one round")
        for shift, kind in ((-0.2, "none"), (0.2, "journal")):
            values = [results[name][kind][key] for name in names]
            label = "without a journal" if kind == "none" else "SQLiteJournal"
            axis.bar([place + shift for place in range(2)], values, 0.38, label=label)
        axis.set_xticks(range(2), names)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--lasts", type=float, default=150.0, help="seconds that the longest run lasts")
    parser.add_argument("--folder", help="where the journal is; by default in that of temporary files")
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        what, base_url, path = args.child
        work = watch if what == "watch" else restart
        print(json.dumps(asyncio.run(work(base_url, args.runs, args.rate, path))))
        return 0
    results = measure_all(args)
    missed = {name: results[name]["times"] for name in ("no tools", "one round")}
    is_met = all(value <= GOAL for times in missed.values() for value in times.values())
    if not args.dry:
        about = {
            "asyncruns": version("asyncruns"),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        }
        settings = {"runs": args.runs, "requests_per_second": args.rate, "lasts_at_most_s": args.lasts}
        data = rounded({**about, **settings, **results, "at_most_times": GOAL, "is_met": is_met})
        (RESULTS / "journal_fleet.json").write_text(json.dumps(data, indent=1) + "\n")
        plot(results, RESULTS / "journal_fleet.png")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
