"""Ask for approval before a tool call is executed. Only True approves: on anything else the tool does not run."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from asyncruns.lifecycle.values import Call
from asyncruns.tools.given_schema import GivenSchema
from asyncruns.tools.policies import Failure
from asyncruns.tools.results import error_output
from asyncruns.tools.signature import Signature
from asyncruns.user_code import Raised, UserTask

Approve = Callable[[Call, dict[str, Any]], bool | str | Awaitable[bool | str]]
"""Decides about a call, given the call and its validated arguments, by name.

True executes the call. False refuses it. A string refuses it as well, and is the reason that the model reads.

It may be async, and may take as long as the run can wait. A function that is not async is called in the event loop and
must not block. The arguments are a copy: changes to them do not reach the tool.
"""

REFUSED: Final = "The call was refused."


async def ask(approve: Approve, call: Call, signature: Signature | GivenSchema) -> str | Failure | None:
    """Return None if the call is approved, its output if it is refused, or the failure if `approve` failed.

    Safe to cancel: nothing has been executed. An async `approve` is cancelled and awaited, and abandoned if it ignores
    its cancellation.
    """

    async def verdict_of() -> bool | str:
        given = approve(call, signature.decode(call.arguments))
        verdict: object = await given if inspect.isawaitable(given) else given
        # Not by truth value: a forgotten return, or a dict such as {"approved": false}, must not run a tool.
        if isinstance(verdict, bool | str):
            return verdict
        raise TypeError(f"approve must return True, False or a string, not {type(verdict).__name__}")

    verdict = await UserTask(verdict_of(), f"approve (the call {call.id!r} of {call.name})").result()
    if isinstance(verdict, Raised):
        return Failure.by(verdict.error, f"The call of {call.name} could not be approved.")
    return None if verdict is True else error_output(verdict or REFUSED)
