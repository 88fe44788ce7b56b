"""What the watches of a fleet go by: its own options, and those of one run instead."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from asyncruns.abc import Dialect
from asyncruns.cadence import Cadence
from asyncruns.lifecycle import Event, Policy
from asyncruns.tools import Toolset
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.watch.call_answerer import ApprovalHandler, CallAnswerer, Handler
from asyncruns.watch.options import SharedOptions, policy_of


class Answerers(Struct, frozen=True):
    """Who answers the calls of runs; many runs share one."""

    handler: Handler | None
    approve: ApprovalHandler | None
    tools: Toolset | None
    limit: ConcurrencyLimit | None

    def begin(
        self, post: Callable[[Event], None], owners: tuple[object, ...], context: contextvars.Context
    ) -> CallAnswerer:
        """Return what answers the calls of one run; `CallAnswerer` describes the arguments."""
        return CallAnswerer(
            handler=self.handler,
            approve=self.approve,
            tools=self.tools,
            limit=self.limit,
            post=post,
            owners=owners,
            context=context,
        )


class FleetSettings:
    """The options of a fleet.

    Args:
        options: As they were given. Without a cadence, all its runs share one that learns.
    """

    def __init__(self, options: SharedOptions) -> None:
        self._options: SharedOptions = {**options, "cadence": options.get("cadence") or Cadence.learned()}
        at_once = self._options.pop("max_concurrent_calls", None)
        self._limit = None if at_once is None else ConcurrencyLimit(at_once)
        self._shared: dict[str, tuple[Policy, Answerers]] = {}  # of runs without options of their own, by their dialect

    def with_own(self, options: SharedOptions) -> SharedOptions:
        """Give the options of a watch, and the fleet's for what it leaves out, or for a cadence that is None."""
        if not options:
            return self._options
        both: SharedOptions = {**self._options, **options}
        both["cadence"] = options.get("cadence") or self._options.get("cadence")
        return both

    def of(self, options: SharedOptions, dialect: Dialect[Any]) -> tuple[Policy, Answerers]:
        """Give what the watch of a run goes by; runs without options of their own share one."""
        if not options and dialect.name in self._shared:
            return self._shared[dialect.name]
        both = self.with_own(options)
        at_once = options.get("max_concurrent_calls")
        settings = (
            policy_of(both, dialect),
            Answerers(
                handler=both.get("on_requires_action"),
                approve=both.get("on_approval"),
                tools=both.get("tools"),
                limit=self._limit if at_once is None else ConcurrencyLimit(at_once, within=self._limit),
            ),
        )
        if not options:
            self._shared[dialect.name] = settings
        return settings
