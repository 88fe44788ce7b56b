"""Decide the output of a failed call: a table from the kind of failure to the caller's policy.

Without a policy the error becomes the output. The model reads the details of its own mistakes, but only a general text
about an exception in the caller's code, whose message was not written for the model. The message of a `ToolError` was
written for it, so the model always reads that, whatever the policies are.
"""

from __future__ import annotations

import enum
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

import msgspec

from asyncruns.errors import CallNotAnsweredError, ConfigurationError, ToolError
from asyncruns.lifecycle.values import Call
from asyncruns.tools.results import encode_output, error_output
from asyncruns.user_code import Raised, UserTask

FailurePolicy = Literal["tell", "surface"] | Callable[[Call, Exception], object]
"""What to do with a call that failed.

`"tell"` sends the error to the model as the call's output. `"surface"` leaves the call unanswered and hands it to the
caller. A function receives the call and the error, and returns the output, of any type that can be encoded; it may be
async. If it fails, the model reads what it would have read without it; the text of a `ToolError` that it raises is sent
to the model instead.
"""

InterruptedPolicy = FailurePolicy | Literal["rerun"]
"""What to do with a call that had begun when the process ended, once the watch is resumed from a journal.

`"rerun"` runs it again; the others are those of `FailurePolicy`. A function may return "rerun" as well.
"""

RERUN: Final = "rerun"

_logger = logging.getLogger("asyncruns.tools")


class FailureKind(enum.Enum):
    """How a call failed. The values are the names of the toolset's options, except for the last, which has none."""

    UNKNOWN_TOOL = "if_unknown_tool"
    INVALID_ARGUMENTS = "if_invalid_arguments"
    EXCEPTION = "if_exception"
    TIMEOUT = "if_timeout"
    INTERRUPTED = "if_interrupted"
    TOOL_ERROR = "a ToolError"


MISTAKES_OF_THE_MODEL: Final = frozenset({FailureKind.UNKNOWN_TOOL, FailureKind.INVALID_ARGUMENTS})


class Failure(msgspec.Struct, frozen=True):
    """The failure of a call, before a policy has decided its output.

    Attributes:
        kind: Which policy decides.
        error: What happened; for the caller.
        told: What the model reads if the policy is "tell".
    """

    kind: FailureKind
    error: Exception
    told: str

    @classmethod
    def by(cls, error: Exception, general: str) -> Failure:
        """Return the failure for an exception from the caller's code; the model reads a ToolError's text or `general`.

        `general` also replaces the text of a ToolError that has none.
        """
        if isinstance(error, ToolError):
            return cls(FailureKind.TOOL_ERROR, error, str(error) or general)
        return cls(FailureKind.EXCEPTION, error, general)


class Policies:
    """The policies of a toolset.

    Args:
        by_option: The policies by option name; the default is "tell".

    Raises:
        ConfigurationError: A policy is neither "tell" nor "surface" nor a function.
    """

    def __init__(self, **by_option: InterruptedPolicy) -> None:
        for option, policy in by_option.items():
            check_policy(option, policy)
        # A ToolError has no option, so its policy is always "tell".
        self._by_kind: Mapping[FailureKind, InterruptedPolicy] = {
            kind: by_option.get(kind.value, "tell") for kind in FailureKind
        }

    async def output_for(self, call: Call, failure: Failure, policy: InterruptedPolicy | None = None) -> str:
        """Return the output of a call that failed; "rerun" for one that is to run again.

        Safe to cancel: an async policy is cancelled and awaited, and abandoned if it ignores its cancellation.

        Args:
            call: The call.
            failure: How it failed.
            policy: The policy of its tool, if that has one of its own.

        Raises:
            CallNotAnsweredError: The policy is "surface".
        """
        policy = policy or self._by_kind[failure.kind]
        if policy == RERUN:
            return RERUN
        if policy == "surface":
            raise CallNotAnsweredError(
                f"The call {call.id!r} is left to the caller: {failure.told} ({failure.kind.value} is "
                '"surface".) Submit an output for it, or cancel the run.',
                call=call,
            ) from failure.error
        if callable(policy):
            return await _decided(policy, call, failure)
        return error_output(failure.told)


def check_policy(option: str, policy: InterruptedPolicy) -> None:
    """Check the policy of an option.

    Raises:
        ConfigurationError: It is none.
    """
    words = ("tell", "surface", RERUN) if option == FailureKind.INTERRUPTED.value else ("tell", "surface")
    # A value of another type comes from a caller without a type checker.
    if not callable(policy) and cast("Any", policy) not in words:
        named = ", ".join(f'"{word}"' for word in words)
        raise ConfigurationError(f"{option} must be {named} or a function of the call and the error; got {policy!r}.")


async def _decided(policy: Callable[[Call, Exception], object], call: Call, failure: Failure) -> str:
    async def decide() -> str:
        given = policy(call, failure.error)
        return encode_output(await given if inspect.isawaitable(given) else given)

    what = f"The function of {failure.kind.value} (the call {call.id!r} of {call.name})"
    output = await UserTask(decide(), what).result()
    if not isinstance(output, Raised):
        return output
    # The run still needs an output: fall back to the text for the model, as if the policy were "tell".
    _logger.warning("%s failed at the call %r", failure.kind.value, call.id, exc_info=output.error)
    return error_output(Failure.by(output.error, failure.told).told)
