"""Has the calls of a round answered: by the caller's handlers first, and what they leave out by the toolset."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import anyio

from asyncruns.errors import CallNotAnsweredError, InvalidRequestError
from asyncruns.lifecycle import Answered, Call, CallKind, Event, Outputs, Unanswered
from asyncruns.lifecycle.ledger import check_answers
from asyncruns.tools import Toolset, encode_output
from asyncruns.tools.limit import Limit

GivenOutputs = Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""Outputs of calls: by call id, or as `{"tool_call_id": ..., "output": ...}` each."""

Handler = Callable[[list[Call]], Awaitable[GivenOutputs | None] | GivenOutputs | None]

Approvals = bool | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""One word for all; or by call id, or as `{"tool_call_id": ..., "approve": ..., "headers": ...}` each."""

ApprovalHandler = Callable[[list[Call]], Awaitable[Approvals | None] | Approvals | None]


class Answering:
    """Answers the rounds of one watch; what comes of it is posted as events.

    Args:
        handler: Asked first, once for each round.
        approve: Asked for the approvals of a round, before and instead of the handler.
        tools: Asked for the functions that the handler left out.
        at_once: How many calls run at once; None is no limit.
        post: Takes an event; must not wait.
    """

    def __init__(
        self,
        *,
        handler: Handler | None,
        approve: ApprovalHandler | None,
        tools: Toolset | None,
        at_once: int | None,
        post: Callable[[Event], None],
    ) -> None:
        self._handler = handler
        self._approve = approve
        self._tools = tools
        self._limit = None if at_once is None else Limit(at_once)
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
                    approvals = tuple(call for call in calls if self._is_for_approve(call))
                    others = tuple(call for call in calls if not self._is_for_approve(call))
                    jobs = [partial(self._ask_for_approval, approvals), partial(self._answer_others, others)]
                    await _at_once([job for job in jobs if job.args != ((),)])
            finally:
                self._scopes.discard(scope)

        return answer

    def _is_for_approve(self, call: Call) -> bool:
        return self._approve is not None and call.kind is CallKind.APPROVAL

    async def _ask_for_approval(self, calls: tuple[Call, ...]) -> None:
        for call in await self._ask(self._approve, calls, _approvals_of):
            self._post(Unanswered(_now(), (call,)))

    async def _answer_others(self, calls: tuple[Call, ...]) -> None:
        if self._handler is not None:
            calls = await self._ask(self._handler, calls, lambda given, calls: texts_of(given))
        await _at_once([partial(self._answer, call) for call in calls])

    async def _ask(
        self, handler: Callable[[list[Call]], Any] | None, calls: tuple[Call, ...], read: Callable[..., Outputs]
    ) -> tuple[Call, ...]:
        """Let a handler answer; give the calls that it left out."""
        try:
            given = handler(list(calls)) if handler else None
            if inspect.isawaitable(given):
                given = await given
            outputs = {} if given is None else dict(read(given, calls))
            _check_ids(outputs, calls)
            answered = tuple((call, outputs[call.id]) for call in calls if call.id in outputs)
            check_answers(answered)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            self._post(Unanswered(_now(), calls, as_exception(error)))
            return ()
        if answered:
            self._post(Answered(_now(), answered))
        return tuple(call for call in calls if call.id not in outputs)

    async def _answer(self, call: Call) -> None:
        if self._tools is None or call.kind is not CallKind.FUNCTION:
            self._post(Unanswered(_now(), (call,)))
            return
        try:
            output = await self._tools.call(call, limit=self._limit)
        except CallNotAnsweredError as error:
            self._post(Unanswered(_now(), (call,), error))
        else:
            self._post(Answered(_now(), ((call, output),)))


async def _at_once(jobs: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Do some jobs at the same time; a lone one needs no task of its own."""
    if len(jobs) == 1:
        await jobs[0]()
        return
    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(job)


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


def _approvals_of(given: Any, calls: tuple[Call, ...]) -> Outputs:
    """Give what a handler of approvals gave as (call id, JSON)."""
    if isinstance(given, bool):
        return tuple((call.id, encode_output(given)) for call in calls)
    if isinstance(given, Mapping):
        return texts_of(given)
    try:
        return texts_of({item["tool_call_id"]: item for item in given})
    except (TypeError, KeyError) as error:
        raise InvalidRequestError(
            "Approvals are True or False for all, a mapping by call id, or a list of "
            '{"tool_call_id": ..., "approve": ...}'
        ) from error


def _check_ids(outputs: Mapping[str, str], calls: tuple[Call, ...]) -> None:
    unknown = set(outputs) - {call.id for call in calls}
    if unknown:
        raise InvalidRequestError(f"The handler answered calls that were not asked: {sorted(unknown)}")


def _now() -> float:
    return asyncio.get_running_loop().time()
