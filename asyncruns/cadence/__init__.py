"""When to poll next: strategies that do no I/O and read no clock. One of them learns how long runs take.

Public: the names of `__all__`. The modules, from what callers choose down to the arithmetic:

cadence            what callers choose from; holds a strategy
strategy           the interface of a strategy
growing            strategies that only count polls
learned            the strategy that learns
late               the same, for a run that the server says is older than its watch, which may be false
learned_durations  what was learned about each group of runs
durations          how long the runs of one group took: fading histograms, and the predictions from them
cheapest_polls     the cheapest polls for given durations
grid               the ages at which durations are computed
"""

from __future__ import annotations

from asyncruns.cadence.cadence import Cadence

__all__ = ["Cadence"]
