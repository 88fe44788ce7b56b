"""Starts shards, and reads how their runs end: for the process that has the runs to watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any, Final, Literal

from msgspec import Struct
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.common import TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.lifecycle.policy import MAX_ROUNDS
from asyncruns.lifecycle.records import key_of_run
from asyncruns.temporal.messages import SHARD, STATE, EndedRun, Shard, ShardRun, ShardState
from asyncruns.temporal.search_attributes import WAITS_FOR_RUNS
from asyncruns.watch.handover import Token

MOST_RUNS: Final = 5_000
"""Of one shard: its input and its result, of some 200 bytes a run, must fit into payloads of 2 MB."""
READ_EVERY_S: Final = 2.0
_MAY_PASS: Final = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.FAILED_PRECONDITION,  # no worker has asked for work for 20 s
)


class Shards(Struct, frozen=True):
    """The shards that `start_shards` has started.

    Attributes:
        handles: The handles of their workflows.
    """

    handles: list[WorkflowHandle[Any, Any]]

    async def outcomes(self) -> AsyncIterator[EndedRun]:
        """Iterate over how the watches of the runs finish, from the first one on; ends when all have.

        Reads every 2 s what the workflows know, so it may be stopped, and begun again in another process. Safe to
        cancel: the shards go on.

        Raises:
            temporalio.client.WorkflowFailureError: A shard was cancelled or has failed.
        """
        read = dict.fromkeys(self.handles, 0)
        waiting = {asyncio.create_task(handle.result()): handle for handle in self.handles}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, timeout=READ_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done or list(waiting):
                    handle = waiting[task]
                    for ended in await _ended_since(read[handle], handle, task if task in done else None):
                        read[handle] += 1
                        yield ended
                    if task in done:
                        del waiting[task]
                        task.result()
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
        if error.status not in _MAY_PASS:
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
        size: The most runs of a shard, at most 5,000. A shard is watched by one worker at a time, and costs the server
            of Temporal about the same whatever its size.
        requests_per_second: The most requests per second of all shards together: each gets an equal share, which others
            do not use when it has ended. None for no limit.
        tools: The name of the toolset that answers the calls; "" for the one without a name, None for none.
        people: Names of functions whose calls people answer: see `answer_call`.
        max_rounds: As for `Client.watch`.
        on_exit: "cancel" to cancel the runs if a shard is cancelled; "leave" (default) leaves them as they are.
        on_lost_submit: As for `Client.watch`.
        observe_only: As for `Client.watch`.
        gather: Seconds for which calls are gathered before the workflow answers them; ends for five times as long,
            which `on_outcome` of the plugin does not wait for.
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
    if not 1 <= size <= MOST_RUNS:
        raise InvalidRequestError(f"size must be 1 to {MOST_RUNS}; got {size!r}")
    if isinstance(people, str):
        raise InvalidRequestError(f'people must be a list of names of functions, such as ["refund"]; got {people!r}')
    parts = [refs[start : start + size] for start in range(0, len(refs), size)]
    options: dict[str, Any] = {"on_lost_submit": on_lost_submit, "observe_only": observe_only}
    handles = []
    for number, part in enumerate(parts, 1):
        shard = Shard(
            runs=[ShardRun(key=key_of_run(ref), token=Token(ref=ref)) for ref in part],
            tools=tools,
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
