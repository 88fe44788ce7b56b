"""Plot medians as bars: a group for each condition, a colour for each client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot_bars(
    medians: Mapping[str, Mapping[str, float]], clients: Sequence[str], labels: Sequence[str], what: str, path: Path
) -> None:
    """Plot the medians on a logarithmic axis. A client without a figure under a condition has no bar there.

    Args:
        medians: Microseconds by condition and client.
        clients: Names of the clients, in the order of the bars.
        labels: Labels of the conditions, in their order.
        what: Label of the axis.
        path: Path of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tall = max(3.0, 0.22 * len(clients) * len(medians))
    figure, axes = pyplot.subplots(figsize=(7, tall), layout="constrained")
    step = 0.81 / len(clients)
    for row, by in enumerate(medians.values()):
        for offset, name in enumerate(clients):
            if name not in by:
                continue
            value = by[name]
            place = row + (offset - (len(clients) - 1) / 2) * step
            bar = axes.barh(place, value, height=step * 0.92, color=f"C{offset}", label=None if row else name)
            axes.bar_label(bar, labels=[f"{value:.0f} us" if value >= 100 else f"{value:.1f} us"], padding=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel(what)
    axes.invert_yaxis()  # the first one on top
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)
