"""What a run did, step by step, for `asyncruns show`: the steps of a run, or the items in the output of a response."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

from asyncruns.client.client import Client
from asyncruns.wire import ModelResponse, RunStep
from asyncruns.wire.common import epoch_seconds
from asyncruns.wire.plain import Plain
from asyncruns.wire.steps import FunctionToolCall, ToolCallsStepDetails

MOST_STEPS: Final = 1000


class StepShown(Plain, frozen=True, kw_only=True):
    """A step of a run, or an item of a response.

    Attributes:
        kind: The server's word for what it is.
        status: The server's word; "" if there is none.
        created_at: When it began, by the server's clock; None if not sent.
        ended_at: When it ended; None if it has not, or if not sent.
        calls: The calls in it, with their outputs, as text.
        unanswered: The names of the caller's functions in it that have no output; "" for none.
    """

    kind: str
    status: str = ""
    created_at: float | None = None
    ended_at: float | None = None
    calls: tuple[str, ...] = ()
    unanswered: str = ""


async def steps_of_run(client: Client, thread_id: str, run_id: str) -> list[StepShown]:
    """Fetch the steps of a run, oldest first, at most 1,000.

    Raises:
        APIError: The server has no steps, or did not answer.
    """
    found: list[StepShown] = []
    async for step in client.threads.runs.steps.list(run_id, thread_id=thread_id, limit=100, order="asc"):
        found.append(_step(step))
        if len(found) == MOST_STEPS:
            break
    return sorted(found, key=lambda step: step.created_at or 0.0)  # some servers ignore `order`


def steps_in_output(response: ModelResponse, open_calls: Container[str]) -> list[StepShown]:
    """Return the items in the output of a response, but for messages, which are shown by themselves.

    Args:
        response: The response.
        open_calls: The ids of the calls that have no output.
    """
    items: list[Any] = [item for item in response.output or [] if item.type != "message"]
    return [_item(item, open_calls) for item in items]


def _item(item: Any, open_calls: Container[str]) -> StepShown:
    is_open = any(_text(item, name) in open_calls for name in item.__struct_fields__ if name.endswith("id"))
    unanswered = (_text(item, "name") or str(item.type)) if is_open else ""
    return StepShown(kind=str(item.type), status=_text(item, "status"), calls=_call_in(item), unanswered=unanswered)


def _step(step: RunStep) -> StepShown:
    details = step.step_details
    calls = (details.tool_calls or []) if isinstance(details, ToolCallsStepDetails) else []
    ends = (step.completed_at, step.failed_at, step.cancelled_at, step.expired_at)
    return StepShown(
        kind=step.type or "",
        status=step.status,
        created_at=epoch_seconds(step.created_at),
        ended_at=next((at for end in ends if (at := epoch_seconds(end)) is not None), None),
        calls=tuple(map(_shown_call, calls)),
        unanswered=", ".join(call.function.name for call in map(_without_output, calls) if call is not None),
    )


def _without_output(call: Any) -> FunctionToolCall | None:
    return call if isinstance(call, FunctionToolCall) and not isinstance(call.function.output, str) else None


def _shown_call(call: Any) -> str:
    if not isinstance(call, FunctionToolCall):
        return str(call.type)
    output = call.function.output
    then = f" -> {output}" if isinstance(output, str) else " -> no output"
    return f"{call.function.name}({call.function.arguments}){then}"


def _call_in(item: Any) -> tuple[str, ...]:
    name = _text(item, "name")
    if name:
        return (f"{name}({_text(item, 'arguments') or _text(item, 'input')})",)
    output = _text(item, "output")
    return (f"-> {output}",) if output else ()


def _text(item: Any, name: str) -> str:
    value = getattr(item, name, None)
    return value if isinstance(value, str) else ""
