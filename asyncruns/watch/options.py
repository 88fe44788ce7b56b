"""The options of a watch, and their checks.

The defaults are those of `lifecycle.Policy`; `RunWatcher` documents all of them for users.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Mapping
from typing import Any, Final, Literal, TypedDict

from msgspec import UNSET, UnsetType

from asyncruns.abc import Dialect
from asyncruns.cadence import Cadence
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import Policy
from asyncruns.schemas.output_type import output_type_of
from asyncruns.tools import Toolset
from asyncruns.watch.call_answerer import ApprovalHandler, Handler
from asyncruns.watch.observers import Observer


class SharedOptions(TypedDict, total=False):
    """The options that a watch in a fleet has as well; `RunWatcher` describes them."""

    tools: Toolset | None
    timeout: float | UnsetType | None
    max_outage: float | None
    max_unknown_status: float | None
    max_concurrent_calls: int | None
    max_rounds: int | None
    observe_only: bool
    keep_tool_choice: bool
    context: object
    label: object
    output_type: type[object] | None
    cadence: Cadence | None
    on_lost_submit: Literal["give_up", "resend"]
    on_event: Observer | None
    on_status: Observer | None
    on_requires_action: Handler | None
    on_approval: ApprovalHandler | None
    on_terminal: Observer | None


POLICY_OPTIONS: Final = (
    "timeout", "max_outage", "max_unknown_status", "keep_tool_choice", "max_rounds", "observe_only", "cadence",
)  # fmt: skip
FUNCTION_OPTIONS: Final = {
    "on_event": "the event",
    "on_status": "the event",
    "on_requires_action": "the calls",
    "on_approval": "the calls",
    "on_terminal": "the outcome",
}
"""The options that are functions, each with what it is called with."""


# For runs that take hours: pauses of 2 s, growing by a twentieth with each poll, so to some 5 % of the run's age.
SLOW_START_S: Final = 2.0
SLOW_GROWTH: Final = 1.05

ANSWERING_OPTIONS: Final = ("tools", "on_requires_action", "on_approval")


class WatchOptions(SharedOptions, total=False):
    """The options of a watch; `RunWatcher` describes them."""

    on_exit: Literal["leave", "cancel"]


def policy_of(options: SharedOptions, dialect: Dialect[Any]) -> Policy:
    """Return the policy of a watch with these options; `Policy` has the defaults of those that are left out.

    `on_lost_submit` only counts at servers where a poll can't show whether a submit was taken. Runs that take hours are
    polled after 5 % of their age, up to `longest_pause` of the dialect.

    Args:
        options: Options that were checked already.
        dialect: The server's dialect.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if name in POLICY_OPTIONS}
    if given.get("cadence", UNSET) is None:
        del given["cadence"]
    if dialect.longest_pause is not None:
        given.setdefault("cadence", Cadence.backoff(SLOW_START_S, growth=SLOW_GROWTH, ceiling=dialect.longest_pause))
    given.setdefault("max_outage", dialect.max_outage)
    lost = options.get("on_lost_submit", "give_up")
    return Policy(
        without_expiry=dialect.without_expiry,
        after_expiry=dialect.after_expiry,
        cancel_bound=dialect.cancel_bound,
        on_lost_submit="poll" if dialect.shows_submits else lost,
        **given,
    )


def check_watch_options(
    options: Mapping[str, Any],
    known: type = WatchOptions,
    *,
    whose: str = "This watch",
    others: tuple[str, ...] = (),
    elsewhere: tuple[Container[str], str] = ((), ""),
) -> None:
    """Check the options of a watch, before anything is sent.

    Args:
        options: The options by name.
        known: The class whose annotations are the known options: `WatchOptions` or `SharedOptions`.
        whose: What has these options, as the beginning of a message.
        others: Its options that are not in `known`, for messages.
        elsewhere: Names that belong somewhere else, and what to say of one of them, with "{name}" for it.

    Raises:
        InvalidRequestError: An option is unknown, or its value is unusable; the message says what to pass.
    """
    for name in options:
        if name not in known.__annotations__:
            there_are = (*others, *known.__annotations__)
            near = difflib.get_close_matches(name, there_are, 1)
            meant = f"did you mean {near[0]!r}? Its options" if near else "its options"
            if name == "stream":
                raise InvalidRequestError(
                    f"{whose} has no option 'stream': create the run or response with stream=True, and pass the stream "
                    "to client.watch, RunWatcher or fleet.watch"
                )
            if name in elsewhere[0]:
                meant = f"{elsewhere[1].replace('{name}', name)}. Its options"
            raise InvalidRequestError(f"{whose} has no option {name!r}; {meant} are {', '.join(there_are)}")
    for name, given in options.items():
        what = _what_it_must_be(name, given)
        if what is not None:
            shown = type(given).__name__ if name == "tools" or name in FUNCTION_OPTIONS else repr(given)
            raise InvalidRequestError(f"{name} must be {what}; got {shown}")
    if options.get("output_type") is not None:
        output_type_of(options["output_type"])  # which raises
    answering = [name for name in ANSWERING_OPTIONS if options.get(name) is not None]
    if options.get("observe_only") and answering:
        raise InvalidRequestError(f"A watch with observe_only=True answers nothing: leave out {', '.join(answering)}")


def _what_it_must_be(name: str, given: Any) -> str | None:
    """Return what the value of an option must be if this one is unusable, otherwise None."""
    match name:
        case "tools":
            return None if isinstance(given, Toolset | None) else "a Toolset, such as Toolset([function])"
        case "cadence":
            return None if isinstance(given, Cadence | None) else "a Cadence, such as Cadence.fixed(2.0)"
        case "max_concurrent_calls" | "max_rounds":
            is_count = isinstance(given, int) and not isinstance(given, bool) and given >= 1
            return None if given is None or is_count else "1 or more, or None for no limit"
        case "keep_tool_choice" | "observe_only":
            return None if isinstance(given, bool) else "True or False"
        case "on_exit":
            return None if given in ("leave", "cancel") else '"leave" or "cancel"'
        case "on_lost_submit":
            return None if given in ("give_up", "resend") else '"give_up" or "resend"'
        case "timeout" | "max_outage" | "max_unknown_status":
            is_seconds = isinstance(given, int | float) and not isinstance(given, bool) and given >= 0
            return None if given in (None, UNSET) or is_seconds else "0 seconds or more, or None for ever"
        case _ if name in FUNCTION_OPTIONS:
            return None if given is None or callable(given) else f"a function of {FUNCTION_OPTIONS[name]}"
        case _:
            return None
