"""Warns when runs of a fleet can't be polled: once for each outage of the fleet, and then once a minute."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final

from asyncruns.lifecycle import Connectivity, ConnectivityChanged, RunRef
from asyncruns.watch.logs import FLEET_LOG, log_healthy, warn_of_outage

WARNINGS_APART_S: Final = 60.0


class Outages:
    """The runs that can't be polled, for the log."""

    def __init__(self) -> None:
        self._lost: set[Hashable] = set()
        self._quiet_until = -math.inf
        self._has_warned = False  # since all runs could be polled

    def note(self, member: Hashable, ref: RunRef, notice: ConnectivityChanged, now: float) -> None:
        """Note that a run can be polled better or worse than before, and log that if it matters to the fleet.

        Args:
            member: What stands for the run.
            ref: Its ref, for the log.
            notice: What its watch reports.
            now: The time of the event loop.
        """
        if notice.connectivity is Connectivity.LOST:
            self._lost.add(member)
            if not self._has_warned or now >= self._quiet_until:  # a run is LOST after 15 s, so at most 4 a minute
                self._quiet_until, self._has_warned = now + WARNINGS_APART_S, True
                warn_of_outage(FLEET_LOG, ref, notice, is_fleet=True)
        elif notice.connectivity is Connectivity.HEALTHY and member in self._lost:
            self._lost.discard(member)
            if self._has_warned and not self._lost:
                self._has_warned = False
                log_healthy(FLEET_LOG, ref)

    def forget(self, member: Hashable) -> None:
        """Forget a run that is not watched any more."""
        self._lost.discard(member)
        self._has_warned = self._has_warned and bool(self._lost)
