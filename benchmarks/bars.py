"""Plot medians as bars: a group for each condition, a colour for each client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot_bars(
    medians: Mapping[str, Mapping[str, float]], clients: Sequence[str], labels: Sequence[str], what: str, path: Path
) -> None:
    """Plot the medians on a logarithmic axis.

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

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for row, by in enumerate(medians.values()):
        for offset, name in enumerate(clients):
            value = by[name]
            bar = axes.barh(
                row + (offset - 1) * 0.27, value, height=0.25, color=f"C{offset}", label=None if row else name
            )
            axes.bar_label(bar, labels=[f"{value:.0f} us" if value >= 100 else f"{value:.1f} us"], padding=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel(what)
    axes.legend()
    figure.savefig(path, dpi=120)
