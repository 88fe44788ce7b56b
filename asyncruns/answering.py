"""Has the calls of a round answered: by the caller's handler first, and what it leaves out by the toolset."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

import anyio

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import Answered, Call, CallKind, Event, Outputs, Unanswered
from asyncruns.tools import Toolset, encode_output

GivenOutputs = Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""Outputs of calls: by call id, or as `{"tool_call_id": ..., "output": ...}` each."""

Handler = Callable[[list[Call]], Awaitable[GivenOutputs | None] | GivenOutputs | None]


class Answering:
    """Answers the rounds of one watch; what comes of it is posted as events.

    Args:
        handler: Asked first, once for each round.
        tools: Asked for the functions that the handler left out.
        post: Takes an event; must not wait.
    """

    def __init__(self, handler: Handler | None, tools: Toolset | None, post: Callable[[Event], None]) -> None:
        self._handler = handler
        self._tools = tools
        self._post = post
        self._scopes: set[anyio.CancelScope] = set()

    def stop(self) -> None:
        """Cancel the handler and the tools that still run."""
        for scope in self._scopes:
            scope.cancel()

    def begin(self, calls: tuple[Call, ...]) -> Callable[[], Coroutine[Any, Any, None]]:
        """Give what answers these calls, all at once; `stop` stops it from now on, even before it runs.

        Safe to cancel: tools that run are cancelled, threads abandoned.
        """
        scope = anyio.CancelScope()
        self._scopes.add(scope)

        async def answer() -> None:
            try:
                with scope:
                    if scope.cancel_called:
                        return
                    left = await self._ask_handler(calls)
                    async with anyio.create_task_group() as group:
                        for call in left:
                            group.start_soon(self._answer, call)
            finally:
                self._scopes.discard(scope)

        return answer

    async def _ask_handler(self, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        """Let the handler answer; give the calls that it left out."""
        if self._handler is None:
            return calls
        try:
            given = self._handler(list(calls))
            if inspect.isawaitable(given):
                given = await given
            outputs = {} if given is None else dict(texts_of(given))
            _check_ids(outputs, calls)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            self._post(Unanswered(_now(), calls, as_exception(error)))
            return ()
        answered = tuple((call, outputs[call.id]) for call in calls if call.id in outputs)
        if answered:
            self._post(Answered(_now(), answered))
        return tuple(call for call in calls if call.id not in outputs)

    async def _answer(self, call: Call) -> None:
        if self._tools is None or call.kind is not CallKind.FUNCTION:
            self._post(Unanswered(_now(), (call,)))
        else:
            self._post(Answered(_now(), ((call, await self._tools.call(call)),)))


def is_cancelled(error: BaseException) -> bool:
    """Tell whether an error is our own cancellation, and not one that a callback let out of something that it did."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def as_exception(error: BaseException) -> Exception:
    """Give an error that can be reported like any other."""
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"{type(error).__name__} was raised")
    wrapped.__cause__ = error
    return wrapped


def texts_of(outputs: GivenOutputs) -> Outputs:
    """Give outputs as (call id, text), whatever form and type they were given in.

    Raises:
        InvalidRequestError: They have another form.
    """
    pairs: list[tuple[Any, Any]]
    if isinstance(outputs, Mapping):
        pairs = list(outputs.items())
    else:
        try:
            pairs = [(item["tool_call_id"], item["output"]) for item in outputs]
        except (TypeError, KeyError, IndexError) as error:
            raise InvalidRequestError(
                'Outputs are a mapping by call id, or a list of {"tool_call_id": ..., "output": ...}'
            ) from error
    if not all(isinstance(call_id, str) for call_id, _ in pairs):
        raise InvalidRequestError("The ids of calls are strings")
    try:
        return tuple((call_id, encode_output(output)) for call_id, output in pairs)
    except TypeError as error:
        raise InvalidRequestError(f"An output can't be sent as text: {error}") from error


def _check_ids(outputs: Mapping[str, str], calls: tuple[Call, ...]) -> None:
    unknown = set(outputs) - {call.id for call in calls}
    if unknown:
        raise InvalidRequestError(f"on_requires_action answered calls that were not asked: {sorted(unknown)}")


def _now() -> float:
    return asyncio.get_running_loop().time()
