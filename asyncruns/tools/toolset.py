"""The functions that a model may call, and the calling of them.

A run waits for the outputs of all its calls, so one tool that hangs, raises or returns nonsense must not cost the
others their work: `Toolset.call` gives a string, unless a policy of the caller's says that it should not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, overload

import msgspec

from asyncruns.errors import ConfigurationError
from asyncruns.lifecycle.values import Call
from asyncruns.tools.approval import Approve, ask
from asyncruns.tools.checks import check_callable, check_positive, named_functions
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.tools.policies import MISTAKES_OF_THE_MODEL, Failure, FailureKind, FailurePolicy, Policies
from asyncruns.tools.results import error_output, well_formed
from asyncruns.tools.signature import InvalidArgumentsError
from asyncruns.tools.tool import ToolFunction, Wire
from asyncruns.user_code import Raised
from asyncruns.user_code.attempt import attempt_now
from asyncruns.wire.names import DIALECTS, RESPONSE, THREAD_RUN
from asyncruns.wire.shown_text import on_one_line, visible

F = TypeVar("F", bound=Callable[..., Any])
OnError = Callable[[Call, Exception], object]

DEFAULT_MAX_OUTPUT_CHARACTERS: Final = 512_000
"""OpenAI takes 512 kB of outputs in one request."""

_SHOWN_NAME_CHARACTERS: Final = 64

_WIRES: Final[Mapping[str, Wire]] = {THREAD_RUN: "threads", RESPONSE: "responses"}

_logger = logging.getLogger("asyncruns.tools")


class Toolset:
    """A set of functions that a model may call, by name.

    Coroutine functions run in a task each, with a copy of the caller's context; all others run in daemon threads, at
    most 64 of them at once in the process. A thread cannot be stopped: after a timeout or a cancellation it goes on
    unheeded. A coroutine that ignores its cancellation is abandoned after 2.5 s: it is never resumed.

    Args:
        functions: Functions to begin with: a mapping by name, or any iterable of functions with names.
        max_concurrency: How many calls run at once, of all the runs that share this toolset; the others queue. None is
            no limit, which suits async tools; a tool that calls its own toolset may wait for itself under one.
        timeout: How many seconds a call may take, from its start and not from queueing. None is for ever.
        max_output: How many characters an output may have. A longer one is not cut: in its place the model reads that
            it was too long.
        on_error: Gets the call and the exception whenever a tool fails, a ToolError and a timeout included. It only
            looks on: what it raises is logged and changes nothing, and the policies below decide.
        approve: Asked before a call is done, with the call and its checked arguments, and answers True, False, or a
            text that tells the model why not (see `asyncruns.tools.Approve`). It may be async; if not, it is called in
            the loop and must not block. Meanwhile no place is held and no timeout runs. When it raises, or gives
            anything else, the tool is not run, and `if_exception` decides.
        if_unknown_tool: What to do when the model names a tool that is not here: "tell" it which there are,
            "surface" the call to the caller, or a function that gives the output (see `asyncruns.tools.FailurePolicy`).
            Its error is a LookupError.
        if_invalid_arguments: The same for arguments that do not fit; the model is told where and why. Its error is an
            InvalidArgumentsError.
        if_exception: The same for what a tool raises. The model is told that the tool failed, and not the exception's
            text. A ToolError is no such failure: the model always reads it.
        if_timeout: The same for a call that took too long. Its error is a TimeoutError.

    Raises:
        ConfigurationError: A number is not positive, a policy is none, or a function cannot be a tool (see `tool`).
    """

    def __init__(
        self,
        functions: Mapping[str, Any] | Iterable[Callable[..., Any]] = (),
        *,
        max_concurrency: int | None = None,
        timeout: float | None = None,
        max_output: int = DEFAULT_MAX_OUTPUT_CHARACTERS,
        on_error: OnError | None = None,
        approve: Approve | None = None,
        if_unknown_tool: FailurePolicy = "tell",
        if_invalid_arguments: FailurePolicy = "tell",
        if_exception: FailurePolicy = "tell",
        if_timeout: FailurePolicy = "tell",
    ) -> None:
        check_positive("max_concurrency", max_concurrency)
        check_positive("timeout", timeout)
        check_positive("max_output", max_output)
        check_callable("on_error", on_error, optional=True)
        check_callable("approve", approve, optional=True)
        self._policies = Policies(
            if_unknown_tool=if_unknown_tool,
            if_invalid_arguments=if_invalid_arguments,
            if_exception=if_exception,
            if_timeout=if_timeout,
        )
        self._approve = approve
        self._timeout = timeout
        self._max_output = max_output
        self._on_error = on_error
        self._limit = ConcurrencyLimit(max_concurrency)
        self._tools: dict[str, ToolFunction] = {}
        for name, function in named_functions(functions):
            self.tool(function, name=name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tools, in the order in which they were added."""
        return tuple(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __repr__(self) -> str:
        return f"<Toolset {', '.join(self._tools) or 'empty'}; {self._limit.running} running>"

    @overload
    def tool(
        self,
        function: F,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | msgspec.UnsetType | None = msgspec.UNSET,
        strict: bool = False,
        approve: Approve | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> F: ...

    @overload
    def tool(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | msgspec.UnsetType | None = msgspec.UNSET,
        strict: bool = False,
        approve: Approve | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Callable[[F], F]: ...

    def tool(
        self,
        function: F | None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | msgspec.UnsetType | None = msgspec.UNSET,
        strict: bool = False,
        approve: Approve | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> F | Callable[[F], F]:
        """Add a function; works as a decorator, with and without arguments, and gives the function back unchanged.

        Args:
            function: Any callable whose parameters can be given by name.
            name: What the model calls it; by default the function's name.
            description: What the model reads; by default the first paragraph of the docstring.
            timeout: Seconds, as for the toolset, whose timeout is the default; None is for ever.
            strict: Ask for OpenAI's strict mode: the schema then requires every parameter, also those with defaults.
            approve: As for the toolset, whose `approve` is the default; None asks nobody.

        Raises:
            ConfigurationError: The name is taken or not allowed, a parameter cannot be given by name, a parameter's
                type has no JSON Schema, or it is no function (or one that lacks its `self`).
        """

        def add(function: F) -> F:
            check_callable("A tool", function)
            self._add(
                ToolFunction.of(
                    function,
                    name=name,
                    description=description,
                    timeout=self._timeout if timeout is msgspec.UNSET else timeout,
                    strict=strict,
                    approve=self._approve if approve is msgspec.UNSET else approve,
                )
            )
            return function

        return add if function is None else add(function)

    def _add(self, tool: ToolFunction) -> None:
        check_positive("timeout", tool.timeout)
        check_callable("approve", tool.approve, optional=True)
        if tool.name in self._tools:
            raise ConfigurationError(f"There is a tool named {tool.name} already. Give another name with name=.")
        self._tools[tool.name] = tool

    def definitions(self, wire: Wire = "threads") -> list[dict[str, Any]]:
        """Give the tools as an API takes them in `tools=`; the caller may change what it gets.

        Args:
            wire: "threads" for assistants and runs, "responses" for responses, whose form is flat and always says
                whether a function is strict. The names that a `RunRef` has for them are understood, too.

        Raises:
            ConfigurationError: There is no such API.
        """
        named = _WIRES.get(DIALECTS.get(str(wire), ""))
        if named is None:
            raise ConfigurationError(f'wire must be "threads" or "responses"; got {wire!r}')
        return [tool.definition(named) for tool in self._tools.values()]

    async def call(self, call: Call, *, limit: ConcurrencyLimit | None = None) -> str:
        """Do one call and give its output, whatever happens.

        Errors are outputs: a JSON object with the key `error`. So is a refused approval.

        Safe to cancel: while it asks for approval or queues, nothing has happened; afterwards a coroutine function is
        cancelled and awaited, and a thread is abandoned and goes on. A coroutine that has not ended 2.5 s after its
        cancellation is abandoned as well: it is never resumed, and a warning names it. Nothing is sent to the server
        here.

        Args:
            call: What the model asked for.
            limit: Takes a place here too, while the tool runs, and before it takes one in the toolset's own limit.

        Raises:
            CallNotAnsweredError: A policy is "surface", and the call failed in its way.
            asyncio.CancelledError: The calling task was cancelled.
            KeyboardInterrupt: Ctrl-C was pressed while a function of the caller's ran in the loop. Where such a
                function raises it by itself, it has failed, as with any exception.
        """
        output = await self._do(call, limit)
        if isinstance(output, Failure):
            self._observe(call, output)
            output = await self._policies.output_for(call, output)
        if len(output) <= self._max_output:
            return output
        return error_output(
            f"The output of {_shown(call.name)} has {len(output)} characters, which is more than the limit of "
            f"{self._max_output}. Ask for less."
        )

    async def _do(self, call: Call, limit: ConcurrencyLimit | None) -> str | Failure:
        if call.is_cut:
            return cut_off(call)
        tool = self._tools.get(call.name)
        if tool is None:
            unknown = LookupError(self._no_such_tool(call.name))
            return Failure(FailureKind.UNKNOWN_TOOL, unknown, str(unknown))
        arguments = _decoded(tool, call)
        if isinstance(arguments, Failure):
            return arguments
        if tool.approve is not None:
            refused = await ask(tool.approve, call, tool.signature)
            if refused is not None:
                return refused
        if limit is None:
            async with self._limit:
                return await tool.run(arguments, call.id)
        async with limit, self._limit:
            return await tool.run(arguments, call.id)

    def _observe(self, call: Call, failure: Failure) -> None:
        """Log what our code did wrong, and give it to the hook; what the model did wrong, only the model needs."""
        if failure.kind in MISTAKES_OF_THE_MODEL:
            return
        fields = {"tool_call_id": call.id, "tool": call.name}
        if failure.kind is FailureKind.TOOL_ERROR:  # meant for the model; its text is content, and not logged
            _logger.info("A ToolError at the call %r of %s", call.id, on_one_line(call.name), extra=fields)
        else:
            unexpected = failure.error if failure.kind is FailureKind.EXCEPTION else None
            told = visible(well_formed(failure.told))  # a log file could not hold a lone surrogate
            _logger.warning(
                "%s (the call %r of %s)", told, call.id, on_one_line(call.name), exc_info=unexpected, extra=fields
            )
        if self._on_error is None:
            return
        hook = self._on_error
        raised = attempt_now(lambda: hook(call, failure.error))
        if isinstance(raised, Raised):
            _logger.error("on_error raised at the call %r", call.id, exc_info=raised.error)

    def _no_such_tool(self, name: str) -> str:
        names = f"The tools are: {', '.join(self._tools)}." if self._tools else "There are no tools."
        return f"There is no tool named {_shown(name)}. {names}"


def _decoded(tool: ToolFunction, call: Call) -> dict[str, Any] | Failure:
    arguments = attempt_now(lambda: tool.signature.decode(call.arguments))
    if not isinstance(arguments, Raised):
        return arguments
    if isinstance(arguments.error, InvalidArgumentsError):
        told = f"Invalid arguments for {tool.name}: {arguments.error}"
        return Failure(FailureKind.INVALID_ARGUMENTS, arguments.error, told)
    return Failure.by(arguments.error, f"The tool {tool.name} failed.")  # a `__post_init__` may raise anything


def cut_off(call: Call) -> Failure:
    """Return the failure of a call that the model did not finish writing; its arguments may be any part of a whole."""
    told = f"The call of {_shown(call.name)} was cut off before it was complete, so it was not run. Make it again."
    return Failure(FailureKind.INVALID_ARGUMENTS, InvalidArgumentsError(told), told)


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME_CHARACTERS else name[:_SHOWN_NAME_CHARACTERS] + "..."
