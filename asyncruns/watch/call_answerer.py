"""Answers the calls of a round: with the caller's handlers first, and with the toolset for the calls they leave out.

It posts events. It must never raise what a handler or a tool raised, nor run a call that the model did not finish
writing. Nor does a slow handler delay the tools of calls that it leaves out, if it returns its own slow outputs as
awaitables.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from asyncruns._loop import loop_time
from asyncruns.abc import WatchTrace
from asyncruns.errors import CallNotAnsweredError, InvalidRequestError, JournalError, NotOwnerError
from asyncruns.lifecycle import (
    Answers,
    Asked,
    Call,
    CallKind,
    CallsAnswered,
    CallsUnanswered,
    Event,
    Notice,
    Outputs,
    RunLifecycle,
    RunRef,
    ToolReported,
)
from asyncruns.lifecycle.ledger import check_answers
from asyncruns.lifecycle.records import CallRecord, key_of_call
from asyncruns.tools import Toolset, encode_output
from asyncruns.tools.concurrency import ConcurrencyLimit
from asyncruns.tools.context import RunFacts, context_for
from asyncruns.tools.results import CallOutput
from asyncruns.user_code import OWNERS, Raised
from asyncruns.user_code.attempt import attempt_call, attempt_now
from asyncruns.watch.recorder import WatchRecorder, refused_by, without_frames

GivenOutputs = Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""Outputs of calls: a mapping by call id, or a list of `{"tool_call_id": ..., "output": ...}`."""


class Calls(list[Call]):
    """The calls that a handler is to answer, with what is known of their run. Its copies and parts are plain lists.

    Attributes:
        ref: The ref of the run.
        metadata: The metadata of the run, as last seen; empty if the server sent none.
        answer_by: When the calls must be answered, by the loop's clock; infinity if there is no limit.
        context: What the caller gave as `context=`; None if nothing.
    """

    def __init__(self, calls: Iterable[Call], facts: RunFacts, context: object) -> None:
        super().__init__(calls)
        self.ref: RunRef | None = facts.ref
        self.metadata: Mapping[str, Any] = facts.metadata
        self.answer_by: float = facts.answer_by
        self.context: Any = context

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a pickle must not hold the caller's value


Handler = Callable[[Calls], Awaitable[GivenOutputs | None] | GivenOutputs | None]

