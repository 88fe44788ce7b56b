"""Many runs in one process: see `fleet.py` for what callers use, and `schedule.py` for who is asked next."""

from __future__ import annotations

from asyncruns.fleet.fleet import Fleet
from asyncruns.fleet.handle import Watch
from asyncruns.fleet.statistics import Statistics

__all__ = ["Fleet", "Statistics", "Watch"]
