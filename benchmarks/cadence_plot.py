"""Plot the results of `cadence.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BESIDE = ("fixed", "backoff", "scaled backoff")


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (ratios, online, shift) = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    _ratios(ratios, result["families"], result["reached"])
    for family, costs in result["online"]["cost"].items():
        online.plot(result["online"]["runs"], costs, marker=".", label=family)
    online.set_xscale("symlog", linthresh=1)
    online.set_xlabel("runs seen by its own polls, from the first one on")
    step = result["shift"]["step"]
    for pair, found in result["shift"]["pairs"].items():
        shift.plot([n * step for n in range(len(found["cost"]))], found["cost"], label=pair)
    shift.axhline(1.2, color="grey", linestyle=":")
    shift.set_yscale("log")
    shift.set_xlabel("runs after a shift")
    for axes in (online, shift):
        axes.set_ylabel("cost, over that of 500 known durations")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def _ratios(axes: Any, families: dict[str, dict[str, float]], goals: dict[str, float]) -> None:
    for row, found in enumerate(families.values()):
        for offset, name in enumerate(BESIDE):
            label = None if row else f"{name}: {goals[f'{name}, geometric mean']} on average"
            bar = axes.barh(row + (offset - 1) * 0.27, found[name], height=0.25, color=f"C{offset}", label=label)
            axes.bar_label(bar, fmt="%.2f", padding=2, fontsize=8)
    axes.set_yticks(range(len(families)), list(families))
    axes.invert_yaxis()
    axes.axvline(1.0, color="grey", linestyle=":")
    axes.set_xlim(0.0, 2.3)
    axes.set_xlabel("delay, over the other's at as many polls")
    axes.legend(fontsize=8, loc="center right")
