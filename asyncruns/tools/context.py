"""What a tool may know of the call that it answers, without the model seeing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, get_origin

from msgspec import Struct, field

from asyncruns.lifecycle.values import Call, RunRef

T = TypeVar("T")


class RunFacts(Struct, frozen=True, kw_only=True):
    """What is known of a run when it asks for calls.

    Attributes:
        ref: The ref of the run; None for a call outside of a watch.
        metadata: The metadata of the run, as last seen; empty if the server sent none.
        answer_by: When its calls must be answered, by the loop's clock; infinity if there is no limit.
    """

    ref: RunRef | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    answer_by: float = math.inf
    _report: Callable[[Call, object], None] | None = None  # may be called in any thread


class ToolContext(RunFacts, Generic[T], frozen=True, kw_only=True):
    """What a tool may know of the call that it answers. The model does not see a parameter of this type.

    A tool asks for it by its annotation, `ToolContext` or `ToolContext[Session]`, under any name::

        @tools.tool
        async def refund(order: str, context: ToolContext[Session]) -> str:
            await context.value.refund(order, by=context.call.id)

        await client.run(..., tools=tools, context=session)

    Attributes:
        call: The call, as the model wrote it.
        value: What the caller gave as `context=` to `client.run`, `client.watch`, `RunWatcher`, `Fleet` or
            `fleet.watch`; None if nothing. It is not copied.
        ref: The ref of the run; None if `toolset.call` was called without a watch.
        metadata: The metadata of the run, as last seen.
        answer_by: When the call must be answered, by the clock of the loop: the watch ends, or the run is about to
            expire. Infinity if there is no limit.
    """

    call: Call
    value: T

    def report(self, progress: object) -> None:
        """Report how far the tool has come: readers of the watch's events and `on_event` get a `ToolReported`.

        The model does not see it. May be called in any thread, and returns at once. Does nothing once the call has its
        output, or was stopped, and outside of a watch.

        Args:
            progress: Any value, such as a text, a number, or a dict with values that have JSON.
        """
        if self._report is not None:
            self._report(self.call, progress)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("call", self.call)]  # as in `__repr__`

    def __repr__(self) -> str:
        return f"<ToolContext of the call {self.call.id!r} of {self.call.name}>"  # `value` may hold a credential


def context_for(call: Call, value: object, facts: RunFacts) -> ToolContext[Any]:
    """Return the context of one call."""
    return ToolContext(call=call, value=value, **{name: getattr(facts, name) for name in RunFacts.__struct_fields__})


def is_context(annotation: object) -> bool:
    """Return whether an annotation asks for the context."""
    return (get_origin(annotation) or annotation) is ToolContext
