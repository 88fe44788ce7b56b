"""Thousands of runs in one process, begun at once: how late each end is learned of, and what that costs.

    python benchmarks/fleet.py
    python benchmarks/fleet.py --runs 10000 --repeat 3
    python benchmarks/fleet.py --runs 1000 --only asyncruns
    python benchmarks/fleet.py --runs 10000 --only "asyncruns;asyncruns:httptools;plain aiohttp"

asyncruns sends with aiohttp, or with httptools; both, and plain aiohttp, also run on uvloop.
The runs last about 5 s (lognormal, sigma 0.6), the same in each repetition for every client. Each client runs in a
process of its own, one after the other, against a fresh server in another. The stalls of the loop are measured in a
second pass, so that the heartbeat's CPU time and the memory of its notes are not the client's.

plain aiohttp is a task per run that polls, decodes to the same typed struct and sleeps 1 s; once with the connection
limit of 100 that aiohttp has by default, once without one. The goals compare with the one of the two that has the lower
mean delay. The official client (a task per run, likewise) is measured up to 1,000 runs: beyond, it needs minutes.

Memory is what the process grew by over its size after imports, 100 requests at once and a run watched to its end.
Writes `results/fleet.json` and `results/fleet.png` beside this file; exits with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

HERE: Final = Path(__file__).parent
OURS: Final = "asyncruns"
LEAN: Final = "asyncruns:httptools"
PLAIN: Final = ("plain aiohttp", "plain aiohttp, limit=0")
OPENAI: Final = "openai"
ON_UVLOOP: Final = (f"{OURS}, uvloop", f"{LEAN}, uvloop", f"{PLAIN[0]}, uvloop")
CLIENTS: Final = (OURS, LEAN, *PLAIN, *ON_UVLOOP, OPENAI)
RUNS: Final = (1_000, 10_000)
OPENAI_RUNS: Final = (300, 1_000)
GOALS_AT: Final = 10_000
CLIENT_TIMEOUT_S: Final = 600.0

Figures = dict[str, Any]
Results = dict[int, dict[str, Figures]]

COLUMNS: Final = {
    "delay_mean_s": "mean s",
    "delay_p50_s": "p50 s",
    "delay_p99_s": "p99 s",
    "delay_max_s": "max s",
    "polls_per_run": "polls/run",
    "cpu_us_per_poll": "us/poll",
    "memory_kib_per_run": "KiB/run",
    "connections": "connections",
    "stall_worst_ms": "worst ms",
    "stall_p99.9_ms": "99.9 % ms",
    "server_busiest_polls_per_s": "most polls/s",
    "server_busiest_cpu_share": "server's CPU",
}


class Goal(NamedTuple):
    """What is wanted of a figure, at most; beside plain aiohttp's, or by itself; of which client."""

    key: str
    most: float
    beside_plain: bool
    client: str = OURS

    def result(self, ours: Figures, plain: Figures | None) -> dict[str, object]:
        """Return the figure beside the goal."""
        value = ours[self.key]
        if self.beside_plain:
            assert plain
            value /= plain[self.key]
        what = f"{self.key}, times that of plain aiohttp" if self.beside_plain else self.key
        if self.client != OURS:
            what = f"{self.client}: {what}"
        return {"goal": what, "at_most": self.most, "is": round(value, 3), "met": value <= self.most}


GOALS: Final = (
    Goal("delay_mean_s", 0.6, beside_plain=True),
    Goal("delay_p99_s", 0.5, beside_plain=True),
    Goal("cpu_us_per_poll", 1.3, beside_plain=True),
    Goal("memory_kib_per_run", 4.0, beside_plain=False),
    Goal("connections", 100, beside_plain=False),
    Goal("stall_worst_ms", 50.0, beside_plain=False),
    Goal("stall_p99.9_ms", 10.0, beside_plain=False),
    Goal("delay_mean_s", 0.45, beside_plain=True, client=LEAN),
    Goal("delay_p99_s", 0.45, beside_plain=True, client=LEAN),
    Goal("cpu_us_per_poll", 0.5, beside_plain=True, client=LEAN),
)


