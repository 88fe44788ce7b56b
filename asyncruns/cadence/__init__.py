"""When to poll next: pure strategies, told what is known of the run; some learn how long runs take.

Public: the names of `__all__`. The modules:

cadence            what users choose from, and the strategy that it holds
strategy           what a strategy is asked and told
growing            the strategies that only count polls
learned            the strategy that learns
late               the same for runs that are said to be older than their watch, which may not be true
learned_durations  what was learned, by group, and what the pauses follow from
durations          how long the runs of one group took: histograms that fade, and what they foretell
cheapest_polls     the cheapest looks for given durations
grid               the ages at which all of that is reckoned
"""

from __future__ import annotations

from asyncruns.cadence.cadence import Cadence

__all__ = ["Cadence"]
