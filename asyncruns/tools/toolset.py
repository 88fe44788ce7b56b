"""The functions that a model may call, and the calling of them.

`Toolset.call` always gives a string. A run waits for the outputs of all its calls, so one tool that hangs, raises or
returns nonsense must not cost the others their work. What the model did wrong, it is told; what our code did wrong, it
is not: it reads a general sentence, and the log and the hook get the exception.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, cast, overload

import msgspec

from asyncruns.errors import ConfigurationError, ToolError
from asyncruns.lifecycle.values import Call
from asyncruns.tools.limit import Limit
from asyncruns.tools.results import encode_output, error_output
from asyncruns.tools.signature import InvalidArgumentsError
from asyncruns.tools.tool import Tool

F = TypeVar("F", bound=Callable[..., Any])
OnError = Callable[[Call, Exception], object]

DEFAULT_MAX_OUTPUT_CHARACTERS: Final = 512_000
"""OpenAI takes 512 kB of outputs in one request."""

_SHOWN_NAME_CHARACTERS: Final = 64

_logger = logging.getLogger("asyncruns.tools")


class Toolset:
    """A set of functions that a model may call, by name.

    Coroutine functions run in the task that calls; all others run in daemon threads, at most 64 of them at once in the
    process. A thread cannot be stopped: after a timeout or a cancellation it goes on unheeded.

    Args:
        functions: Functions to begin with: a mapping by name, or any iterable of functions with names.
        max_concurrency: How many calls run at once, of all the runs that share this toolset; the others queue. None is
            no limit, which suits async tools; a tool that calls its own toolset may wait for itself under one.
        timeout: How many seconds a call may take, from its start and not from queueing. None is for ever.
        max_output: How many characters an output may have. A longer one is not cut: in its place the model reads that
            it was too long.
        on_error: Gets the call and the exception whenever a tool fails, a ToolError and a timeout included. What it
            raises is logged and changes nothing.

    Raises:
        ConfigurationError: A number is not positive, or a function cannot be a tool (see `tool`).
    """

    def __init__(
        self,
        functions: Mapping[str, Any] | Iterable[Callable[..., Any]] = (),
        *,
        max_concurrency: int | None = None,
        timeout: float | None = None,
        max_output: int = DEFAULT_MAX_OUTPUT_CHARACTERS,
        on_error: OnError | None = None,
    ) -> None:
        _check_positive("max_concurrency", max_concurrency)
        _check_positive("timeout", timeout)
        _check_positive("max_output", max_output)
        self._timeout = timeout
        self._max_output = max_output
        self._on_error = on_error
        self._limit = Limit(max_concurrency)
        self._tools: dict[str, Tool] = {}
        if isinstance(functions, Mapping):
            for name, function in cast("Mapping[str, Callable[..., Any]]", functions).items():
                self.tool(function, name=name)
        else:
            for function in functions:
                self.tool(function)

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
    ) -> F | Callable[[F], F]:
        """Add a function; works as a decorator, with and without arguments, and gives the function back unchanged.

        Args:
            function: Any callable whose parameters can be given by name.
            name: What the model calls it; by default the function's name.
            description: What the model reads; by default the first paragraph of the docstring.
            timeout: Seconds, as for the toolset, whose timeout is the default; None is for ever.
            strict: Ask for OpenAI's strict mode: the schema then requires every parameter, also those with defaults.

        Raises:
            ConfigurationError: The name is taken or not allowed, a parameter cannot be given by name, or a parameter's
                type has no JSON Schema.
        """

        def add(function: F) -> F:
            seconds = self._timeout if timeout is msgspec.UNSET else timeout
            _check_positive("timeout", seconds)
            tool = Tool.of(function, name=name, description=description, timeout=seconds, strict=strict)
            if tool.name in self._tools:
                raise ConfigurationError(f"There is a tool named {tool.name} already. Give another name with name=.")
            self._tools[tool.name] = tool
            return function

        return add if function is None else add(function)

    def definitions(self) -> list[dict[str, Any]]:
        """Give the tools as the API takes them in `tools=`; the caller may change what it gets."""
        return [tool.definition() for tool in self._tools.values()]

    async def call(self, call: Call) -> str:
        """Do one call and give its output, whatever happens.

        Errors are outputs: a JSON object with the key `error`.

        Safe to cancel: while it queues, nothing has happened; afterwards a coroutine function is cancelled and awaited,
        and a thread is abandoned and goes on. Nothing is sent to the server here. A tool cannot swallow the
        cancellation.

        Raises:
            asyncio.CancelledError: The calling task was cancelled.
            KeyboardInterrupt: It was raised in the loop's thread.
        """
        tool = self._tools.get(call.name)
        if tool is None:
            return self._limited(call.name, error_output(self._no_such_tool(call.name)))
        try:
            arguments = tool.signature.decode(call.arguments)
        except InvalidArgumentsError as error:
            return self._limited(tool.name, error_output(f"Invalid arguments for {tool.name}: {error}"))
        except Exception as error:  # a `__post_init__` may raise anything
            return self._failed(call, error)
        async with self._limit:
            return self._limited(tool.name, await self._perform(call, tool, arguments))

    async def _perform(self, call: Call, tool: Tool, arguments: dict[str, Any]) -> str:
        cancels_before = _cancels()
        deadline = asyncio.timeout(None)
        try:
            async with deadline:
                value = await tool.run(arguments, deadline)
            output = encode_output(value)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except asyncio.CancelledError as error:
            if _cancels():
                raise
            output = self._failed(call, error)
        except BaseException as error:
            if _cancels() > cancels_before:  # its cleanup failed: that must not undo our cancellation
                raise asyncio.CancelledError from error
            output = self._timed_out(call, tool) if deadline.expired() else self._failed(call, error)
        if _cancels() > cancels_before:
            raise asyncio.CancelledError
        return output

    def _failed(self, call: Call, error: BaseException) -> str:
        text = ""
        if isinstance(error, ToolError):
            text = str(error)
            _logger.warning("The tool %s refused the call %r: %s", call.name, call.id, text)
        else:
            _logger.warning("The tool %s failed at the call %r", call.name, call.id, exc_info=error)
        self._report(call, error)
        return error_output(text or f"The tool {call.name} failed.")

    def _timed_out(self, call: Call, tool: Tool) -> str:
        unit = "second" if tool.timeout == 1 else "seconds"
        message = f"The tool {tool.name} did not finish within {tool.timeout:g} {unit}."
        _logger.warning("%s The call was %r", message, call.id)
        self._report(call, TimeoutError(message))
        return error_output(message)

    def _report(self, call: Call, error: BaseException) -> None:
        if self._on_error is None:
            return
        if not isinstance(error, Exception):
            reported = RuntimeError(f"The tool {call.name} raised {type(error).__name__}")
            reported.__cause__ = error
            error = reported
        try:
            self._on_error(call, error)
        except Exception:
            _logger.exception("on_error raised at the call %r", call.id)

    def _limited(self, name: str, output: str) -> str:
        if len(output) <= self._max_output:
            return output
        return error_output(
            f"The output of {_shown(name)} has {len(output)} characters, which is more than the limit of "
            f"{self._max_output}. Ask for less."
        )

    def _no_such_tool(self, name: str) -> str:
        names = f"The tools are: {', '.join(self._tools)}." if self._tools else "There are no tools."
        return f"There is no tool named {_shown(name)}. {names}"


def _check_positive(name: str, number: float | None) -> None:
    if number is not None and not number > 0:
        raise ConfigurationError(f"{name} must be more than 0, not {number}; None means no limit.")


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME_CHARACTERS else name[:_SHOWN_NAME_CHARACTERS] + "..."


def _cancels() -> int:
    """Give how many cancellations of this task are under way."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
