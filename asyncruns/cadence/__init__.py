"""When to look next: pure strategies, told what is known of the run; some learn how long runs take.

base       what a cadence is asked and told, and those that only count looks
learned    the one that learns: what it holds of each group, and its answers
late       the same for runs that are said to be older than their watch, which may not be true
durations  how long the runs of one group took: histograms that fade, and what they foretell
schedule   the cheapest looks for given durations
grid       the ages at which all of that is reckoned
"""

from __future__ import annotations

from asyncruns.cadence.base import Cadence, Course

__all__ = ["Cadence", "Course"]
