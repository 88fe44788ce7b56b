"""The client of an outcome in a workflow: it fetches messages by an activity, since a workflow sends no requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from temporalio import workflow
from temporalio.exceptions import ActivityError

from asyncruns.errors import APIError, InvalidRequestError
from asyncruns.lifecycle import RunRef
from asyncruns.temporal.messages import FETCH_MESSAGES
from asyncruns.temporal.running import our_errors
from asyncruns.watch.outcome_clients import LeftBehind
from asyncruns.wire import Message, ResponseMessage
from asyncruns.wire.codec import convert
from asyncruns.wire.names import THREAD_RUN

if TYPE_CHECKING:
    from asyncruns.dialects.result_lines import BatchResult

FETCH_S: Final = 120.0
_NO_RESULTS: Final = (
    "A workflow sends no requests, so it can't read the results of a batch: in an activity of yours, which has a "
    "client, iterate over client.batches.results(batch), or over client.message_batches.results(batch)"
)


class WorkflowClient(LeftBehind):
    """Fetches messages within a workflow; elsewhere it is as the client of an outcome that was unpickled."""

    async def answer(self, ref: RunRef) -> Sequence[Message | ResponseMessage]:
        """Fetch the messages that a run wrote. Safe to cancel.

        Raises:
            AsyncRunsError: They could not be fetched.
        """
        if not workflow.in_workflow():
            return await super().answer(ref)
        kind: type[Any] = Message if ref.dialect == THREAD_RUN else ResponseMessage
        try:
            with our_errors():
                found: list[Any] = await workflow.execute_activity(
                    FETCH_MESSAGES,
                    ref,
                    result_type=list[Any],
                    start_to_close_timeout=timedelta(seconds=FETCH_S),
                    summary=f"messages of {ref}",
                )
        except ActivityError as error:
            raise APIError(f"The messages of {ref} could not be fetched: {error.cause}") from error
        return [convert(each, kind) for each in found]

    def results(self, batch: object) -> AsyncGenerator[BatchResult]:
        """Raise InvalidRequestError, which says how to fetch the results."""
        if workflow.in_workflow():
            raise InvalidRequestError(_NO_RESULTS)
        return super().results(batch)

    def requests(self, batch: object) -> AsyncGenerator[tuple[str, Any]]:
        """Raise InvalidRequestError, like `results`."""
        if workflow.in_workflow():
            raise InvalidRequestError(_NO_RESULTS)
        return super().requests(batch)
