"""Creates runs from within a workflow: `run_and_wait`, which watches them then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, Unpack

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from asyncruns.dialects.responses import ResponsesDialect
from asyncruns.errors import APIConnectionError, APIError, InvalidRequestError
from asyncruns.resources.response_parameters import with_text_format
from asyncruns.resources.run_parameters import with_response_format
from asyncruns.resources.thread_lock import OnBusy
from asyncruns.temporal import messages as names
from asyncruns.temporal.messages import CreateJob, RunReport, ThreadJob
from asyncruns.temporal.running import ONCE, result_in_time, run_activity
from asyncruns.temporal.watching import WorkflowWatch
from asyncruns.temporal.workflow_options import WorkflowOptions, check_options
from asyncruns.watch.outcome import AnyOutcome
from asyncruns.wire.plain import is_plain, plain_value

CREATE_RETRIES: Final = RetryPolicy(maximum_attempts=8, maximum_interval=timedelta(seconds=30))


async def run_and_wait(
    *,
    message: str | Iterable[Mapping[str, Any]],
    assistant_id: str | None = None,
    model: str | None = None,
    thread_id: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    on_busy: OnBusy = "raise",
    **options: Unpack[WorkflowOptions],
) -> AnyOutcome[Any]:
    """Send a message to an assistant or a model from within a workflow, watch the run, and return the outcome.

    The message and the run carry a key of this workflow, by which they are found if an activity has to begin again, so
    nothing is created twice; without `thread_id`, a thread is created first, of which an empty one may remain. A
    response cannot be found: its create has one attempt, and with `on_lost_submit="resend"` more.

    Safe to cancel, as `watch` is; what was created remains at the server.

    Args:
        message: The user's text, or a list of content parts. It is in the history of the workflow.
        assistant_id: The assistant, which must know the tools.
        model: The model of a response; it gets the definitions of the tools.
        thread_id: The thread. Default None: a new one.
        parameters: Further parameters of the run or the response, as plain JSON: they are in the history, so none may
            be a credential, and `extra_headers`, `extra_query` and tools with an `authorization`, with headers or with
            a URL are refused.
        on_busy: What to do if another run is active on the thread: "raise" (default), or "wait" until it has ended.
        **options: As for `watch`.

    Returns:
        The outcome, as for `watch`.

    Raises:
        InvalidRequestError: An argument is unusable.
        APIError: The thread or the run could not be created.
    """
    check_options(options)
    with_format = with_text_format if assistant_id is None else with_response_format
    request: dict[str, Any] = {
        "message": message if isinstance(message, str) else list(message),
        "assistant_id": assistant_id,
        "model": model,
        "parameters": with_format({**_checked(parameters or {}), "output_type": options.get("output_type")}),
        "on_busy": on_busy,
    }
    if not is_plain(request):
        raise InvalidRequestError("message and parameters must be plain JSON, since the history has them")
    _check_not_secret(request["parameters"])
    if assistant_id is not None and model is None:
        request |= {"thread_id": thread_id or await _new_thread(options), "key": str(workflow.uuid4())}
    elif thread_id is not None:
        request["thread_id"] = thread_id
    report = await _created(request, options)
    if report.token is None:
        raise APIError("The create has returned no run")
    return await WorkflowWatch(report.token, options).outcome()


def _checked(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a run.

    Raises:
        InvalidRequestError: One must not be in a history, or is passed otherwise.
    """
    for name in ("headers", "query"):
        if parameters.get(f"extra_{name}"):
            raise InvalidRequestError(
                f"extra_{name} may be credentials, and would be in the history: pass them to the client of the workers "
                f"as default_{name}"
            )
    if "output_type" in parameters:
        raise InvalidRequestError("Pass output_type as output_type=, not in the parameters")
    return parameters


def _check_not_secret(parameters: Mapping[str, Any]) -> None:
    """Check that parameters have nothing that a token of a response may not have.

    Raises:
        InvalidRequestError: They have.
    """
    try:
        ResponsesDialect(plain_value({**parameters, **(parameters.get("extra_body") or {})})).carried_parameters()
    except InvalidRequestError as error:
        raise InvalidRequestError(
            "run_and_wait sends nothing that may be secret, or a URL with a key in it, as the history would have it: "
            f"{error}. Create the run in an activity of yours, and pass it to watch. If a response is to call "
            "functions as well, wait for it in that activity, with client.run(...): the server does not return such "
            "fields unchanged, so watch can't send them with the outputs"
        ) from None


async def _new_thread(options: WorkflowOptions) -> str:
    job = ThreadJob(heartbeat=options.get("heartbeat_timeout", 30.0))
    try:
        return await run_activity(names.CREATE_THREAD, job, str, CREATE_RETRIES, "new thread")
    except ActivityError as error:
        raise APIConnectionError(f"The thread could not be created: {error.cause}", sent=True) from error


async def _created(request: dict[str, Any], options: WorkflowOptions) -> RunReport:
    heartbeat = options.get("heartbeat_timeout", 30.0)
    job = CreateJob(request=request, toolset=options.get("tools", ""), label=options.get("label"), heartbeat=heartbeat)
    is_found_again = "key" in request or options.get("on_lost_submit") == "resend"
    creating = asyncio.create_task(_create(job, CREATE_RETRIES if is_found_again else ONCE))
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        report = await result_in_time(creating) if options.get("on_exit") == "cancel" else None
        if report is not None and report.token is not None:
            await WorkflowWatch(report.token, options).cancel_run()
        creating.cancel()
        raise


async def _create(job: CreateJob, retry_policy: RetryPolicy) -> RunReport:
    summary = f"create a run of {job.request.get('assistant_id') or job.request.get('model')}"
    try:
        return await run_activity(names.CREATE, job, RunReport, retry_policy, summary)
    except ActivityError as error:
        raise APIConnectionError(
            f"The run could not be created, or its create was lost: {error.cause}", sent=True
        ) from error