Approvals = bool | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""True or False for all calls; a mapping by call id; or dicts with "tool_call_id", "approve" and "headers"."""

ApprovalHandler = Callable[[Calls], Awaitable[Approvals | None] | Approvals | None]

_Job = Callable[[tuple[Call, ...], list[Awaitable[Any]]], Coroutine[Any, Any, None]]

_Read = Callable[[Any, tuple[Call, ...]], list[tuple[str, Any]]]
"""Returns what a handler returned as pairs of call id and output. It must raise for another form."""


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
        notify: Called with the progress that tools report; must not wait.
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
        notify: Callable[[Notice], None],
        owners: tuple[object, ...] = (),
        context: contextvars.Context | None = None,
    ) -> None:
        self._handler = handler
        self._approve = approve
        self._tools = tools
        self._limit = limit
        self._value = value
        self._facts = RunFacts()
        self._recorder: WatchRecorder | None = None
        self._max_outage: float | None = None
        self._trace: WatchTrace | None = None
        self._post = post
        self._notify = notify
        # The calls whose tools run, and what they last reported, by identity: calls of two rounds may have the same id.
        self._running: dict[int, tuple[Call, Any]] = {}
        self._owners = owners
        self._context = contextvars.copy_context() if context is None else context
        self._scopes: dict[anyio.CancelScope, bool] = {}  # of each running job, with whether it asks for approvals

    def use(self, context: contextvars.Context, *, owners: tuple[object, ...]) -> None:
        """Set the context variables that handlers and tools see from now on, and the owners they work for."""
        self._context, self._owners = context, owners

    def record_with(self, recorder: WatchRecorder, max_outage: float | None) -> None:
        """Set what writes down the calls, before the first round.

        Args:
            recorder: What writes them down.
            max_outage: Seconds for which it is tried again; None is no limit.
        """
        self._recorder, self._max_outage = recorder, max_outage

    def follow_with(self, trace: WatchTrace | None) -> None:
        """Set what follows the tools and handlers from now on."""
        self._trace = trace

    @property
    def progress(self) -> dict[str, Any]:
        """What the tools that run now have last reported, by call id."""
        return {call.id: progress for call, progress in self._running.values() if progress is not None}

    def stop(self, *, approvals: bool = True) -> None:
        """Cancel the handlers and tools that still run; those that ask for approvals only if `approvals` is true."""
        for scope, asks in self._scopes.items():
            if approvals or not asks:
                scope.cancel()

    def begin(self, calls: tuple[Call, ...], group: TaskGroup, facts: RunFacts) -> None:
        """Start to answer these calls in tasks of the group; `stop` also cancels tasks that have not run yet."""
        self._facts = replace(facts, _report=partial(self._report, asyncio.get_running_loop()))
        if self._approve is not None:
            approvals = tuple(call for call in calls if call.kind is CallKind.APPROVAL)
            calls = tuple(call for call in calls if call.kind is not CallKind.APPROVAL)
            self._start(group, self._ask_for_approval, approvals, asks=True)
        self._start(group, self._answer_others, calls, asks=False)

    def _start(
        self,
        group: TaskGroup,
        job: _Job,
        calls: tuple[Call, ...],
        *,
        asks: bool,
    ) -> None:
        if calls:
            scope = anyio.CancelScope()
            self._scopes[scope] = asks
            self._context.copy().run(group.start_soon, self._in_scope, scope, job, calls)

    async def _in_scope(self, scope: anyio.CancelScope, job: _Job, calls: tuple[Call, ...]) -> None:
        OWNERS.set(self._owners)
        owed: list[Awaitable[Any]] = []
        try:
            with scope:
                if not scope.cancel_called:
                    await job(calls, owed)
        finally:
            del self._scopes[scope]
            for output in owed:
                _close_unstarted(output)

    async def _begin(self, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        """Write down that calls begin, and return those to run; answer those that had begun before a restart."""
        recorder = self._recorder
        if recorder is None:
            return calls
        to_run = [call for call in calls if not call.is_cut and (self._is_run(call) or recorder.has(call))]
        if not to_run:
            return calls
        try:
            before = await recorder.begin(to_run, self._max_outage)
        except NotOwnerError as error:
            self._post(refused_by(error, Asked.POLL))
            return ()
        except JournalError as error:
            self._post(CallsUnanswered(loop_time(), calls, without_frames(error)))
            return ()
        if not before:
            return calls
        begun = {call: before[key] for call in to_run if (key := key_of_call(call)) in before}
        again = [call for call, record in begun.items() if not await self._answer_begun(call, record, recorder)]
        return tuple(call for call in calls if call not in begun or call in again)

    def _is_run(self, call: Call) -> bool:
        """Whether a handler or a tool is called for this call."""
        has_handler = self._handler is not None or (self._approve is not None and call.kind is CallKind.APPROVAL)
        return has_handler or (self._tools is not None and call.name in self._tools)

    async def _answer_begun(self, call: Call, record: CallRecord, recorder: WatchRecorder) -> bool:
        """Answer a call that had begun before the watch was resumed; return False if it is to run again."""
        if record.output is not None:
            self._post(CallsAnswered(loop_time(), ((call, record.output),), record.failed))
            return True
        if call.kind is CallKind.APPROVAL:
            return False  # a question, which may be asked again
        if call.kind is not CallKind.FUNCTION or recorder.was_left(call):
            self._post(CallsUnanswered(loop_time(), (call,)))
            return True
        try:
            output = await (self._tools or _NO_TOOLS).output_of_interrupted(call)
        except CallNotAnsweredError as error:
            self._post(CallsUnanswered(loop_time(), (call,), error))
            return True
        if output is not None:
            await self._answered(((call, output.text),), failed=output.failed)
        return output is not None

    async def _answered(self, answers: Answers, *, failed: bool = False) -> None:
        """Post outputs, and write them down: before their submit, which is written later, and with it if possible."""
        self._post(CallsAnswered(loop_time(), answers, failed))
        if self._recorder is not None:
            await self._recorder.answered(answers, failed=failed)

    async def _ask_for_approval(self, calls: tuple[Call, ...], owed: list[Awaitable[Any]]) -> None:
        if not (calls := await self._begin(calls)):
            return
        async with anyio.create_task_group() as group:
            for call in await self._ask(self._approve, calls, _approvals_of, "on_approval", group, owed):
                self._post(CallsUnanswered(loop_time(), (call,)))

    async def _answer_others(self, calls: tuple[Call, ...], owed: list[Awaitable[Any]]) -> None:
        if not (calls := await self._begin(calls)):
            return
        if len(calls) == 1 and self._handler is None:  # saves a task group
            await self._answer(calls[0])
            return
        async with anyio.create_task_group() as group:
            if self._handler is not None:
                whole = tuple(
                    call for call in calls if not call.is_cut
                )  # a handler would run cut arguments as they are
                cut = tuple(call for call in calls if call.is_cut)
                if whole:
                    whole = await self._ask(self._handler, whole, _outputs_of, "on_requires_action", group, owed)
                calls = (*cut, *whole)
            for call in calls:
                group.start_soon(self._answer, call)

    async def _ask(
        self,
        handler: Callable[[Calls], Any] | None,
        calls: tuple[Call, ...],
        read: _Read,
        what: str,
        group: TaskGroup,
        owed: list[Awaitable[Any]],
    ) -> tuple[Call, ...]:
        """Call a handler, post what it answered, and return the calls that it left out.

        Outputs that it returned as awaitables are added to `owed`, and awaited in tasks of the group.

        If it raises, or returns something unusable, all calls are posted as unanswered, and none is left for the tools:
        the handler may have had effects already.
        """
        asked = Calls(calls, self._facts, self._value)
        given = None if handler is None else await self._attempted(handler, asked, calls=calls, handler=what, what=what)
        found = given if isinstance(given, Raised) else attempt_now(lambda: _answers_of(given, calls, read))
        if isinstance(found, Raised):
            self._post(CallsUnanswered(loop_time(), calls, found.error))
            return ()
        answered, pending = found
        for call, output in pending:
            owed.append(output)
            group.start_soon(self._await_output, call, output, what)
        if answered:
            await self._answered(answered)
        done = {call.id for call, _ in (*answered, *pending)}
        return tuple(call for call in calls if call.id not in done)

    async def _attempted(
        self, work: Callable[..., Any], *arguments: object, calls: tuple[Call, ...], handler: str, what: str
    ) -> Any:
        """Do a part of a handler's work, followed by the trace; return its result, or what it raised."""
        if self._trace is None:
            return await attempt_call(work, *arguments, what=what)
        with self._trace.calling(calls, handler) as note:
            given = await attempt_call(work, *arguments, what=what)
            if isinstance(given, Raised):
                note("", True)
            return given

    async def _await_output(self, call: Call, output: Awaitable[Any], what: str) -> None:
        """Wait for an output that a handler returned as an awaitable, and post it."""
        named = f"{what} (the call {call.id!r})"
        given = await self._attempted(lambda: output, calls=(call,), handler=what, what=named)
        answers = given if isinstance(given, Raised) else attempt_now(lambda: _checked([(call, given)]))
        if isinstance(answers, Raised):
            self._post(CallsUnanswered(loop_time(), (call,), answers.error))
        else:
            await self._answered(answers)

    async def _answer(self, call: Call) -> None:
        tools = _NO_TOOLS if self._tools is None and call.is_cut else self._tools
        if tools is None or call.kind is not CallKind.FUNCTION:
            self._post(CallsUnanswered(loop_time(), (call,)))
            return
        self._running[id(call)] = call, None
        try:
            output = await self._output_of(call, tools)
        except CallNotAnsweredError as error:
            self._post(CallsUnanswered(loop_time(), (call,), error))
        else:
            await self._answered(((call, output.text),), failed=output.failed)
        finally:
            self._running.pop(id(call), None)

    async def _output_of(self, call: Call, tools: Toolset) -> CallOutput:
        context = context_for(call, self._value, self._facts)
        if self._trace is None or call.name not in tools:
            return await tools.output_of(context, self._limit)
        with self._trace.calling((call,)) as note:
            output = await tools.output_of(context, self._limit)
            note(output.text, output.failed)
            return output

    def _report(self, loop: asyncio.AbstractEventLoop, call: Call, progress: object) -> None:
        """Pass on the progress of a tool, which may run in a thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and a thread of an abandoned tool still runs
            loop.call_soon_threadsafe(self._reported, call, progress)

    def _reported(self, call: Call, progress: object) -> None:
        if id(call) in self._running:
            self._running[id(call)] = call, progress
            self._notify(ToolReported(call_id=call.id, tool=call.name, progress=progress))


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
    return tuple((call_id, _text_of(output)) for call_id, output in _pairs_of(outputs))


def _pairs_of(outputs: GivenOutputs) -> list[tuple[str, Any]]:
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
    return pairs


def _text_of(output: object) -> str:
    try:
        return encode_output(output)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"An output can't be sent as text: {error}") from error


def _outputs_of(given: Any, calls: tuple[Call, ...]) -> list[tuple[str, Any]]:
    return _pairs_of(given)


def _approvals_of(given: Any, calls: tuple[Call, ...]) -> list[tuple[str, Any]]:
    if isinstance(given, bool):
        return [(call.id, given) for call in calls]
    if isinstance(given, Mapping):
        return _pairs_of(given)
    try:
        return _pairs_of({item["tool_call_id"]: item for item in given})
    except (TypeError, KeyError) as error:
        raise InvalidRequestError(
            "Approvals must be True or False for all, a mapping by call id, or a list of "
            '{"tool_call_id": ..., "approve": ...}'
        ) from error


def _answers_of(given: Any, calls: tuple[Call, ...], read: _Read) -> tuple[Answers, list[tuple[Call, Awaitable[Any]]]]:
    """Return what a handler returned: the answers that it has, and those to wait for.

    Raises:
        InvalidRequestError: It has another form, or has outputs for other calls.
    """
    pairs: list[tuple[str, Any]] = []
    try:
        pairs = [] if given is None else read(given, calls)
        outputs = dict(pairs)
        if len(outputs) < len(pairs):
            raise InvalidRequestError("The handler returned two outputs for one call")  # noqa: TRY301
        answered = [(call, outputs[call.id]) for call in known_calls(outputs, calls)]
        ready = _checked([(call, output) for call, output in answered if not inspect.isawaitable(output)])
    except InvalidRequestError:
        for output in (*_values_in(given), *(output for _, output in pairs)):
            _close_unstarted(output)
        raise
    return ready, [(call, output) for call, output in answered if inspect.isawaitable(output)]


def known_calls(outputs: Mapping[str, Any], calls: Iterable[Call]) -> list[Call]:
    """Return the calls that have an output.

    Raises:
        InvalidRequestError: There are outputs for other calls.
    """
    calls = tuple(calls)
    unknown = set(outputs) - {call.id for call in calls}
    if unknown:
        raise InvalidRequestError(
            f"The handler returned outputs for calls that it was not given: {sorted(unknown)}; use the ids of the calls"
        )
    return [call for call in calls if call.id in outputs]


def _values_in(given: Any) -> list[Any]:
    """Return what may be outputs in what a handler returned in a form that can't be read."""
    if isinstance(given, Mapping):
        return list(given.values())
    items = given if isinstance(given, list | tuple) else []
    return [item.get("output") for item in items if isinstance(item, Mapping)]


def _close_unstarted(output: object) -> None:
    """Close a coroutine that nothing will await, so that Python does not warn of it."""
    if inspect.iscoroutine(output) and inspect.getcoroutinestate(output) == inspect.CORO_CREATED:
        output.close()


def _checked(outputs: Iterable[tuple[Call, Any]]) -> Answers:
    """Return outputs as texts.

    Raises:
        InvalidRequestError: One can't be sent as text, or is no approval although its call waits for one.
    """
    answers = tuple((call, _text_of(output)) for call, output in outputs)
    check_answers(answers)
    return answers
