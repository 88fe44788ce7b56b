"""Runs activities from within a workflow, and raises what ended them as errors that callers expect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Final, Protocol, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from asyncruns import errors
from asyncruns.errors import APIError, AsyncRunsError, ConfigurationError, InvalidRequestError
from asyncruns.temporal.desk import desk
from asyncruns.temporal.messages import CALL, IF_INTERRUPTED, NO_TOOLSET, NOT_BEGUN, RunReport, WatchJob

ONCE: Final = RetryPolicy(maximum_attempts=1)
POLL_RETRIES: Final = RetryPolicy(maximum_interval=timedelta(minutes=1))
LONGEST: Final = timedelta(days=30)
"""How long an activity may take whose worker lives; whether that does, heartbeats show."""
NOT_BEGUN_S: Final = 10.0
"""The first pause before an activity that could not begin is tried again."""
PAUSED_AT_MOST_S: Final = 300.0
LEAVING_S: Final = 120.0
"""How long a workflow that is left waits for what is being created, in order to cancel it."""
NOT_REGISTERED: Final = ("NotFoundError", "is not registered on this worker")
"""The type and a part of the message with which a worker without the plugin refuses an activity."""
T = TypeVar("T")


class HeartbeatJob(Protocol):
    """What an activity is given."""

    @property
    def heartbeat(self) -> float:
        """The heartbeat timeout, in seconds."""
        ...


async def run_activity(
    activity: str, job: HeartbeatJob, result_type: type[T], retry_policy: RetryPolicy | None, summary: str
) -> T:
    """Run an activity; after its last attempt again, after pauses, for as long as no worker can begin it.

    Raises:
        AsyncRunsError: It can't succeed.
        ActivityError: It failed otherwise; one with a single attempt may have done its work, or a part.
        asyncio.CancelledError: This task was cancelled.
    """
    pause = pauses(NOT_BEGUN_S)
    while True:
        try:
            async with desk().tools if activity in (CALL, IF_INTERRUPTED) else nullcontext():
                with our_errors():
                    found: T = await workflow.execute_activity(
                        activity,
                        job,
                        result_type=result_type,
                        start_to_close_timeout=LONGEST,
                        heartbeat_timeout=timedelta(seconds=job.heartbeat),
                        retry_policy=retry_policy,
                        summary=summary,
                    )
                    return found
        except ActivityError as error:
            if not has_not_begun(error):
                raise
        await workflow.sleep(next(pause))


async def result_in_time(task: asyncio.Task[T]) -> T | None:
    """Return what a task comes to that its caller has left; None if it fails, or takes too long."""
    await workflow.wait([task], timeout=LEAVING_S)  # it may not even have begun
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None


def pauses(first: float) -> Iterator[float]:
    """Yield pauses in seconds, each twice as long as the one before, up to 5 minutes."""
    while True:
        yield first
        first = min(2 * first, PAUSED_AT_MOST_S)


def has_not_begun(error: ActivityError) -> bool:
    """Return whether the work of an activity did not begin: its worker has no plugin, no toolset or no context."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return False
    kind, part = NOT_REGISTERED
    return cause.type in (NO_TOOLSET, NOT_BEGUN) or (cause.type == kind and part in cause.message)


def is_leaving(error: BaseException, cancels_before: int = 0) -> bool:
    """Return whether an activity ended because this task of the workflow was cancelled, not for its own sake.

    Args:
        error: What the activity ended with.
        cancels_before: `cancels()` when the activity was started; a task that cleans up was cancelled already.
    """
    # the SDK takes back the cancel of a task that waits for an activity
    return is_cancelled_exception(error) or cancels() > cancels_before


def cancels() -> int:
    """Return how often the current task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@contextmanager
def our_errors() -> Iterator[None]:
    """Raise what ended an activity as an error that its caller expects.

    Raises:
        AsyncRunsError: It can't succeed.
        ActivityError: It failed otherwise.
        asyncio.CancelledError: This task was cancelled; what waits for it, such as `asyncio.timeout`, needs this error.
    """
    before = cancels()
    try:
        yield
    except ActivityError as error:
        if is_leaving(error, before):
            raise asyncio.CancelledError from error
        raise_ours(error)
        raise


async def run_on_one(activity: str, job: WatchJob, retry_policy: RetryPolicy) -> RunReport:
    """Run an activity for one run.

    Raises:
        AsyncRunsError: It can't succeed.
        ActivityError: It failed otherwise.
        asyncio.CancelledError: This task was cancelled.
    """
    summary = f"{activity.removeprefix('asyncruns.').replace('_', ' ')} {job.token.ref}"
    return await run_activity(activity, job, RunReport, retry_policy, summary)


def raise_ours(error: ActivityError) -> None:
    """Raise the error of asyncruns that ended an activity for good, if one did."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.non_retryable and cause.type:
        kind = getattr(errors, cause.type, None)
        if kind in (InvalidRequestError, ConfigurationError):
            raise kind(cause.message) from error
        if isinstance(kind, type) and issubclass(kind, AsyncRunsError):
            raise APIError(f"{cause.type}: {cause.message}") from error
