"""What a watch can be told, and the checks of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from msgspec import UNSET, UnsetType

from asyncruns.abc import Dialect
from asyncruns.cadence import Cadence
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import Policy
from asyncruns.lifecycle.patience import MAX_ROUNDS
from asyncruns.tools import Toolset
from asyncruns.watch.call_answerer import ApprovalHandler, Handler
from asyncruns.watch.observers import Observer


class SharedOptions(TypedDict, total=False):
    """The options that a watch has in a fleet, too; `RunWatcher` describes them."""

    tools: Toolset | None
    timeout: float | UnsetType | None
    max_outage: float | None
    max_unknown_status: float | None
    max_concurrent_calls: int | None
    max_rounds: int | None
    keep_tool_choice: bool
    cadence: Cadence | None
    on_lost_submit: Literal["give_up", "resend"]
    on_status: Observer | None
    on_requires_action: Handler | None
    on_approval: ApprovalHandler | None
    on_terminal: Observer | None


class WatchOptions(SharedOptions, total=False):
    """The options of a watch; `RunWatcher` describes them."""

    on_exit: Literal["leave", "cancel"]


def policy_of(options: SharedOptions, dialect: Dialect[Any]) -> Policy:
    """Return what the lifecycle of a watch goes by.

    Args:
        options: Checked ones.
        dialect: Of the server.
    """
    return Policy(
        timeout=options.get("timeout", UNSET),
        max_outage=options.get("max_outage", 120.0),
        max_unknown_status=options.get("max_unknown_status", 60.0),
        without_expiry=dialect.without_expiry,
        on_lost_submit="look" if dialect.shows_submits else options.get("on_lost_submit", "give_up"),
        keep_tool_choice=options.get("keep_tool_choice", False),
        max_rounds=options.get("max_rounds", MAX_ROUNDS),
        cadence=options.get("cadence") or Cadence.hinted(),
    )


def check_watch_options(options: Mapping[str, Any], known: type = WatchOptions) -> None:
    """Check the options of a watch, before anything is done at a server.

    Args:
        options: By their names.
        known: Those that there are: `WatchOptions`, or `SharedOptions`.

    Raises:
        InvalidRequestError: One is not known, or can't be used; the message says what to give.
    """
    for name in options:
        if name not in known.__annotations__:
            near = difflib.get_close_matches(name, known.__annotations__, 1)
            meant = f"did you mean {near[0]!r}? There" if near else "there"
            there_are = ", ".join(known.__annotations__)
            raise InvalidRequestError(f"There is no option {name!r} of a watch here; {meant} are {there_are}")
    tools, cadence = options.get("tools"), options.get("cadence")
    if tools is not None and not isinstance(tools, Toolset):
        raise InvalidRequestError(f"tools must be a Toolset, such as Toolset([function]); got {type(tools).__name__}")
    if cadence is not None and not isinstance(cadence, Cadence):
        raise InvalidRequestError(f"cadence must be a Cadence, such as Cadence.fixed(2.0); got {cadence!r}")
    for name in ("max_concurrent_calls", "max_rounds"):
        number = options.get(name)
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise InvalidRequestError(f"{name} must be 1 or more, or None for no limit; got {number!r}")
    if not isinstance(options.get("keep_tool_choice", False), bool):
        raise InvalidRequestError(f"keep_tool_choice must be True or False; got {options['keep_tool_choice']!r}")
    if options.get("on_exit", "leave") not in ("leave", "cancel"):
        raise InvalidRequestError(f'on_exit must be "leave" or "cancel"; got {options["on_exit"]!r}')
    if options.get("on_lost_submit", "give_up") not in ("give_up", "resend"):
        raise InvalidRequestError(f'on_lost_submit must be "give_up" or "resend"; got {options["on_lost_submit"]!r}')
    for name in ("timeout", "max_outage", "max_unknown_status"):
        seconds = options.get(name)
        if seconds is None or seconds is UNSET:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise InvalidRequestError(f"{name} must be 0 seconds or more, or None for ever; got {seconds!r}")
