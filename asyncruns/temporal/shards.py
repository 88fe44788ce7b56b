"""Starts shards, and reads how their runs end: for the process that has the runs to watch."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any, Final, Literal

from msgspec import Struct
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.common import TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from asyncruns._loop import loop_time
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.lifecycle.policy import MAX_ROUNDS
from asyncruns.lifecycle.records import key_of_run
from asyncruns.temporal.messages import SHARD, STATE, EndedRun, Shard, ShardRun, ShardState
from asyncruns.temporal.search_attributes import WAITS_FOR_RUNS
from asyncruns.temporal.workflow_options import OWN
from asyncruns.watch.handover import Token
from asyncruns.watch.options import check_watch_options

MOST_RUNS: Final = 2_000
"""Of one shard. What its workflow begins with, goes on with and returns must fit into payloads of 2 MB.

Measured, with the ids of OpenAI: a run has 195 bytes at first, and some 750 while it waits for a call; one that has
completed has 170, and one that has failed 410.
"""
READ_EVERY_S: Final = 2.0
MOST_READS_PER_S: Final = 5.0
"""Of all shards together: a query costs the server of Temporal, and a worker, some 8 ms of CPU each."""
_MAY_PASS: Final = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.FAILED_PRECONDITION,  # no worker has asked for work for 20 s
)


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < math.inf


_ARGUMENTS: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "size": (
        f"a whole number from 1 to {MOST_RUNS}",
        lambda given: isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MOST_RUNS,
    ),
    **{name: OWN[name] for name in ("tools", "people", "heartbeat_timeout")},
    "requests_per_second": (
        "more than 0, or None for no limit",
        lambda given: given is None or _is_number(given),
    ),
    "gather": ("more than 0 seconds, and at most an hour", lambda given: _is_number(given) and given <= 3600),
    "search_attributes": ("True or False", lambda given: isinstance(given, bool)),
}
"""The arguments that `Client.watch` has not, or in another form: what each must be, in words and as a check."""


class Shards(Struct, frozen=True):
    """The shards that `start_shards` has started.

    Attributes:
        handles: The handles of their workflows.
    """

    handles: list[WorkflowHandle[Any, Any]]

    async def outcomes(self) -> AsyncIterator[EndedRun]:
        """Iterate over how the watches of the runs finish, from the first one on; ends when all have.

        Reads every 2 s what the workflows know, of more than 10 five each second, so it may be stopped, and begun again
        in another process. They know of an end when the worker has gathered some: see `gather` of `start_shards`. Safe
        to cancel: the shards go on.

        Raises:
            temporalio.client.WorkflowFailureError: A shard was cancelled or has failed.
        """
        read = dict.fromkeys(self.handles, 0)
        waiting = {asyncio.create_task(handle.result()): handle for handle in self.handles}
        read_at = loop_time() + READ_EVERY_S
        try:
            while waiting:
                pause = max(read_at - loop_time(), 0.0)
                done, _ = await asyncio.wait(waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if is_due := loop_time() >= read_at:
                    read_at = loop_time() + max(READ_EVERY_S, len(waiting) / MOST_READS_PER_S)
                for task in list(waiting) if is_due else done:
                    handle = waiting[task]
                    has_ended = task in done and not _may_pass(task.exception())
                    for ended in await _ended_since(read[handle], handle, task if has_ended else None):
                        read[handle] += 1
                        yield ended
                    if task in done:
                        del waiting[task]
                        if has_ended:
                            task.result()
                        else:
                            await asyncio.sleep(READ_EVERY_S)
                            waiting[asyncio.create_task(handle.result())] = handle
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def result(self) -> list[EndedRun]:
        """Wait until all watches have finished, and return how. Safe to cancel: the shards go on.

        Raises:
            temporalio.client.WorkflowFailureError: A shard was cancelled or has failed.
        """
        return [ended for handle in self.handles for ended in (await handle.result()).ended]

    async def cancel(self) -> None:
        """Ask all shards to stop; `on_exit` says what becomes of the runs. Does not wait."""
        for handle in self.handles:
            await handle.cancel()


def _may_pass(error: BaseException | None) -> bool:
    return isinstance(error, RPCError) and error.status in _MAY_PASS


async def _ended_since(
    number: int, handle: WorkflowHandle[Any, Any], done: asyncio.Task[ShardState] | None
) -> list[EndedRun]:
    """Return the runs of a shard that have ended, from a number on; none if no worker answers.

    Args:
        number: The number.
        handle: The workflow of the shard.
        done: Has what the workflow came to, if that has ended.
    """
    if done is not None and done.exception() is None:
        return done.result().ended[number:]
    try:
        found: ShardState = await handle.query(STATE, number, result_type=ShardState)
    except RPCError as error:
        if not _may_pass(error):
            raise
        return []
    return found.ended


async def start_shards(
    temporal: TemporalClient,
    runs: Iterable[Any],
    *,
    id: str,
    task_queue: str,
    size: int = 1_000,
    requests_per_second: float | None = 100.0,
    tools: str | None = "",
    people: Collection[str] = (),
    max_rounds: int | None = MAX_ROUNDS,
    on_exit: Literal["leave", "cancel"] = "leave",
    on_lost_submit: Literal["give_up", "resend"] = "give_up",
    observe_only: bool = False,
    gather: float = 1.0,
    heartbeat_timeout: float = 10.0,
    search_attributes: bool = False,
) -> Shards:
    """Start workflows that watch thousands of runs, each some of them, and return their handles.

    The workers need an `AsyncRunsPlugin` with a client. Call it again with the same `id` after a crash: shards that
    were started are found, and nothing is watched twice. Safe to cancel: some shards may have been started.

    Args:
        temporal: A client of Temporal with an `AsyncRunsPlugin`.
        runs: Runs, responses or batches, or their `RunRef`s.
        id: Names the shards: their workflow ids are this with a number.
        task_queue: The task queue of the workers.
        size: The most runs of a shard, at most 2,000. A shard is watched by one worker at a time, and costs the server
            of Temporal about the same whatever its size.
        requests_per_second: The most requests per second of all shards together: each gets an equal share, which others
            do not use when it has ended. None for no limit.
        tools: The name of the toolset that answers the calls; "" for the one without a name, None for none.
        people: Names of functions whose calls people answer: see `answer_call`.
        max_rounds: As for `Client.watch`.
        on_exit: "cancel" to cancel the runs if a shard is cancelled; "leave" (default) leaves them as they are.
        on_lost_submit: As for `Client.watch`.
        observe_only: As for `Client.watch`; no tools are run then.
        gather: Seconds for which calls are gathered before the workflow answers them. Ends are gathered until they are
            a fifth of the shard, for at most 30 times as long: `outcomes` waits for that, `on_outcome` of the plugin
            does not.
        heartbeat_timeout: Seconds after which a worker that is not heard of is taken to be dead; another one goes on
            then, with a poll of each run.
        search_attributes: Whether the shards set `WAITS_FOR`, which `add_search_attributes` has made known to the
            server: `AsyncRunsWaitsFor="people"` finds those with calls that wait for people.

    Raises:
        InvalidRequestError: There are no runs, or an argument is unusable.
        temporalio.service.RPCError: Temporal cannot be reached, or refuses.
    """
    refs = list(dict.fromkeys(RunRef.of(run) for run in runs))
    if not refs:
        raise InvalidRequestError("There are no runs to watch")
    options: dict[str, Any] = {"on_lost_submit": on_lost_submit, "observe_only": observe_only}
    check_watch_options({**options, "on_exit": on_exit, "max_rounds": max_rounds}, whose="A shard")
    _check(
        size=size,
        tools=tools,
        people=people,
        requests_per_second=requests_per_second,
        gather=gather,
        heartbeat_timeout=heartbeat_timeout,
        search_attributes=search_attributes,
    )
    if observe_only and (tools or people):
        raise InvalidRequestError("A shard with observe_only=True answers nothing: leave out tools and people")
    parts = [refs[start : start + size] for start in range(0, len(refs), size)]
    handles = []
    for number, part in enumerate(parts, 1):
        shard = Shard(
            runs=[ShardRun(key=key_of_run(ref), token=Token(ref=ref)) for ref in part],
            tools=None if observe_only else tools,
            people=list(people),
            options=options,
            on_exit=on_exit,
            max_rounds=max_rounds,
            per_second=None if requests_per_second is None else requests_per_second / len(parts),
            gather=gather,
            heartbeat=heartbeat_timeout,
            total=len(part),
        )
        handles.append(
            await _start(temporal, shard, f"{id}-{number}", task_queue, WAITS_FOR_RUNS if search_attributes else None)
        )
    return Shards(handles)


def _check(**arguments: object) -> None:
    """Check the arguments of `start_shards`.

    Raises:
        InvalidRequestError: One is unusable.
    """
    for name, given in arguments.items():
        what, is_usable = _ARGUMENTS[name]
        if not is_usable(given):
            shown = type(given).__name__ if name == "tools" else repr(given)
            raise InvalidRequestError(f"{name} must be {what}; got {shown}")


async def _start(
    temporal: TemporalClient, shard: Shard, id: str, task_queue: str, attributes: TypedSearchAttributes | None
) -> WorkflowHandle[Any, Any]:
    try:
        return await temporal.start_workflow(
            SHARD,
            shard,
            id=id,
            task_queue=task_queue,
            result_type=ShardState,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            static_summary=f"{len(shard.runs)} runs",
            search_attributes=attributes,
        )
    except WorkflowAlreadyStartedError:
        return temporal.get_workflow_handle(id, result_type=ShardState)
