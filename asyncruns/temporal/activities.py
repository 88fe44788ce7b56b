"""The activities of a worker: all that is sent to the server of the runs, and all that tools do.

An activity must not cancel a run because it is cancelled itself: its worker may only be stopping, and another one goes
on. The workflow says when a run is to be cancelled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from asyncruns._loop import loop_time, wall_time
from asyncruns.abc import Dialect, RunClient
from asyncruns.client.client import Client
from asyncruns.errors import (
    APIStatusError,
    AsyncRunsError,
    CallNotAnsweredError,
    ConfigurationError,
    InvalidRequestError,
)
from asyncruns.fleet import Watch
from asyncruns.lifecycle import OutputsSubmitted, RunRef
from asyncruns.temporal import messages as names
from asyncruns.temporal.cold import noted_before, until_pause
from asyncruns.temporal.messages import (
    CallJob,
    CallResult,
    CreateJob,
    RunReport,
    ShardJob,
    ShardReport,
    ThreadJob,
    WatchJob,
)
from asyncruns.temporal.reports import outcome_of_report, report_of, without_begun
from asyncruns.temporal.resident_fleets import ResidentFleets
from asyncruns.temporal.shard_fleet import OnOutcome, ShardFleet, begin_watch, cancelled
from asyncruns.temporal.sizes import LARGEST_REPORT, check_result, checked_report, fitting, is_unlimited
from asyncruns.tools import Toolset
from asyncruns.tools.context import RunFacts, context_for
from asyncruns.user_code import Raised
from asyncruns.user_code.attempt import attempt_call
from asyncruns.watch.handover import token_in, token_of
from asyncruns.watch.observers import Ended
from asyncruns.watch.outcome_clients import LeftBehind
from asyncruns.watch.to_outcome import create_guard_for

T = TypeVar("T")

STOPPING_S: Final = 1.0
"""How long a worker that stops goes on to watch: until then, the next activity might be given to it, and be lost."""
STOPPING_PAUSE: Final = timedelta(milliseconds=100)
MAY_PASS: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 with which a create may be sent again."""


