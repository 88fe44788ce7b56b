"""One function that a model may call."""

from __future__ import annotations

import asyncio
import copy
import inspect
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from asyncruns.errors import ConfigurationError
from asyncruns.tools.signature import Signature, innermost
from asyncruns.tools.threads import run_in_thread

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function with what the model and the caller need to know of it.

    Attributes:
        timeout: How many seconds a call may take from its start; None is for ever.
        is_async: Whether it is called in the loop and not in a thread.
    """

    name: str
    description: str
    function: Callable[..., Any]
    signature: Signature
    timeout: float | None
    strict: bool
    is_async: bool

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None,
        description: str | None,
        timeout: float | None,
        strict: bool,
    ) -> Tool:
        """Make a tool; the name and the description default to the function's own.

        Raises:
            ConfigurationError: The name is not allowed, or the parameters cannot be told to a model.
        """
        inner = innermost(function)
        if name is None:
            name = str(getattr(inner, "__name__", type(inner).__name__))
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot be the name of a tool: it takes 1 to 64 of a-z, A-Z, 0-9, _ and -. "
                "Give one with name=."
            )
        return cls(
            name=name,
            description=_first_paragraph(inner) if description is None else description,
            function=function,
            signature=Signature(name, function, strict=strict),
            timeout=timeout,
            strict=strict,
            is_async=_is_async(inner),
        )

    def definition(self) -> dict[str, Any]:
        """Give the tool as the API takes it."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        function["parameters"] = copy.deepcopy(self.signature.schema)
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    async def run(self, arguments: dict[str, Any], deadline: asyncio.Timeout) -> Any:
        """Call the function, and set the deadline when it starts. What it raises is raised.

        Safe to cancel: a coroutine function is cancelled and awaited, a thread is abandoned and goes on.
        """
        if self.is_async:
            self._start(deadline)
            return await self.function(**arguments)
        return await run_in_thread(
            lambda: self.function(**arguments), name=self.name, on_start=lambda: self._start(deadline)
        )

    def _start(self, deadline: asyncio.Timeout) -> None:
        if self.timeout is not None:
            deadline.reschedule(asyncio.get_running_loop().time() + self.timeout)


def _is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives a coroutine, and does not block; callable objects are looked into."""
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _first_paragraph(function: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
