"""Ask for approval before a tool call is executed. Only True approves: on anything else the tool does not run."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from asyncruns.lifecycle.values import Call
from asyncruns.tools.context import ToolContext
from asyncruns.tools.given_schema import GivenSchema
from asyncruns.tools.policies import Failure
from asyncruns.tools.results import CallOutput, error_output
from asyncruns.tools.signature import Signature
from asyncruns.user_code import Raised, UserTask

_Verdict = bool | str | Awaitable[bool | str]

Approve = Callable[[Call, dict[str, Any]], _Verdict] | Callable[[Call, dict[str, Any], ToolContext[Any]], _Verdict]
"""Decides about a call, given the call, its validated arguments by name, and its `ToolContext` if it requires a third.

True executes the call. False refuses it. A string refuses it as well, and is the reason that the model reads.

It may be async, and may take as long as the run can wait. A function that is not async is called in the event loop and
must not block. The arguments are a copy: changes to them do not reach the tool.
"""

REFUSED: Final = "The call was refused."


async def ask(
    approve: Approve, context: ToolContext[Any], signature: Signature | GivenSchema
) -> CallOutput | Failure | None:
    """Return None if the call is approved, its output if it is refused, or the failure if `approve` failed.

    Safe to cancel: nothing has been executed. An async `approve` is cancelled and awaited, and abandoned if it ignores
    its cancellation.
    """

    call = context.call
    more = (context,) if _requires_context(approve) else ()

    async def verdict_of() -> bool | str:
        given = cast("Callable[..., _Verdict]", approve)(call, signature.decode(call.arguments), *more)
        verdict: object = await given if inspect.isawaitable(given) else given
        # Not by truth value: a forgotten return, or a dict such as {"approved": false}, must not run a tool.
        if isinstance(verdict, bool | str):
            return verdict
        raise TypeError(f"approve must return True, False or a string, not {type(verdict).__name__}")

    verdict = await UserTask(verdict_of(), f"approve (the call {call.id!r} of {call.name})").result()
    if isinstance(verdict, Raised):
        return Failure.by(verdict.error, f"The call of {call.name} could not be approved.")
    return None if verdict is True else CallOutput(error_output(verdict or REFUSED), failed=True)


def _requires_context(approve: Approve) -> bool:
    """Return whether it must be given a third argument: one with a default is the caller's own."""
    try:
        parameters = inspect.signature(approve).parameters.values()
    except (TypeError, ValueError):  # a callable written in C has no signature that can be read
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in positional and each.default is each.empty for each in parameters) > 2
