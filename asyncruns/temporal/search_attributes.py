"""What the list of workflows in Temporal's own UI can be searched for: whether a workflow waits for runs or for people.

A workflow must not set an attribute that the server does not know, or it hangs; so only those that were started with
the attribute set it.
"""

from __future__ import annotations

from typing import Final

from temporalio import workflow
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client as TemporalClient
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

WAITS_FOR: Final = SearchAttributeKey.for_keyword("AsyncRunsWaitsFor")
"""Says what a workflow waits for: "runs" or, while a call waits for a person, "people"."""
RUNS: Final = "runs"
PEOPLE: Final = "people"
WAITS_FOR_RUNS: Final = TypedSearchAttributes([SearchAttributePair(WAITS_FOR, RUNS)])
"""What a workflow is started with: `start_workflow(..., search_attributes=WAITS_FOR_RUNS)`."""


async def add_search_attributes(temporal: TemporalClient) -> None:
    """Make the attribute `WAITS_FOR` known to the server, in the namespace of the client; once suffices.

    May be repeated. Safe to cancel: it may be known then.

    Raises:
        temporalio.service.RPCError: Temporal cannot be reached, or does not allow it, as in Temporal Cloud: there it is
            added on the page of the namespace, as a Keyword.
    """
    await temporal.operator_service.add_search_attributes(
        AddSearchAttributesRequest(
            namespace=temporal.namespace,
            search_attributes={WAITS_FOR.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD},
        )
    )


def note_waiting(for_people: bool) -> None:
    """Set what the current workflow waits for, if it was started with the attribute."""
    before = workflow.info().typed_search_attributes.get(WAITS_FOR)
    now = PEOPLE if for_people else RUNS
    if before is not None and before != now:
        workflow.upsert_search_attributes([WAITS_FOR.value_set(now)])
