"""The options of a watch in a workflow, and their check."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, TypedDict, cast

from asyncruns.errors import InvalidRequestError
from asyncruns.temporal.rounds import WorkflowHandler
from asyncruns.temporal.running import LONGEST
from asyncruns.watch.options import check_watch_options
from asyncruns.wire.plain import is_plain

OWN: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "tools": (
        "the name of a toolset of the workers, such as Toolset(name='weather'), since workflows hold no functions",
        lambda given: isinstance(given, str | None),
    ),
    "people": (
        'a list of names of functions, such as ["refund"]',
        lambda given: (
            isinstance(given, list | tuple | set | frozenset) and all(isinstance(name, str) for name in given)
        ),
    ),
    "cold": ("True or False", lambda given: isinstance(given, bool)),
    "heartbeat_timeout": (
        "more than 0 seconds, and at most 30 days",
        lambda given: (
            isinstance(given, int | float) and not isinstance(given, bool) and 0 < given <= LONGEST.total_seconds()
        ),
    ),
}
"""The options that only workflows have, or have in another form: what each must be, in words and as a check."""
_NO_OBSERVERS: Final = (
    "a workflow gets the outcome only; another process sees the events, with client.watch(ref, observe_only=True)"
)
_ELSEWHERE: Final[Mapping[str, str]] = {
    "context": "pass AsyncRunsPlugin(context_factory=...), which makes the context of the tools on the worker",
    "on_approval": "on_requires_action gets the calls that wait for approvals as well, and so do people",
    "on_event": _NO_OBSERVERS,
    "on_status": _NO_OBSERVERS,
    "on_terminal": _NO_OBSERVERS,
    "cadence": "the worker decides when to poll; AsyncRunsPlugin(requests_per_second=...) bounds it",
    "max_concurrent_calls": "Worker(max_concurrent_activities=...) bounds the calls of a worker",
}
"""The options of `Client.watch` that have no place in a workflow: what to do instead."""


class WorkflowOptions(TypedDict, total=False):
    """The options of `watch` in a workflow; that describes them."""

    tools: str | None
    on_requires_action: WorkflowHandler | None
    people: Collection[str]
    timeout: float | None
    max_outage: float | None
    max_unknown_status: float | None
    max_rounds: int | None
    observe_only: bool
    keep_tool_choice: bool
    label: Any
    output_type: type[Any] | None
    on_exit: Literal["leave", "cancel"]
    on_lost_submit: Literal["give_up", "resend"]
    cold: bool
    heartbeat_timeout: float


def check_options(options: WorkflowOptions) -> None:
    """Check the options of a watch, as `Client.watch` does.

    Raises:
        InvalidRequestError: One is unusable.
    """
    check_watch_options(
        {name: given for name, given in options.items() if name not in OWN},
        WorkflowOptions,
        whose="A watch in a workflow",
        elsewhere=next((((name,), said) for name, said in _ELSEWHERE.items() if name in options), ((), "")),
    )
    for name, (what, is_usable) in OWN.items():
        given = cast("Mapping[str, object]", options).get(name)
        if name in options and not is_usable(given):
            raise InvalidRequestError(f"{name} must be {what}; got {given!r}")
    if options.get("observe_only") and (options.get("tools") or options.get("people")):
        raise InvalidRequestError("A watch with observe_only=True answers nothing: leave out tools and people")
    if not is_plain(options.get("label")):
        raise InvalidRequestError(f"label must be plain JSON, since the history has it; got {options.get('label')!r}")
