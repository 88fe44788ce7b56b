"""What a run does: values that a test states, and the default for a run without a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator.arguments import made_up_arguments

_ENDS: Final = frozenset({"completed", "failed", "incomplete", "never"})
_DURATIONS: Final = ("queued", "working", "cancelling", "lifetime")


@dataclass(frozen=True)
class FunctionCall:
    """One tool call of the model.

    Args:
        name: The function's name.
        arguments: The text as the model writes it, which need not be JSON; a dict is encoded as JSON.
    """

    name: str
    arguments: str | Mapping[str, Any] = "{}"

    @property
    def text(self) -> str:
        """The arguments as they are on the wire."""
        if isinstance(self.arguments, str):
            return self.arguments
        return msgspec.json.encode(self.arguments).decode()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The course of one run, or of a chain of responses; durations are in seconds.

    A cancel takes `cancelling` seconds. If the run's own end comes sooner, the cancel has no effect; with `math.inf`, a
    cancelled run stays in `cancelling` until it expires.

    Attributes:
        queued: Time in `queued`, at the start and again after each submit.
        working: Time in `in_progress`, before each round and before the end.
        rounds: The rounds of tool calls; the calls of one round are pending at the same time.
        end: "completed", "failed", "incomplete", or "never" (stays in progress until it expires; a response never
            expires).
        answer: The assistant's message; a dict is encoded as JSON. None makes one: a value of the JSON Schema that the
            request has as its format, or else the outputs, or the last user message.
        refusal: What the model writes in place of an answer; None if it does not refuse.
        error_code, error_message: `last_error` of a failed run.
        incomplete_reason: `incomplete_details.reason` of an incomplete run.
        cancelling: Time from the cancel to `cancelled`; a response keeps its status during that time.
        lifetime: Time from creation to expiry; not used for responses.
        reuse_call_ids: Whether the calls of every round are `call_0`, `call_1`, ..., as some servers number them.
    """

    queued: float = 0.1
    working: float = 0.5
    rounds: tuple[tuple[FunctionCall, ...], ...] = ()
    end: str = "completed"
    answer: str | Mapping[str, Any] | None = None
    refusal: str | None = None
    error_code: str = "server_error"
    error_message: str = "Sorry, something went wrong."
    incomplete_reason: str = "max_completion_tokens"
    cancelling: float = 0.2
    lifetime: float = 600.0
    reuse_call_ids: bool = False

    def __post_init__(self) -> None:
        if self.end not in _ENDS:
            raise ValueError(f"end is {self.end!r}; give one of {sorted(_ENDS)}; a run with 'never' expires")
        if (wrong := _wrong_in(self.rounds)) is not None:
            raise ValueError(
                f"rounds is a sequence of rounds, and each round one of FunctionCalls: rounds=((call,),); got a {wrong}"
            )
        if not all(self.rounds):  # an empty round would wait in `requires_action` for no outputs at all
            raise ValueError("a round has no calls; leave it out")
        if self.answer is not None and self.refusal is not None:
            raise ValueError("a model that refuses does not answer; give answer or refusal")
        for name in _DURATIONS:
            if not getattr(self, name) >= 0:  # `not >=`, so that NaN is refused as well
                raise ValueError(f"{name} is {getattr(self, name)!r}; give seconds, 0 or more")


def _wrong_in(rounds: Any) -> str | None:
    """Return what is not of the right kind in the rounds of a scenario; None if nothing is."""
    if not _is_row(rounds):
        return f"{type(rounds).__name__} as rounds"
    for each in rounds:
        if not _is_row(each):
            return f"{type(each).__name__} as a round"
        for call in each:
            if not isinstance(call, FunctionCall):
                return f"{type(call).__name__} as a call"
    return None


def _is_row(given: object) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What is known when a run or a response is created, for choosing its scenario.

    Attributes:
        assistant_id, thread_id: "" for a response.
        tools: The tools of the request, or those of the assistant if it has none, as on the wire.
        message: The text of the last user message, or "".
        number: Number of runs (for a response: of responses) that this emulator created before.
    """

    assistant_id: str
    thread_id: str
    model: str
    instructions: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    message: str = ""
    number: int = 0


ScenarioSource = Scenario | Callable[[RunRequest], Scenario]


def default_scenario(request: RunRequest) -> Scenario:
    """Return a scenario that calls each function of the run once, all in one round, and then completes.

    It respects `tool_choice` and `parallel_tool_calls`: "none" calls nothing, a named function is the only one called,
    and without parallel calls each function has a round of its own.
    """
    calls = tuple(
        FunctionCall(name=function["name"], arguments=made_up_arguments(function.get("parameters") or {}))
        for function in _offered_functions(request)
    )
    if not calls:
        return Scenario()
    if request.parallel_tool_calls:
        return Scenario(rounds=(calls,))
    return Scenario(rounds=tuple((call,) for call in calls))


def _offered_functions(request: RunRequest) -> list[Mapping[str, Any]]:
    # Tools of runs have the function in a field of its own; tools of responses have its fields beside the type.
    functions: list[Mapping[str, Any]] = [
        tool.get("function") or tool for tool in request.tools if tool.get("type") == "function"
    ]
    choice = request.tool_choice
    if choice == "none":
        return []
    if isinstance(choice, dict) and choice.get("type") == "function":
        named = choice.get("function") or choice
        return [function for function in functions if function["name"] == named["name"]]
    return functions
