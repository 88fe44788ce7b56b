"""Answers the calls of a round: with the caller's handlers first, and with the toolset for the calls they leave out.

It posts events. It must never raise what a handler or a tool raised, nor run a call that the model did not finish
writing.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from asyncruns._loop import loop_time
from asyncruns.errors import CallNotAnsweredError, InvalidRequestError
from asyncruns.lifecycle import (
    Answers,
    Call,
    CallKind,
    CallsAnswered,
    CallsUnanswered,
    Event,
    Outputs,
    RunLifecycle,
    RunRef,
)
from asyncruns.lifecycle.ledger import check_answers
from asyncruns.tools import Toolset, encode_output
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.tools.context import RunFacts
from asyncruns.user_code import OWNERS, Raised
from asyncruns.user_code.attempt import attempt_call, attempt_now

GivenOutputs = Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""Outputs of calls: a mapping by call id, or a list of `{"tool_call_id": ..., "output": ...}`."""

Handler = Callable[[list[Call]], Awaitable[GivenOutputs | None] | GivenOutputs | None]

Approvals = bool | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""True or False for all calls; a mapping by call id; or dicts with "tool_call_id", "approve" and "headers"."""

ApprovalHandler = Callable[[list[Call]], Awaitable[Approvals | None] | Approvals | None]


_NO_TOOLS: Final = Toolset()  # answers cut calls with an error text when there is a handler but no toolset


class CallAnswerer:
    """Answers the rounds of one watch, and posts the results as events.

    Args:
        handler: Called first, once for each round.
        approve: Called with the approvals of a round, in place of the handler.
        tools: Runs the functions that the handler left out.
        limit: Number of calls to run at once; None is no limit.
        value: What the caller gave as `context=`, for the tools.
        post: Called with each event; must not wait.
        owners: The objects that handlers and tools work for (see `user_code.OWNERS`).
        context: The context variables that handlers and tools see, each in a copy; by default the current ones.
    """

    def __init__(
        self,
        *,
        handler: Handler | None,
        approve: ApprovalHandler | None,
        tools: Toolset | None,
        limit: ConcurrencyLimit | None,
        value: object,
        post: Callable[[Event], None],
        owners: tuple[object, ...] = (),
        context: contextvars.Context | None = None,
    ) -> None:
        self._handler = handler
        self._approve = approve
        self._tools = tools
        self._limit = limit
        self._value = value
        self._facts = RunFacts()
        self._post = post
        self._owners = owners
        self._context = contextvars.copy_context() if context is None else context
        self._scopes: dict[anyio.CancelScope, bool] = {}  # of each running job, with whether it asks for approvals

    def use(self, context: contextvars.Context, *, owners: tuple[object, ...]) -> None:
        """Set the context variables that handlers and tools see from now on, and the owners they work for."""
        self._context, self._owners = context, owners

    def stop(self, *, approvals: bool = True) -> None:
        """Cancel the handlers and tools that still run; those that ask for approvals only if `approvals` is true."""
        for scope, asks in self._scopes.items():
            if approvals or not asks:
                scope.cancel()

    def begin(self, calls: tuple[Call, ...], group: TaskGroup, facts: RunFacts) -> None:
        """Start to answer these calls in tasks of the group; `stop` also cancels tasks that have not run yet."""
        self._facts = facts
        if self._approve is not None:
            approvals = tuple(call for call in calls if call.kind is CallKind.APPROVAL)
            calls = tuple(call for call in calls if call.kind is not CallKind.APPROVAL)
            self._start(group, self._ask_for_approval, approvals, asks=True)
        self._start(group, self._answer_others, calls, asks=False)

    def _start(
        self,
        group: TaskGroup,
        job: Callable[[tuple[Call, ...]], Coroutine[Any, Any, None]],
        calls: tuple[Call, ...],
        *,
        asks: bool,
    ) -> None:
        if calls:
            scope = anyio.CancelScope()
            self._scopes[scope] = asks
            self._context.copy().run(group.start_soon, self._in_scope, scope, job, calls)

    async def _in_scope(
        self,
        scope: anyio.CancelScope,
        job: Callable[[tuple[Call, ...]], Coroutine[Any, Any, None]],
        calls: tuple[Call, ...],
    ) -> None:
        OWNERS.set(self._owners)
        try:
            with scope:
                if not scope.cancel_called:
                    await job(calls)
        finally:
            del self._scopes[scope]

    async def _ask_for_approval(self, calls: tuple[Call, ...]) -> None:
        for call in await self._ask(self._approve, calls, _approvals_of, "on_approval"):
            self._post(CallsUnanswered(loop_time(), (call,)))

    async def _answer_others(self, calls: tuple[Call, ...]) -> None:
        if self._handler is not None:
            whole = tuple(call for call in calls if not call.is_cut)  # a handler would run cut arguments as they are
            cut = tuple(call for call in calls if call.is_cut)
            if whole:
                whole = await self._ask(self._handler, whole, lambda given, _: texts_of(given), "on_requires_action")
            calls = (*cut, *whole)
        if len(calls) == 1:  # saves a task
            await self._answer(calls[0])
            return
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(self._answer, call)

    async def _ask(
        self,
        handler: Callable[[list[Call]], Any] | None,
        calls: tuple[Call, ...],
        read: Callable[..., Outputs],
        what: str,
    ) -> tuple[Call, ...]:
        """Call a handler, post what it answered, and return the calls that it left out.

        If it raises, or returns something unusable, all calls are posted as unanswered, and none is left for the tools:
        the handler may have had effects already.
        """
        given = None if handler is None else await attempt_call(handler, list(calls), what=what)
        answered = given if isinstance(given, Raised) else attempt_now(lambda: _answers_of(given, calls, read))
        if isinstance(answered, Raised):
            self._post(CallsUnanswered(loop_time(), calls, answered.error))
            return ()
        if answered:
            self._post(CallsAnswered(loop_time(), answered))
        done = {call.id for call, _ in answered}
        return tuple(call for call in calls if call.id not in done)

    async def _answer(self, call: Call) -> None:
        tools = _NO_TOOLS if self._tools is None and call.is_cut else self._tools
        if tools is None or call.kind is not CallKind.FUNCTION:
            self._post(CallsUnanswered(loop_time(), (call,)))
            return
        try:
            output = await tools.call(call, limit=self._limit, context=self._value, facts=self._facts)
        except CallNotAnsweredError as error:
            self._post(CallsUnanswered(loop_time(), (call,), error))
        else:
            self._post(CallsAnswered(loop_time(), ((call, output),)))


def facts_of(ref: RunRef, machine: RunLifecycle) -> RunFacts:
    """Return what is known of a run that asks for calls."""
    resource = None if machine.snapshot is None else machine.snapshot.resource
    metadata = getattr(resource, "metadata", None)
    return RunFacts(ref=ref, metadata=metadata if isinstance(metadata, Mapping) else {}, answer_by=machine.answer_by)


def texts_of(outputs: GivenOutputs) -> Outputs:
    """Return outputs as (call id, text), from any form that `GivenOutputs` allows.

    Raises:
        InvalidRequestError: They have another form, or one can't be sent as text.
    """
    pairs: list[tuple[Any, Any]]
    if isinstance(outputs, Mapping):
        pairs = list(outputs.items())
    else:
        try:
            pairs = [(item["tool_call_id"], item["output"]) for item in outputs]
        except (TypeError, KeyError, IndexError) as error:
            raise InvalidRequestError(
                'Outputs must be a mapping by call id, or a list of {"tool_call_id": ..., "output": ...}; '
                f"got a {type(outputs).__name__} that is neither"
            ) from error
    if not all(isinstance(call_id, str) for call_id, _ in pairs):
        raise InvalidRequestError("The ids of calls must be strings, as in the calls that the run asked for")
    try:
        return tuple((call_id, encode_output(output)) for call_id, output in pairs)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"An output can't be sent as text: {error}") from error


def _approvals_of(given: Any, calls: tuple[Call, ...]) -> Outputs:
    """Return what an approval handler returned as (call id, JSON).

    Raises:
        InvalidRequestError: It has a form that `Approvals` does not allow.
    """
    if isinstance(given, bool):
        return tuple((call.id, encode_output(given)) for call in calls)
    if isinstance(given, Mapping):
        return texts_of(given)
    try:
        return texts_of({item["tool_call_id"]: item for item in given})
    except (TypeError, KeyError) as error:
        raise InvalidRequestError(
            "Approvals must be True or False for all, a mapping by call id, or a list of "
            '{"tool_call_id": ..., "approve": ...}'
        ) from error


def _answers_of(given: Any, calls: tuple[Call, ...], read: Callable[[Any, tuple[Call, ...]], Outputs]) -> Answers:
    """Return what a handler returned as answers to the calls that it was given.

    Raises:
        InvalidRequestError: It has another form, or has outputs for other calls.
    """
    outputs = {} if given is None else dict(read(given, calls))
    unknown = set(outputs) - {call.id for call in calls}
    if unknown:
        raise InvalidRequestError(
            f"The handler returned outputs for calls that it was not given: {sorted(unknown)}; use the ids of the calls"
        )
    answers = tuple((call, outputs[call.id]) for call in calls if call.id in outputs)
    check_answers(answers)
    return answers
