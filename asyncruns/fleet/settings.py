"""What the watches of a fleet go by: its own options, and those of one run instead."""

from __future__ import annotations

from typing import Any

from asyncruns.abc import Dialect
from asyncruns.cadence import Cadence
from asyncruns.fleet.member import Answers
from asyncruns.lifecycle import Policy
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.watch.options import SharedOptions, policy_of


class FleetSettings:
    """The options of a fleet.

    Args:
        options: As they were given. Without a cadence, all its runs share one that learns.
    """

    def __init__(self, options: SharedOptions) -> None:
        self._options: SharedOptions = {**options, "cadence": options.get("cadence") or Cadence.learned()}
        at_once = self._options.pop("max_concurrent_calls", None)
        self._limit = None if at_once is None else ConcurrencyLimit(at_once)
        self._shared: dict[str, tuple[Policy, Answers]] = {}  # of runs without options of their own, by their dialect

    def with_own(self, options: SharedOptions) -> SharedOptions:
        """Give the options of a watch, and the fleet's for what it leaves out, or for a cadence that is None."""
        if not options:
            return self._options
        both: SharedOptions = {**self._options, **options}
        both["cadence"] = options.get("cadence") or self._options.get("cadence")
        return both

    def of(self, options: SharedOptions, dialect: Dialect[Any]) -> tuple[Policy, Answers]:
        """Give what the watch of a run goes by; runs without options of their own share one."""
        if not options and dialect.name in self._shared:
            return self._shared[dialect.name]
        both = self.with_own(options)
        at_once = options.get("max_concurrent_calls")
        settings = (
            policy_of(both, dialect),
            Answers(
                handler=both.get("on_requires_action"),
                approve=both.get("on_approval"),
                tools=both.get("tools"),
                limit=self._limit if at_once is None else ConcurrencyLimit(at_once, within=self._limit),
            ),
        )
        if not options:
            self._shared[dialect.name] = settings
        return settings