def measured(name: str, runs: int, seed: int, *, heart: bool) -> Figures:
    """Run one client against a fresh server, each in its process."""
    command = [sys.executable, str(HERE / "fleet_server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        base_url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        client = [sys.executable, str(HERE / "fleet_clients.py"), "--client", name, "--base-url", base_url]
        client += ["--runs", str(runs), "--seed", str(seed), *(["--heart"] if heart else [])]
        try:
            found = subprocess.run(client, stdout=subprocess.PIPE, text=True, check=True, timeout=CLIENT_TIMEOUT_S)
        finally:
            server.stdin.close()
    figures: Figures = json.loads(found.stdout)
    return figures


def both_passes(name: str, runs: int, seed: int) -> Figures:
    return measured(name, runs, seed, heart=False) | measured(name, runs, seed, heart=True)


def median(repetitions: list[Figures]) -> Figures:
    """Return the median of each figure; percentiles are taken one by one."""
    return {
        key: [statistics.median(column) for column in zip(*(one[key] for one in repetitions), strict=True)]
        if isinstance(value, list)
        else statistics.median(one[key] for one in repetitions)
        for key, value in repetitions[0].items()
    }


def measure_all(sizes: list[int], names: list[str], repeat: int, report: Callable[[str], None]) -> Results:
    """Measure the clients at each size, taking turns, each time in another order."""
    plan = {size: [name for name in names if name != OPENAI or size in OPENAI_RUNS] for size in sizes}
    if OPENAI in names and min(sizes) <= max(OPENAI_RUNS):
        plan.update({size: [OPENAI] for size in OPENAI_RUNS if size not in plan})
    results: Results = {}
    for size in sorted(size for size, those in plan.items() if those):
        found: dict[str, list[Figures]] = {name: [] for name in plan[size]}
        for seed in range(repeat):
            turn = seed % len(plan[size])
            for name in plan[size][turn:] + plan[size][:turn]:
                figures = both_passes(name, size, seed)
                found[name].append(figures)
                report(row(size, name, figures))
        results[size] = {name: median(found[name]) for name in names if name in found}
    return results


def row(size: int, name: str, figures: Figures) -> str:
    cells = [f"{figures[key]:>12.4g}" for key in COLUMNS]
    return f"{size:>6} {name:<28}" + " ".join(cells)


def header() -> str:
    return f"{'runs':>6} {'':<28}" + " ".join(f"{label:>12}" for label in COLUMNS.values())


def best_plain(figures: Mapping[str, Figures]) -> str | None:
    """Return the name of the plain client that learns of the ends sooner."""
    return min(
        (name for name in PLAIN if name in figures), key=lambda name: figures[name]["delay_mean_s"], default=None
    )


def goals(results: Results) -> list[dict[str, object]]:
    """Return which goals are met, of those that the measured sizes decide."""
    figures = results.get(GOALS_AT, {})
    best = best_plain(figures)
    plain = figures[best] if best else None
    wanted = [goal for goal in GOALS if goal.client in figures and (plain or not goal.beside_plain)]
    return [goal.result(figures[goal.client], plain) for goal in wanted]


def write(results: Results, repeat: int) -> None:
    """Write the figures and the plot."""
    report = {
        "what": "runs of about 5 s, all begun at once; delays from the end of a run to when the client has seen it; "
        "medians of the repetitions",
        "repetitions": repeat,
        "python": platform.python_version(),
        "versions": {
            name: version(name) for name in ("asyncruns", "aiohttp", "httptools", "uvloop", "msgspec", "openai")
        },
        "goals_compare_with": {size: best_plain(figures) for size, figures in results.items()},
        "goals": goals(results),
        "runs": results,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "fleet.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plot(results, HERE / "results" / "fleet.png")


def plot(results: Results, path: Path) -> None:
    """Draw how the delays are distributed at the largest size, and the memory at each."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    colours = {name: f"C{place}" for place, name in enumerate(CLIENTS)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    size = max(results)
    for name, figures in results[size].items():
        left.plot(figures["delay_percentiles_s"], range(101), color=colours[name], label=name)
    left.set_xscale("symlog", linthresh=1.0)
    left.set_xticks([0, 0.5, 1, 2, 5, 10, 20], ["0", "0.5", "1", "2", "5", "10", "20"])
    left.set_xlim(left=0)
    left.set_ylim(0, 100)
    left.set_xlabel("s from the end of a run to seeing it (log beyond 1 s)")
    left.set_ylabel(f"% of the {size:,} runs")
    left.legend(loc="lower right")

    bars = [(size, name, one["memory_kib_per_run"]) for size, by in results.items() for name, one in by.items()]
    drawn = right.barh(range(len(bars)), [bar[2] for bar in bars], color=[colours[bar[1]] for bar in bars])
    right.bar_label(drawn, fmt="%.1f", padding=3)
    right.set_yticks(range(len(bars)), [f"{size:,} {name}" for size, name, _ in bars])
    right.invert_yaxis()
    right.margins(x=0.15)
    right.set_xlabel("KiB of memory for each run")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default=",".join(map(str, RUNS)), help="how many; several with commas")
    known = "; ".join(CLIENTS)
    parser.add_argument("--only", help=f"measure these clients only, with semicolons, and write nothing: {known}")
    parser.add_argument("--repeat", type=int, default=1, help="with other durations each time; the medians count")
    options = parser.parse_args()
    sizes = [int(size) for size in options.runs.split(",")]
    print(header(), flush=True)
    results = measure_all(
        sizes,
        options.only.split(";") if options.only else list(CLIENTS),
        options.repeat,
        lambda line: print(line, flush=True),
    )
    if options.repeat > 1:
        print("medians:")
        for size, by in results.items():
            for name, figures in by.items():
                print(row(size, name, figures))
    if not options.only and GOALS_AT in sizes:
        write(results, options.repeat)
    found = goals(results)
    for goal in found:
        print(f"{'met' if goal['met'] else 'MISSED':>7}: {goal['goal']} is {goal['is']}, at most {goal['at_most']}")
    return 0 if all(goal["met"] for goal in found) else 1


if __name__ == "__main__":
    sys.exit(main())
