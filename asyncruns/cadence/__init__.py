"""When to poll next: strategies that do no I/O and read no clock. One of them learns how long runs take.

Public: the names of `__all__`. The modules, from what callers choose down to the arithmetic:

cadence            what callers choose from, with the default pauses: `hinted` of one watch, `learned` of a fleet
strategy           the interface of a strategy
counted_pauses     the strategy behind `hinted`, `fixed` and `backoff`, which only counts polls
learned_pauses     the strategy that learns
late_pauses        the same, for a run that the server says is older than its watch, which may be false
learned_durations  what was learned about each group of runs
durations          how long the runs of one group took: fading histograms, and the predictions from them
cheapest_polls     the cheapest polls for given durations
age_grid           the ages at which durations are computed, and what is assumed before any run has ended

A strategy gives the pause; the lifecycle then fits it into the wait (`lifecycle/patience.py`: the deadline, jitter,
slower polls while tools run, longer pauses after failures).
"""

from __future__ import annotations

from asyncruns.cadence.cadence import Cadence

__all__ = ["Cadence"]
