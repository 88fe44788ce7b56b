"""One function that a model may call."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from asyncruns.errors import ConfigurationError, ToolError
from asyncruns.schemas.strict import NotStrictError
from asyncruns.tools.approval import Approve
from asyncruns.tools.context import ToolContext
from asyncruns.tools.given_schema import GivenSchema
from asyncruns.tools.policies import Failure, FailureKind, InterruptedPolicy
from asyncruns.tools.results import CallOutput, encode_output
from asyncruns.tools.signature import Signature, innermost
from asyncruns.tools.worker_threads import Place, place_for_thread, run_in_thread
from asyncruns.user_code import Raised, UserTask

Wire = Literal["threads", "responses"]
"""Which API a definition is for: that of threads, assistants and runs, or that of responses."""

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolFunction(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a model may call, with its schema and options.

    Attributes:
        timeout: Seconds that a call may take from its start; None means no limit.
        approve: Called before each call to approve it; None approves all.
        idempotent: Whether a call may safely begin twice.
        if_interrupted: What becomes of a call that had begun when the process ended; None for the toolset's policy.
        is_async: Whether the function is called in the loop and not in a thread.
    """

    name: str
    description: str
    function: Callable[..., Any]
    signature: Signature | GivenSchema
    timeout: float | None
    strict: bool
    approve: Approve | None
    idempotent: bool
    if_interrupted: InterruptedPolicy | None
    is_async: bool

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None,
        description: str | None,
        timeout: float | None,
        parameters: Mapping[str, Any] | None,
        strict: bool,
        approve: Approve | None,
        idempotent: bool,
        if_interrupted: InterruptedPolicy | None,
    ) -> ToolFunction:
        """Make a tool; the name and the description default to the function's own.

        Raises:
            ConfigurationError: The name is not allowed, or a parameter has no JSON Schema (see `Signature` and
                `GivenSchema`).
        """
        inner = innermost(function)
        if name is None:
            name = str(getattr(inner, "__name__", type(inner).__name__))
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot be the name of a tool: it takes 1 to 64 of a-z, A-Z, 0-9, _ and -. "
                "Pass one with name=."
            )
        signature: Signature | GivenSchema
        try:
            if parameters is None:
                signature = Signature(name, function, strict=strict)
            else:
                signature = GivenSchema(name, function, parameters, strict=strict)
        except NotStrictError as error:
            raise ConfigurationError(f"The tool {name} cannot be strict: {error}, or leave strict off.") from error
        return cls(
            name=name,
            description=_first_paragraph(inner) if description is None else description,
            function=function,
            signature=signature,
            timeout=timeout,
            strict=strict,
            approve=approve,
            idempotent=idempotent,
            if_interrupted=if_interrupted,
            is_async=_is_async(inner),
        )

    def definition(self, wire: Wire = "threads") -> dict[str, Any]:
        """Return the tool as an item of `tools=` in a request."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        function["parameters"] = copy.deepcopy(self.signature.schema)
        if wire == "responses":
            # Always sent: in this API a function is strict unless `strict` is false.
            # https://platform.openai.com/docs/api-reference/responses/create#responses-create-tools
            return {"type": "function", **function, "strict": self.strict}
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    async def run(self, arguments: dict[str, Any], context: ToolContext[Any]) -> CallOutput | Failure:
        """Call the function and encode its return value; the timeout does not include waiting for a thread.

        A value that is returned after the timeout is discarded. Safe to cancel: a coroutine function is cancelled and
        awaited, and abandoned if it ignores its cancellation; a thread is abandoned and continues to run.
        """
        if self.is_async:
            return await self._run(arguments, context, None)
        with await place_for_thread() as place:
            return await self._run(arguments, context, place)

    async def _run(
        self, arguments: dict[str, Any], context: ToolContext[Any], place: Place | None
    ) -> CallOutput | Failure:
        def call() -> Any:
            return self.signature.call(self.function, arguments, context)

        def start() -> None:
            if self.timeout is not None:
                driven.expire_in(self.timeout)

        async def work() -> str:
            if self.is_async:
                start()
                value = await call()
            else:
                value = await run_in_thread(call, name=self.name, place=place, on_start=start)
            return encode_output(value)

        driven = UserTask(work(), f"The tool {self.name} (the call {context.call.id!r})")
        output = await driven.result()
        error = output.error if isinstance(output, Raised) else None
        # A ToolError that is raised on the timeout's cancellation is the tool's own text for the model: keep it.
        if driven.has_expired and not isinstance(error, ToolError):
            return self._timed_out(error)
        if isinstance(output, Raised):
            return Failure.by(output.error, f"The tool {self.name} failed.")
        return CallOutput(output)

    def _timed_out(self, cause: Exception | None) -> Failure:
        unit = "second" if self.timeout == 1 else "seconds"
        error = TimeoutError(f"The tool {self.name} did not finish within {self.timeout:g} {unit}.")
        error.__cause__ = cause
        return Failure(FailureKind.TIMEOUT, error, str(error))


def _is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call returns a coroutine, so does not block; for callable objects, check their `__call__`."""
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _first_paragraph(function: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
