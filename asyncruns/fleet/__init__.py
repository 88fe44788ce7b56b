"""Thousands of runs in one process, under one budget of requests.

See `fleet.py` for what callers use, `hub.py` for what drives it, and `schedule.py` for which run is polled next.

Public: `Fleet`, `Statistics`, `Watch`.
"""

from __future__ import annotations

from asyncruns.fleet.fleet import Fleet
from asyncruns.fleet.handle import Watch
from asyncruns.fleet.statistics import Statistics

__all__ = ["Fleet", "Statistics", "Watch"]
