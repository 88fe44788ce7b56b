"""Helpers that wait for a run, named as in the official client and in azure-ai-agents.

They return the run, not an outcome. Each is built on a watch, so it survives what a watch survives: failed polls,
unknown statuses, lost answers.

https://github.com/openai/openai-python/blob/main/helpers.md#polling-helpers
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Unpack

from msgspec import UNSET
from msgspec.structs import replace

from asyncruns._loop import admitted
from asyncruns.abc import Dialect, RunClient, Transport
from asyncruns.cadence import Cadence
from asyncruns.errors import APIError, APIStatusError, InvalidRequestError
from asyncruns.http import Request, Response
from asyncruns.lifecycle import Call, Reason, RunRef
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.options import CallOptions, make_request
from asyncruns.resources.patient_reads import options_of_polls
from asyncruns.resources.run_operations import RunOperations
from asyncruns.resources.run_parameters import RunParameters, ToolOutput, split_options
from asyncruns.tools import Toolset
from asyncruns.watch.call_answerer import Handler
from asyncruns.watch.open_watches import OpenWatches, open_watches_of
from asyncruns.watch.outcome import GaveUp
from asyncruns.watch.to_outcome import create_guard_for
from asyncruns.watch.watcher import RunWatcher
from asyncruns.wire import Run

MS_PER_S: Final = 1000.0

_ENDS: Final = (None, Reason.UNANSWERED, Reason.NO_CALLS)  # the run has ended, or waits for the caller
# Outcomes whose cause, the server's error, is raised as it is: it explains everything, as without a watch.
_REFUSED: Final = (
    Reason.NOT_FOUND,
    Reason.UNAUTHORIZED,
    Reason.QUOTA_SPENT,
    Reason.REJECTED,
    Reason.SUBMIT_REFUSED,
)


class RunPolling(RunOperations):
    """The helpers that wait for a run."""

    async def poll(
        self, run_id: str, thread_id: str, *, poll_interval_ms: float | None = None, **options: Unpack[CallOptions]
    ) -> Run:
        """Poll a run until it has ended, or waits for the caller.

        Safe to cancel; the run goes on at the server.

        Args:
            run_id: The run.
            thread_id: Its thread.
            poll_interval_ms: Milliseconds from one poll to the next. By default the server's hints, or without one 250
                at first, growing to 1,000.
            **options: Apply to each poll, so `timeout` is that of one request. The wait itself ends 60 s after the
                run's expiry, or after 15 minutes if it has none.

        Raises:
            InvalidRequestError: The interval is not more than 0.
            APIStatusError: The server refuses to show the run, such as a NotFoundError.
            WatchGaveUpError: The wait ended before the run did: the server could not be reached for 120 s, or the run
                had an unknown status for 60 s, or the time was over.
        """
        cadence = cadence_of(poll_interval_ms)
        ref = self._client.dialect.identify(None, {"thread_id": thread_id, "run_id": run_id})
        return await polled(self._client, ref, cadence, options)

    async def create_and_poll(
        self,
        *,
        thread_id: str,
        assistant_id: str,
        include: Sequence[str] | None = None,
        poll_interval_ms: float | None = None,
        **parameters: Unpack[RunParameters],
    ) -> Run:
        """Start a run, and poll it until it has ended, or waits for the caller.

        Safe to cancel; leaving waits for a pending create, for at most 5 s, and a warning names the run, which goes on
        at the server.

        Args:
            thread_id: The thread.
            assistant_id: The assistant.
            include: What else to include in the steps of the answer.
            poll_interval_ms: As in `poll`.
            **parameters: See `RunParameters`.

        Raises:
            ThreadBusyError: Another run on the thread is active; the error names the run.
            APIError: The run could not be created.
            WatchGaveUpError: As in `poll`.
        """
        cadence = cadence_of(poll_interval_ms)
        run = await self._create_kept(
            thread_id, assistant_id, parameters, include=include, guard=create_guard_for(self._client, {})
        )
        return await polled(self._client, _on(thread_id, run), cadence, split_options(parameters, RunParameters)[1])

    async def submit_tool_outputs_and_poll(
        self,
        *,
        tool_outputs: Iterable[ToolOutput | Mapping[str, str]],
        run_id: str,
        thread_id: str,
        poll_interval_ms: float | None = None,
        **options: Unpack[CallOptions],
    ) -> Run:
        """Submit the outputs of a run's calls, and poll it until it has ended, or waits for the caller again.

        If the answer to the submit is lost, polls of the run decide whether the outputs are submitted again.

        Safe to cancel; the outputs may then have been accepted or not, and the run goes on at the server.

        Args:
            tool_outputs: `{"tool_call_id": ..., "output": ...}` for each call; outputs are strings.
            run_id: The run.
            thread_id: Its thread.
            poll_interval_ms: As in `poll`.

        Raises:
            BadRequestError: The run does not wait for outputs, or not for these.
            APIError: The outputs certainly did not arrive.
            WatchGaveUpError: As in `poll`.
        """
        cadence, outputs = cadence_of(poll_interval_ms), list(tool_outputs)
        try:
            run = await self.submit_tool_outputs(run_id, thread_id=thread_id, tool_outputs=outputs, **options)
        except APIError as error:
            if not is_lost(error):
                raise
        else:
            return await polled(self._client, _on(thread_id, run), cadence, options)
        # The answer was lost. If a poll shows that the run still waits for these outputs, the watch submits them again.
        ref = self._client.dialect.identify(None, {"thread_id": thread_id, "run_id": run_id})
        handler = _once({each.get("tool_call_id", ""): each.get("output", "") for each in outputs})
        return await polled(self._client, ref, cadence, options, handler=handler)

    async def create_and_process(
        self,
        thread_id: str,
        *,
        agent_id: str,
        toolset: Toolset | None = None,
        polling_interval: float | None = None,
        include: Sequence[str] | None = None,
        **parameters: Unpack[RunParameters],
    ) -> Run:
        """Start a run, and watch it to its end while `toolset` answers its calls; as in azure-ai-agents.

        Safe to cancel: leaving waits for a pending submit or create, for at most 5 s; the run goes on at the server. A
        warning names it if its create was pending.

        Args:
            thread_id: The thread.
            agent_id: The assistant.
            toolset: Answers the calls. The run is created with its definitions, which replace all tools of the
                assistant, unless you pass `tools`, such as
                `tools=[*toolset.definitions(), {"type": "code_interpreter"}]`.
            polling_interval: Seconds from one poll to the next; the default is that of `poll`.
            include: What else to include in the steps of the answer.
            **parameters: See `RunParameters`.

        Raises:
            ThreadBusyError: Another run on the thread is active; the error names the run.
            APIError: The run could not be created.
            RunNeedsCallerError: A policy of the toolset leaves a failed call to the caller.
            WatchGaveUpError: As in `poll`.
        """
        cadence = cadence_of(polling_interval, "s")
        if toolset is not None and parameters.get("tools", UNSET) is UNSET:
            parameters["tools"] = toolset.definitions()
        run = await self._create_kept(
            thread_id, agent_id, parameters, include=include, guard=create_guard_for(self._client, {})
        )
        options = split_options(parameters, RunParameters)[1]
        return await polled(self._client, _on(thread_id, run), cadence, options, tools=toolset)


async def polled(
    client: RunClient[Run],
    run: Run | RunRef,
    cadence: Cadence | None,
    options: CallOptions,
    *,
    tools: Toolset | None = None,
    handler: Handler | None = None,
) -> Run:
    """Watch a run, and return it when it has ended or waits for the caller. The helpers describe the errors.

    Args:
        client: The client.
        run: The run, or its ref.
        cadence: The cadence; None for the default of a watch.
        options: The options of the call, which apply to each poll and submit.
        tools: Answers the calls, if given.
        handler: Answers the rounds of calls, if given.
    """
    await admitted()  # a thousand calls at the same time must not stall the loop
    optioned = _WithOptions(client, options_of_polls(options))
    async with RunWatcher(optioned, run, tools=tools, cadence=cadence, on_requires_action=handler) as watcher:
        outcome = await watcher.wait()
    if outcome.reason in _REFUSED and isinstance(outcome.cause, APIStatusError):
        raise outcome.cause
    if isinstance(outcome, GaveUp) or outcome.reason not in _ENDS:
        return outcome.unwrap()
    return outcome.run


def cadence_of(pause: Any, unit: Literal["s", "ms"] = "ms") -> Cadence | None:
    """Return the cadence for a fixed pause; None, which is the default of a watch, if there is no pause.

    Args:
        pause: The pause between polls, or None.
        unit: The unit of `pause`.

    Raises:
        InvalidRequestError: `pause` is not a number, or not more than 0.
    """
    if pause is None:
        return None
    if isinstance(pause, bool) or not isinstance(pause, int | float) or not pause > 0:
        raise InvalidRequestError(f"The pause from one poll to the next must be more than 0 {unit}; got {pause!r}")
    return Cadence.fixed(pause if unit == "s" else pause / MS_PER_S)


def _on(thread_id: str, run: Run) -> Run:
    """Return the run with its thread id, which some servers omit."""
    return run if run.thread_id else replace(run, thread_id=thread_id)


def _once(outputs: Mapping[str, str]) -> Handler:
    """Return a handler that answers one round with these outputs, and leaves rounds with other calls to the caller."""
    left = [outputs]  # emptied by the first round

    def answer(calls: list[Call]) -> Mapping[str, str] | None:
        given = left.pop() if left else {}
        # All calls of a round must be answered at once, so outputs for a part of them are useless.
        return {call.id: given[call.id] for call in calls} if given.keys() >= {call.id for call in calls} else None

    return answer


class _OptionedTransport(Transport):
    """Adds the options of a call to each request."""

    def __init__(self, inner: Transport, options: CallOptions) -> None:
        self._inner = inner
        self._like = make_request("GET", "/", None, None, options)

    async def send(self, request: Request) -> Response:
        like = self._like
        return await self._inner.send(
            replace(
                request,
                query=(*request.query, *like.query),
                headers=(*request.headers, *like.headers),
                timeout=request.timeout if like.timeout is None else like.timeout,
            )
        )

    async def aclose(self) -> None:
        """Leave the client's transport open."""


class _WithOptions:
    """A client that adds the options of one call to all its requests."""

    def __init__(self, client: RunClient[Run], options: CallOptions) -> None:
        inner = client.transport
        self.transport: Transport = _OptionedTransport(inner, options) if options else inner
        self.dialect: Dialect[Run] = client.dialect
        self.answer = client.answer
        # Shared with the client, so that closing it takes these watches into account.
        self._open_watches: OpenWatches = open_watches_of(client)
