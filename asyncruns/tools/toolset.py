"""The functions that a model may call, and their execution.

A run waits for the outputs of all its calls, so a tool that hangs, raises or returns a value that cannot be encoded
must not lose the outputs of the others: `Toolset.call` returns a string, unless a policy of the caller is "surface".
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
from asyncruns.tools.context import RunFacts, ToolContext, context_for
from asyncruns.tools.policies import (
    MISTAKES_OF_THE_MODEL,
    RERUN,
    Failure,
    FailureKind,
    FailurePolicy,
    InterruptedPolicy,
    Policies,
    check_policy,
)
from asyncruns.tools.results import CallOutput, error_output, well_formed
from asyncruns.tools.signature import InvalidArgumentsError
from asyncruns.tools.tool import ToolFunction, Wire
from asyncruns.user_code import Raised
from asyncruns.user_code.attempt import attempt_now
from asyncruns.wire.names import DIALECTS, RESPONSE, THREAD_RUN
from asyncruns.wire.shown_text import on_one_line, visible

F = TypeVar("F", bound=Callable[..., Any])
OnError = Callable[[Call, Exception], object]

DEFAULT_MAX_OUTPUT_CHARACTERS: Final = 512_000
"""OpenAI accepts 512 kB of outputs in one request."""

_SHOWN_NAME_CHARACTERS: Final = 64

_WIRES: Final[Mapping[str, Wire]] = {THREAD_RUN: "threads", RESPONSE: "responses"}

_logger = logging.getLogger("asyncruns.tools")


class Toolset:
    """A set of functions that a model may call, by name.

    Each call of a coroutine function runs in a task of its own, with a copy of the caller's context; all other
    functions run in daemon threads, at most 64 at a time in the process. A thread cannot be stopped: after a timeout or
    a cancellation it continues to run, and its result is discarded. A coroutine that ignores its cancellation is
    abandoned after 2.5 s: it is never resumed.

    Args:
        functions: Initial functions: a mapping by name, or any iterable of functions with names.
        max_concurrency: Maximum number of calls at a time, over all runs that share this toolset; further calls queue.
            None means no limit, which suits async tools. With a limit, a tool that calls its own toolset may wait for
            itself.
        timeout: Seconds that a call may take from its start, without queueing. None means no limit.
        max_output: Maximum number of characters of an output. A longer output is not cut: the model reads an error
            that says that it was too long.
        on_error: Called with the call and the exception whenever a tool fails, also with a ToolError or a timeout. It
            only observes: an exception that it raises is logged, and the policies below decide.
        approve: Called before each call, with the call and its validated arguments. Returns True, False, or a string
            that tells the model why the call was refused (see `asyncruns.tools.Approve`). It may be async; if not, it
            is called in the loop and must not block. While it runs, the call holds no place and its timeout does not
            run. If it raises, or returns anything else, the tool is not run, and `if_exception` decides.
        if_unknown_tool: What to do if the model names a tool that does not exist: "tell" sends it the names of the
            tools, "surface" leaves the call to the caller, and a function returns the output (see
            `asyncruns.tools.FailurePolicy`). The error is a LookupError.
        if_invalid_arguments: The same for arguments that do not fit; "tell" sends where and why. The error is an
            InvalidArgumentsError.
        if_exception: The same for an exception in a tool; "tell" sends that the tool failed, without the exception's
            text. Does not apply to a ToolError: the model always reads its text.
        if_timeout: The same for a call that exceeded its timeout. The error is a TimeoutError.
        if_interrupted: The same for a call that had begun when the process ended, once its watch is resumed from a
            journal: "tell" sends that the outcome of the call is not known, and "rerun" runs it again. A function may
            find out what has happened, and return the output, or "rerun". The error is a RuntimeError.
        name: Names this toolset in a journal, so that `resume(toolsets=...)` finds it again for the watches that had
            it. Default "": they get the tools of the fleet that resumes them.

    Attributes:
        name: The argument of the same name.

    Raises:
        ConfigurationError: A number is not positive, a policy is not valid, or a function cannot be a tool (see
            `tool`).
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
        if_interrupted: InterruptedPolicy = "tell",
        name: str = "",
    ) -> None:
        self.name: str = name
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
            if_interrupted=if_interrupted,
        )
        self._approve = approve
        self._timeout = timeout
        self._max_output = max_output
        self._on_error = on_error
        self._limit = ConcurrencyLimit(max_concurrency)
        self._tools: dict[str, ToolFunction] = {}
        for named_as, function in named_functions(functions):
            self.tool(function, name=named_as)

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
        parameters: Mapping[str, Any] | None = None,
        timeout: float | msgspec.UnsetType | None = msgspec.UNSET,
        strict: bool = False,
        approve: Approve | msgspec.UnsetType | None = msgspec.UNSET,
        idempotent: bool = False,
        if_interrupted: InterruptedPolicy | None = None,
    ) -> F: ...

    @overload
    def tool(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | msgspec.UnsetType | None = msgspec.UNSET,
        strict: bool = False,
        approve: Approve | msgspec.UnsetType | None = msgspec.UNSET,
        idempotent: bool = False,
        if_interrupted: InterruptedPolicy | None = None,
    ) -> Callable[[F], F]: ...

    def tool(
        self,
        function: F | None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | msgspec.UnsetType | None = msgspec.UNSET,
        strict: bool = False,
        approve: Approve | msgspec.UnsetType | None = msgspec.UNSET,
        idempotent: bool = False,
        if_interrupted: InterruptedPolicy | None = None,
    ) -> F | Callable[[F], F]:
        """Add a function. Works as a decorator, with and without arguments, and returns the function unchanged.

        Each parameter has an annotation: a type that msgspec reads, or a model of pydantic. `Annotated` may hold a
        description as a text, limits as `msgspec.Meta(ge=1)`, or a `pydantic.Field(...)`. With the extra `docstrings`,
        descriptions also come from the docstring. A parameter of type `ToolContext` is not shown to the model.

        Args:
            function: Any callable whose parameters can be passed by name.
            name: Name that the model uses; by default the function's name.
            description: Description that the model reads; by default the first paragraph of the docstring.
            parameters: The JSON Schema of the parameters, in place of the annotations: for tools from an MCP server or
                an OpenAPI description. The function takes the arguments by name, or all of them in one dict. Only
                their names are checked: that required ones are there, and no others if `additionalProperties` is false.
            timeout: Seconds that a call may take; by default the toolset's timeout. None means no limit.
            idempotent: Whether a call may safely begin twice, as a lookup may. Then one that had begun when the process
                ended runs again, once its watch is resumed from a journal. Nothing else begins a call twice.
            if_interrupted: As for the toolset, for this tool; it takes precedence over `idempotent`.
            strict: Whether to use OpenAI's strict mode, whose schema requires every parameter, even with a default.
            approve: As for the toolset, whose `approve` is the default; None approves all calls.

        Raises:
            ConfigurationError: The name is taken or not allowed, a parameter cannot be passed by name or has no
                annotation, a parameter's type has no JSON Schema, something in its annotation would be ignored, or
                `function` cannot be called or is an unbound method.
        """

        def add(function: F) -> F:
            check_callable("A tool", function)
            self._add(
                ToolFunction.of(
                    function,
                    name=name,
                    description=description,
                    parameters=parameters,
                    timeout=self._timeout if timeout is msgspec.UNSET else timeout,
                    strict=strict,
                    approve=self._approve if approve is msgspec.UNSET else approve,
                    idempotent=idempotent,
                    if_interrupted=if_interrupted,
                )
            )
            return function

        return add if function is None else add(function)

    def _add(self, tool: ToolFunction) -> None:
        check_positive("timeout", tool.timeout)
        check_callable("approve", tool.approve, optional=True)
        if tool.if_interrupted is not None:
            check_policy("if_interrupted", tool.if_interrupted)
        if tool.name in self._tools:
            raise ConfigurationError(f"There is already a tool named {tool.name}. Pass another name with name=.")
        self._tools[tool.name] = tool

    def is_idempotent(self, name: str) -> bool:
        """Return whether a call of this tool may safely begin twice; False if there is no such tool."""
        return name in self._tools and self._tools[name].idempotent

    def definitions(self, wire: Wire = "threads") -> list[Any]:
        """Return the tools as a request takes them in `tools=`: a dict for each. The caller may modify the list.

        Its items are typed as Any, so that other clients, which have types of their own for them, take them as well.

        Args:
            wire: "threads" for assistants and runs, "responses" for responses, whose format is flat and always states
                whether a function is strict. The dialect names of `RunRef` are accepted as well.

        Raises:
            ConfigurationError: `wire` is not one of these names.
        """
        named = _WIRES.get(DIALECTS.get(str(wire), ""))
        if named is None:
            raise ConfigurationError(f'wire must be "threads" or "responses"; got {wire!r}')
        return [tool.definition(named) for tool in self._tools.values()]

    async def call(
        self,
        call: Call,
        *,
        limit: ConcurrencyLimit | None = None,
        context: object = None,
        facts: RunFacts | None = None,
    ) -> str:
        """Execute one call and return its output.

        An error is an output as well: a JSON object with the key `error`. So is a refused approval.

        Safe to cancel: while the call waits for approval or for a place, nothing has happened; afterwards a coroutine
        function is cancelled and awaited, and a thread is abandoned and continues to run. A coroutine that has not
        ended 2.5 s after its cancellation is abandoned as well: it is never resumed, and a warning names it. This
        method sends nothing to the server.

        Args:
            call: The tool call of the model.
            limit: Another limit to take a place in while the tool runs, before the toolset's own.
            context: The `value` of the `ToolContext` that tools may ask for.
            facts: What is known of the run, for the same; None outside of a watch.

        Raises:
            CallNotAnsweredError: The call failed, and the policy for its failure is "surface".
            asyncio.CancelledError: The calling task was cancelled.
            KeyboardInterrupt: Ctrl-C was pressed while a function of the caller ran in the loop. If such a function
                raises KeyboardInterrupt itself, the call fails, as with any exception.
        """
        return (await self.output_of(context_for(call, context, facts or RunFacts()), limit)).text

    async def output_of(self, context: ToolContext[Any], limit: ConcurrencyLimit | None = None) -> CallOutput:
        """Execute the call of a context, as `call` does, and return its output together with whether it failed."""
        call = context.call
        done = await self._do(call, limit, context)
        if isinstance(done, Failure):
            self._observe(call, done)
            done = CallOutput(await self._policies.output_for(call, done), failed=True)
        if len(done.text) <= self._max_output:
            return done
        # Not truncated: half a JSON document would look complete to the model.
        too_long = (
            f"The output of {_shown(call.name)} has {len(done.text)} characters, which is more than the limit of "
            f"{self._max_output}. Ask for less."
        )
        return CallOutput(error_output(too_long), failed=True)

    async def output_of_interrupted(self, call: Call) -> CallOutput | None:
        """Return the output of a call that had begun when the process ended; None if it is to run again.

        Safe to cancel, as `call` is.

        Raises:
            CallNotAnsweredError: The policy is "surface".
        """
        tool = self._tools.get(call.name)
        policy = None if tool is None else tool.if_interrupted or (RERUN if tool.idempotent else None)
        told = "The outcome of this call is not known: the process that ran it ended."
        failure = Failure(FailureKind.INTERRUPTED, RuntimeError(told), told)
        output = await self._policies.output_for(call, failure, policy)
        return None if output == RERUN else CallOutput(output, failed=True)

    async def _do(self, call: Call, limit: ConcurrencyLimit | None, context: ToolContext[Any]) -> CallOutput | Failure:
        # In this order: what can fail without the tool is checked before `approve` is called, and a place is taken
        # last, so that a slow approval does not block other calls.
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
            refused = await ask(tool.approve, context, tool.signature)
            if refused is not None:
                return refused
        if limit is None:
            async with self._limit:
                return await tool.run(arguments, context)
        # The caller's limit first: a call that waits for it holds no place that other runs could use.
        async with limit, self._limit:
            return await tool.run(arguments, context)

    def _observe(self, call: Call, failure: Failure) -> None:
        """Log a failure of the caller's code, and pass it to `on_error`; a model's mistake is left to the model."""
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
    # Not the model's mistake: the `__post_init__` of a parameter's type raised.
    return Failure.by(arguments.error, f"The tool {tool.name} failed.")


def cut_off(call: Call) -> Failure:
    """Return the failure of a call whose arguments the model did not finish writing."""
    told = f"The call of {_shown(call.name)} was cut off before it was complete, so it was not run. Make it again."
    return Failure(FailureKind.INVALID_ARGUMENTS, InvalidArgumentsError(told), told)


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME_CHARACTERS else name[:_SHOWN_NAME_CHARACTERS] + "..."