class Activities:
    """The activities, for one client.

    Args:
        client: Sends the requests.
        toolsets: Answer the calls, by name.
        context_factory: Called with the ref of a run and the label of its watch; returns the `context` of its tools.
        on_outcome: Told how each run of a shard ended.
        per_second: The budget of the watches of workflows, in requests per second; None for no limit.
        host: The task queue of this worker alone.
    """

    def __init__(
        self,
        client: Client,
        *,
        toolsets: Mapping[str, Toolset],
        context_factory: Callable[[RunRef, Any], object] | None,
        on_outcome: OnOutcome | None,
        per_second: float | None,
        host: str,
    ) -> None:
        self._client = client
        self._fleets = ResidentFleets(client, per_second, on_outcome)
        self._toolsets = toolsets
        self._context_factory = context_factory
        self._on_outcome = on_outcome
        self._watches: dict[tuple[str | None, RunRef, str], Watch[Any]] = {}
        self.host: str = host

    async def aclose(self) -> None:
        """Leave the fleets; the runs go on at the server."""
        await self._fleets.aclose()

    # One run

    @activity.defn(name=names.WATCH)
    async def watch(self, job: WatchJob) -> RunReport:
        """Watch a run until it ends or needs the caller; in a cold watch, for one poll or a few."""
        async with _asyncruns_errors(), heartbeats(job.heartbeat, *activity.info().heartbeat_details):
            return checked_report(await self._watched(job))

    @activity.defn(name=names.FOLLOW_UP)
    async def follow_up(self, job: WatchJob) -> RunReport:
        """Submit outputs for a run that goes on as another one, and return which that is."""
        async with _asyncruns_errors(), heartbeats(job.heartbeat):
            return checked_report(await self._followed_up(job))

    async def _watched(self, job: WatchJob) -> RunReport:
        async with self._watching(job) as watch:
            without_expiry = self._dialect_of(job).without_expiry
            waiting = until_pause(watch, job, without_expiry) if job.is_cold else watch.wait()
            return report_of(await until_stopped(waiting), watch, job.token)

    async def _followed_up(self, job: WatchJob) -> RunReport:
        async with self._watching(job) as watch:
            async for event in watch:
                if isinstance(event, OutputsSubmitted) and watch.outcome is None:
                    watch.cancel()
                    return RunReport(token=without_begun(token_in(watch.token())))  # no tool runs here
                if isinstance(event, Ended):
                    return report_of(event.outcome, watch)
            raise _taken_over(watch.ref)

    @activity.defn(name=names.CANCEL)
    async def cancel(self, job: WatchJob) -> RunReport:
        """Cancel a run, and return how it ended."""
        async with _asyncruns_errors(), heartbeats(job.heartbeat), self._watching(job) as watch:
            return checked_report(report_of(await cancelled(watch), watch))

    @activity.defn(name=names.FETCH_MESSAGES)
    async def messages(self, ref: RunRef) -> list[Any]:
        """Fetch the messages that a run wrote."""
        async with _asyncruns_errors():
            found = await self._client.for_run(ref).answer(RunRef.of(ref))
            messages = [message.to_dict() for message in found]
            check_result(messages, "The answer")
            return messages

    @asynccontextmanager
    async def _watching(self, job: WatchJob) -> AsyncIterator[Watch[Any]]:
        options = {**job.options, **self._outage_left(job)}
        give_up_at = noted_before().give_up_at if job.give_up_at is None else job.give_up_at
        if give_up_at is not None:
            options["timeout"] = max(give_up_at - wall_time(), 0.0)
        observes = bool(options.get("observe_only"))
        fleet = await self._fleets.shared(observes=observes)
        info = activity.info()  # a workflow may have several observers of a run
        whose = (info.workflow_id, job.token.ref, info.activity_id if observes else "")
        if (earlier := self._watches.get(whose)) is not None:
            earlier.cancel()  # of an activity that was given up, and does not know yet: it would share its poll
        watch = self._watches[whose] = begin_watch(fleet, job.token, options)
        try:
            yield watch
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _taken_over(watch.ref) from None
        finally:
            watch.cancel()
            if self._watches.get(whose) is watch:
                del self._watches[whose]

    def _outage_left(self, job: WatchJob) -> dict[str, Any]:
        """Return how much longer an outage may be that earlier attempts of a cold watch have noted."""
        since = noted_before().outage_since
        if since is None:
            return {}
        most = job.options.get("max_outage", self._dialect_of(job).max_outage)
        return {} if most is None else {"max_outage": max(since + most - wall_time(), 0.0)}

    def _dialect_of(self, job: WatchJob) -> Dialect[Any]:
        return self._client.for_run(job.token.run).dialect

    # Calls

    @activity.defn(name=names.CALL)
    async def call(self, job: CallJob) -> CallResult:
        """Run the tool of a call."""
        if self._lacks_tools(job.toolset):
            return CallResult()
        toolset = self._toolset(job.toolset)
        facts = RunFacts(ref=job.ref, metadata=job.metadata)
        context = self._context_of(job)
        async with heartbeats(job.heartbeat):
            try:
                output = await toolset.output_of(context_for(job.call, context, facts))
            except CallNotAnsweredError as error:
                return CallResult(cause=str(error))
        return fitting(CallResult(output=output.text, failed=output.failed), job)

    @activity.defn(name=names.IF_INTERRUPTED)
    async def interrupted(self, job: CallJob) -> CallResult:
        """Return what the tool's `if_interrupted` says of a call that had begun when its worker ended."""
        toolset = Toolset() if self._lacks_tools(job.toolset) else self._toolset(job.toolset)
        async with heartbeats(job.heartbeat):
            try:
                output = await toolset.output_of_interrupted(job.call)
            except CallNotAnsweredError as error:
                return CallResult(cause=str(error))
        return CallResult() if output is None else fitting(CallResult(output=output.text, failed=True), job)

    def _context_of(self, job: CallJob) -> object:
        try:
            return None if self._context_factory is None else self._context_factory(job.ref, job.label)
        except Exception as error:
            activity.logger.error("context_factory has raised for %s", job.ref, exc_info=error)
            raise ApplicationError(  # without the error's text, which would be in the history
                f"context_factory has raised {type(error).__name__} for {job.ref}; the call {job.call.id!r} waits",
                type=names.NOT_BEGUN,
            ) from None

    def _lacks_tools(self, name: str | None) -> bool:
        """Return whether a watch has no tools: it wants none, or names none, and there is no toolset without a name."""
        return name is None or (not name and "" not in self._toolsets)

    def _toolset(self, name: str) -> Toolset:
        if name in self._toolsets:
            return self._toolsets[name]
        there_are = ", ".join(map(repr, self._toolsets)) or "none"
        raise ApplicationError(
            f"This worker has no toolset {name!r} (there are: {there_are}); pass it as AsyncRunsPlugin(tools=...) or "
            "AsyncRunsPlugin(toolsets=[Toolset(..., name=...)])",
            type=names.NO_TOOLSET,
        )

    # Creating

    @activity.defn(name=names.CREATE_THREAD)
    async def create_thread(self, job: ThreadJob) -> str:
        """Create a thread; after a lost answer, an empty one may remain at the server."""
        async with _asyncruns_errors(), heartbeats(job.heartbeat):
            return (await self._client.threads.create()).id

    @activity.defn(name=names.CREATE)
    async def create(self, job: CreateJob) -> RunReport:
        """Create a run, or find the one with its key."""
        tools = None if self._lacks_tools(job.toolset) else self._toolset(job.toolset or "")
        async with _asyncruns_errors(), heartbeats(job.heartbeat):
            new = self._client._new_run({"tools": tools}, whose="run_and_wait", **job.request)
            run = await new.create(create_guard_for(new.client, {}))
            ref = new.client.dialect.identify(run, {})
            return RunReport(token=token_of(ref, job.label, new.client))

    # Shards

    @activity.defn(name=names.WATCH_SHARD)
    async def watch_shard(self, job: ShardJob) -> ShardReport:
        """Watch the runs of a shard until some have ended or need the caller."""
        async with _asyncruns_errors(), heartbeats(job.heartbeat):
            fleet = self._here(job.shard) if job.runs is None else await self._new_shard(job)
            fleet.users += 1
            try:
                await fleet.add(job.runs or [], job.options)
                reports = await until_stopped(fleet.changes(job))
            except asyncio.CancelledError:
                if self._fleets.shard(job.shard) is fleet:  # the shard was cancelled, or another worker goes on
                    await self._fleets.leave(job.shard)
                raise
            finally:
                fleet.users -= 1
                fleet.used_at = loop_time()
            return ShardReport(reports=reports, host=self.host, polls=fleet.polls, settled=fleet.take_settled())

    @activity.defn(name=names.ADD_TO_SHARD)
    async def add_to_shard(self, job: ShardJob) -> None:
        """Add runs that have got their outputs to the fleet of a shard again."""
        async with _asyncruns_errors():
            await self._here(job.shard).add(job.runs or [], job.options)

    async def _new_shard(self, job: ShardJob) -> ShardFleet:
        return await self._fleets.new_shard(job, math.inf if is_unlimited() else LARGEST_REPORT)

    def _here(self, shard: str) -> ShardFleet:
        fleet = self._fleets.shard(shard)
        if fleet is None:
            raise ApplicationError("This worker does not watch the shard", type=names.SHARD_NOT_HERE)
        return fleet

    @activity.defn(name=names.CANCEL_MANY)
    async def cancel_many(self, job: ShardJob) -> ShardReport:
        """Cancel the runs of a shard, and return how they ended."""
        async with _asyncruns_errors(), heartbeats(job.heartbeat):
            fleet = await self._new_shard(job)
            fleet.users += 1
            try:
                reports = await until_stopped(fleet.cancelled(job.runs or [], job.options))
            finally:
                await self._fleets.leave(job.shard)
            return ShardReport(reports=reports)

    @activity.defn(name=names.TELL)
    async def tell(self, report: RunReport) -> None:
        """Call `on_outcome` for an outcome that the workflow of a shard has found, and not its fleet."""
        if self._on_outcome is not None and report.outcome is not None:
            client = self._client_of(RunRef.of(report.outcome["ref"]))
            raised = await attempt_call(self._on_outcome, outcome_of_report(report, client), what="on_outcome")
            if isinstance(raised, Raised):
                raise raised.error

    def _client_of(self, ref: RunRef) -> RunClient[Any]:
        try:
            return self._client.for_run(ref)
        except InvalidRequestError:  # of a dialect that this worker does not have
            return LeftBehind()

    def all(self) -> list[Callable[..., Any]]:
        """Return all of them, as a worker takes them."""
        return [
            self.watch, self.follow_up, self.cancel, self.messages, self.call, self.interrupted, self.create_thread,
            self.create, self.watch_shard, self.add_to_shard, self.cancel_many, self.tell,
        ]  # fmt: skip


