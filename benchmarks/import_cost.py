"""The cost of importing asyncruns with all of its root names, compared with that of its dependencies.

    python benchmarks/import_cost.py

Each import runs in a process of its own, in turns; the figure is the median CPU time of the import statement. Writes
`results/import_cost.json` beside this file.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

REPETITIONS = 21
STATEMENTS = {
    "asyncruns, all root names": "import asyncruns\nfor name in asyncruns.__all__: getattr(asyncruns, name)",
    "aiohttp, msgspec, anyio": "import aiohttp, msgspec, anyio",
    "asyncruns.lifecycle": "import asyncruns.lifecycle",
}


def measure(statement: str) -> float:
    """Return the CPU time of a statement in a new interpreter, in milliseconds."""
    # With bytecode files, as after an installation: the first repetition writes them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = f"import time\nbegan = time.process_time()\n{statement}\nprint((time.process_time() - began) * 1e3)"
    return float(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment).stdout
    )


def main() -> None:
    figures: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for repetition in range(REPETITIONS + 1):
        for name, statement in STATEMENTS.items():
            found = measure(statement)
            if repetition:  # the first one compiles the modules
                figures[name].append(found)
    medians = {name: round(statistics.median(found), 2) for name, found in figures.items()}
    ratio = medians["asyncruns, all root names"] / medians["aiohttp, msgspec, anyio"]
    result = {
        "what": "CPU milliseconds of an import in a fresh interpreter, median",
        "repetitions": REPETITIONS,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("asyncruns", "aiohttp", "msgspec", "anyio")},
        "median_ms": medians,
        "ratio": round(ratio, 3),
    }
    path = Path(__file__).parent / "results" / "import_cost.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
