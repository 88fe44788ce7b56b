"""The options of a fleet, and of single watches that override them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from asyncruns.abc import Dialect
from asyncruns.cadence import Cadence
from asyncruns.lifecycle import Event, Notice, Policy
from asyncruns.tools import Toolset
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.watch.call_answerer import ApprovalHandler, CallAnswerer, Handler
from asyncruns.watch.observers import OBSERVER_OPTIONS
from asyncruns.watch.options import SharedOptions, policy_of
from asyncruns.wire.plain import Held

# For runs that take hours: the seconds of delay that a poll is worth, and the shortest pause.
SLOW_POLL_WORTH: Final = 0.5
SLOW_FLOOR_S: Final = 1.0

OPTIONS_OF_FLEETS: Final = ("requests_per_second", "max_in_flight", "on_outcome", "on_exit", "journal")
"""The options that only a fleet has, not a single watch in it."""


class Answerers(Struct, frozen=True):
    """What answers the tool calls of runs, and reads what they write; shared by many runs.

    Attributes:
        handler: As for `CallAnswerer`, as are `approve`, `tools`, `limit` and `value`.
        output_type: The type that `outcome.parsed()` reads the text of a run as, or None.
        context: Holds `value`, for events and outcomes.
    """

    handler: Handler | None
    approve: ApprovalHandler | None
    tools: Toolset | None
    limit: ConcurrencyLimit | None
    value: object
    output_type: type[object] | None
    context: Held | None

    def begin(
        self,
        post: Callable[[Event], None],
        notify: Callable[[Notice], None],
        owners: tuple[object, ...],
        context: contextvars.Context,
    ) -> CallAnswerer:
        """Return a `CallAnswerer` for one run; that class describes the arguments."""
        return CallAnswerer(
            handler=self.handler,
            approve=self.approve,
            tools=self.tools,
            limit=self.limit,
            value=self.value,
            post=post,
            notify=notify,
            owners=owners,
            context=context,
        )


class FleetSettings:
    """The options of a fleet.

    Args:
        options: The options passed to `Fleet`. Without a cadence, its runs share one that learns; the runs of each
            dialect with a `longest_pause` share one of their own.
    """

    def __init__(self, options: SharedOptions) -> None:
        self._options: SharedOptions = options.copy()
        self._learned: dict[str, Cadence] = {}  # by dialect; "" for all without a `longest_pause`
        at_once = self._options.pop("max_concurrent_calls", None)
        self._limit = None if at_once is None else ConcurrencyLimit(at_once)
        self._observers = _observers_in(self._options)
        self._shared: dict[str, tuple[Policy, Answerers]] = {}  # for runs without options of their own, by dialect

    def with_own(self, options: SharedOptions) -> SharedOptions:
        """Return the options of a watch, filled up with the fleet's; a cadence of None is the fleet's, too."""
        if not options:
            return self._options
        both: SharedOptions = {**self._options, **options}
        both["cadence"] = options.get("cadence") or self._options.get("cadence")
        return both

    def observers(self, options: SharedOptions) -> Mapping[str, Any]:
        """Return the observers of a watch by option; watches without observers of their own share the fleet's."""
        if not any(name in options for name in OBSERVER_OPTIONS):
            return self._observers
        return _observers_in({**self._options, **options})

    def of(self, options: SharedOptions, dialect: Dialect[Any]) -> tuple[Policy, Answerers]:
        """Return the policy and the answerers of a watch; watches without options of their own share them."""
        if not options and dialect.name in self._shared:
            return self._shared[dialect.name]
        both = self.with_own(options)
        at_once = options.get("max_concurrent_calls")
        policy = policy_of({**both, "cadence": both.get("cadence") or self._learning(dialect)}, dialect)
        settings = (
            policy,
            Answerers(
                handler=both.get("on_requires_action"),
                approve=both.get("on_approval"),
                tools=both.get("tools"),
                limit=self._limit if at_once is None else ConcurrencyLimit(at_once, within=self._limit),
                value=both.get("context"),
                output_type=both.get("output_type"),
                context=Held.of(both.get("context")),
            ),
        )
        if not options:
            self._shared[dialect.name] = settings
        return settings

    def _learning(self, dialect: Dialect[Any]) -> Cadence:
        """Return the cadence of runs for which none was chosen."""
        longest = dialect.longest_pause
        name = "" if longest is None else dialect.name
        if name not in self._learned:
            slow = None if longest is None else Cadence.learned(SLOW_POLL_WORTH, floor=SLOW_FLOOR_S, ceiling=longest)
            self._learned[name] = slow or Cadence.learned()
        return self._learned[name]


def _observers_in(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: options[name] for name in OBSERVER_OPTIONS if options.get(name) is not None}