def _taken_over(ref: RunRef) -> ApplicationError:
    """Return the failure of an activity that was given up; nobody waits for it."""
    return ApplicationError(
        f"Another activity of this workflow watches the run {ref} now",
        type=names.TAKEN_OVER,
        category=ApplicationErrorCategory.BENIGN,  # nothing to log
    )


async def until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """Return what this returns, unless the worker begins to stop: then another one is to go on soon.

    Raises:
        ApplicationError: The worker is stopping.
    """
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(_stopping())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ApplicationError(
            "This worker is stopping, and another one goes on",
            type=names.WORKER_STOPS,
            next_retry_delay=STOPPING_PAUSE,
            category=ApplicationErrorCategory.BENIGN,  # nothing to log
        )
    finally:
        doing.cancel()
        stopping.cancel()


async def _stopping() -> None:
    await activity.wait_for_worker_shutdown()
    await asyncio.sleep(STOPPING_S)


@asynccontextmanager
async def heartbeats(timeout: float, *details: Any) -> AsyncIterator[None]:
    """Send heartbeats while the block is entered, so that the server notices soon that this worker has died.

    Args:
        timeout: The heartbeat timeout, in seconds.
        *details: What the heartbeats of an earlier attempt had, for the next one.
    """

    async def beat() -> None:
        while True:
            activity.heartbeat(*details)
            await asyncio.sleep(timeout / 3)

    beating = asyncio.create_task(beat(), name="asyncruns heartbeats")
    try:
        yield
    finally:
        beating.cancel()


@asynccontextmanager
async def _asyncruns_errors() -> AsyncIterator[None]:
    """Pass errors on to the workflow by their names; those that would come again end the activity."""
    try:
        yield
    except AsyncRunsError as error:
        raise ApplicationError(str(error), type=type(error).__name__, non_retryable=_is_lasting(error)) from None


def _is_lasting(error: AsyncRunsError) -> bool:
    if isinstance(error, APIStatusError):
        return error.status_code < 500 and error.status_code not in MAY_PASS
    return isinstance(error, InvalidRequestError | ConfigurationError)


def toolsets_by_name(tools: Toolset | None, others: Iterable[Toolset]) -> dict[str, Toolset]:
    """Return toolsets by their names; the one without a name is `tools`.

    Raises:
        ConfigurationError: Two have the same name.
    """
    found: dict[str, Toolset] = {} if tools is None else {"": tools}
    for toolset in [*([] if tools is None or not tools.name else [tools]), *others]:
        if found.setdefault(toolset.name, toolset) is not toolset:
            raise ConfigurationError(f"Two toolsets are named {toolset.name!r}: pass Toolset(..., name=...)")
    return found
