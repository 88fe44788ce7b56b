"""Asks, before a call is done, whether it may be. Only True is a yes: whatever else comes, the tool does not run."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from asyncruns.lifecycle.values import Call
from asyncruns.tools.policies import Failure
from asyncruns.tools.results import error_output
from asyncruns.tools.signature import Signature
from asyncruns.user_code import Raised, UserTask

Approve = Callable[[Call, dict[str, Any]], bool | str | Awaitable[bool | str]]
"""Gets a call and its checked arguments, by name. True: do it. False: refused. A text: refused, and the model reads it.

It may be async, and take as long as the run may wait. A function that is not async is called in the loop, and must not
block. The arguments are its own copy: what it changes there, the tool does not see.
"""

REFUSED: Final = "The call was refused."


async def ask(approve: Approve, call: Call, signature: Signature) -> str | Failure | None:
    """Ask for approval; give None where the call may be done, else its output, or why there was no clear answer.

    Safe to cancel: nothing has happened. An async `approve` is cancelled and awaited, and abandoned where it ignores
    that.
    """

    async def verdict_of() -> bool | str:
        given = approve(call, signature.decode(call.arguments))
        verdict: object = await given if inspect.isawaitable(given) else given
        # Not by truth: a forgotten return, or a dict that says {"approved": false}, must not run a tool.
        if isinstance(verdict, bool | str):
            return verdict
        raise TypeError(f"approve must give True, False or a text, not {type(verdict).__name__}")

    verdict = await UserTask(verdict_of(), f"approve (the call {call.id!r} of {call.name})").result()
    if isinstance(verdict, Raised):
        return Failure.by(verdict.error, f"The call of {call.name} could not be approved.")
    return None if verdict is True else error_output(verdict or REFUSED)
