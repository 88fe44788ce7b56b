"""For web handlers: the calls of a workflow that wait for people, and their answers."""

from __future__ import annotations

from typing import Any

from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowUpdateFailedError

from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.temporal.messages import ANSWER, OPEN_CALLS, OpenCall, PersonsAnswer
from asyncruns.watch.call_answerer import texts_of


async def open_calls(temporal: TemporalClient, workflow_id: str) -> list[OpenCall]:
    """Return the calls of a workflow that wait for people. Needs a worker, which may have to read the history first.

    Args:
        temporal: A client of Temporal with an `AsyncRunsPlugin`.
        workflow_id: The workflow.

    Raises:
        temporalio.service.RPCError: There is no such workflow, or Temporal cannot be reached.
        temporalio.client.WorkflowQueryFailedError: Its worker has no `AsyncRunsPlugin`.
    """
    handle = temporal.get_workflow_handle(workflow_id)
    found: list[OpenCall] = []
    while True:  # in pieces, as a payload may not hold all
        number = found[-1].number + 1 if found else 0
        piece: list[OpenCall] = await handle.query(OPEN_CALLS, number, result_type=list[OpenCall])
        if not piece:
            return found
        found += piece


async def answer_call(
    temporal: TemporalClient, workflow_id: str, call: OpenCall | str, output: Any, *, run: object = None
) -> None:
    """Answer a call that waits for a person; returns once the answer is in the history of the workflow.

    The update is the workflow's, so a web handler needs nothing else. Safe to cancel: the answer may then be taken.

    Args:
        temporal: A client of Temporal with an `AsyncRunsPlugin`.
        workflow_id: The workflow that watches the run.
        call: What `open_calls` returned, or the id of the call.
        output: The output: a text, or a value that becomes JSON; of an approval True or False.
        run: The run, if several runs of the workflow may have calls with this id.

    Raises:
        InvalidRequestError: No such call waits, or it was answered already; or the output has no JSON, is too large, or
            is no approval although the call waits for one.
        temporalio.service.RPCError: There is no such workflow, or it has ended, or Temporal cannot be reached.
    """
    call_id = call if isinstance(call, str) else call.call.id
    ids: tuple[str, ...] = () if isinstance(call, str) else call.ref.ids
    if run is not None:
        ids = RunRef.of(run).ids
    (_, text), *_ = texts_of({call_id: output})
    answer = PersonsAnswer(call_id=call_id, output=text, run=ids)
    try:
        await temporal.get_workflow_handle(workflow_id).execute_update(ANSWER, answer)
    except WorkflowUpdateFailedError as error:
        raise InvalidRequestError(f"The workflow {workflow_id} takes no such answer: {error.cause}") from error
