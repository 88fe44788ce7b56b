"""CPU time to decode the bytes of a run into a typed object: asyncruns compared with the official client's models.

    python benchmarks/decode.py

The official client decodes a body with `json.loads` and then with `construct_type` of its own models, which does not
validate; this is what is measured. Each decoder runs in a process of its own, in turns, and the figure is the median of
the repetitions. CPU time is the user and system time of the process, without its start and warm-up. Writes
`results/decode.json` and `results/decode.png` beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from bare_server import run_body, tool

HERE = Path(__file__).parent
DECODERS = ("asyncruns", "openai")
DECODED = {"asyncruns": 40_000, "openai": 2_000}
WARM_UP = 200
REPETITIONS = 5
TARGET = 20.0

Decode = Callable[[bytes], object]


def with_one_tool() -> bytes:
    """Return a typical run: 2 KB, with one function."""
    run = json.loads(run_body(1290))
    run["tools"] = [tool(0)]
    return json.dumps(run).encode()


BODIES: dict[str, Callable[[], bytes]] = {
    "1 KB, no tools": lambda: run_body(1024),
    "2 KB, one tool": with_one_tool,
    "16 KB, 20 tools": lambda: run_body(16 * 1024),
}


def decoder(name: str) -> Decode:
    if name == "asyncruns":
        from asyncruns.wire import Run, decode

        return lambda body: decode(body, Run)

    from openai._models import construct_type
    from openai.types.beta.threads import Run as Model

    return lambda body: construct_type(type_=Model, value=json.loads(body))


def measure(name: str, body: bytes) -> float:
    """Return the CPU time for one body, in microseconds."""
    warnings.simplefilter("ignore")
    decode = decoder(name)
    assert getattr(decode(body), "status", None) == "in_progress"
    for _ in range(WARM_UP):
        decode(body)
    count = DECODED[name]
    began = time.process_time()
    for _ in range(count):
        decode(body)
    return (time.process_time() - began) / count * 1e6


def measure_all() -> dict[str, dict[str, list[float]]]:
    figures: dict[str, dict[str, list[float]]] = {label: {name: [] for name in DECODERS} for label in BODIES}
    for repetition in range(REPETITIONS):
        # In turns, with the order reversed each time, so that neither decoder always has the quieter moment.
        order = DECODERS if repetition % 2 else DECODERS[::-1]
        for label in BODIES:
            for name in order:
                command = [sys.executable, __file__, "--decoder", name, "--body", label]
                found = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                figures[label][name].append(found)
                print(f"{label:>16} {name:<10} {found:8.2f} us", flush=True)
    return figures


def report(figures: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    medians = {label: {name: statistics.median(found) for name, found in by.items()} for label, by in figures.items()}
    return {
        "what": "CPU microseconds from the bytes of a run to a typed object; median of repetitions",
        "target": f"at least {TARGET:.0f} times cheaper for a run of 2 KB; what a run's tools say costs both of them",
        "repetitions": REPETITIONS,
        "decoded": DECODED,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("asyncruns", "msgspec", "openai", "pydantic")},
        "bytes": {label: len(body()) for label, body in BODIES.items()},
        "median_us": {label: {name: round(value, 2) for name, value in by.items()} for label, by in medians.items()},
        "times_cheaper": {label: round(by["openai"] / by["asyncruns"], 1) for label, by in medians.items()},
        "all_us": {
            label: {name: [round(x, 2) for x in found] for name, found in by.items()} for label, by in figures.items()
        },
    }


def plot(result: dict[str, object], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    medians = result["median_us"]
    assert isinstance(medians, dict)
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for row, label in enumerate(BODIES):
        for offset, name in enumerate(DECODERS):
            value = medians[label][name]
            bar = axes.barh(
                row + (offset - 0.5) * 0.4, value, height=0.38, color=f"C{offset}", label=name if not row else None
            )
            axes.bar_label(bar, labels=[f"{value:.1f} us"], padding=3)
    axes.set_yticks(range(len(BODIES)), list(BODIES))
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel("CPU time to decode one run, microseconds (log)")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoder", choices=DECODERS, help=argparse.SUPPRESS)
    parser.add_argument("--body", choices=BODIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.decoder:
        print(measure(arguments.decoder, BODIES[arguments.body]()))
        return
    result = report(measure_all())
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "decode.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(result, results / "decode.png")
    print(json.dumps({"median_us": result["median_us"], "times_cheaper": result["times_cheaper"]}, indent=2))


if __name__ == "__main__":
    main()
