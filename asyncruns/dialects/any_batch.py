"""What the two wires of batches share: a batch is polled and cancelled by its own id, and never waits for the caller.

Nothing here does I/O. The constants are for batches with windows of a day; the sources are in the modules of the two
dialects.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import unquote

import msgspec

from asyncruns.abc import CollectivePolls, Dialect
from asyncruns.dialects.errors import (
    bad_answer,
    check_is_of,
    error_object,
    has_no_cancel,
    redacted,
    refusal_kind,
    status_error,
)
from asyncruns.dialects.given import given_run
from asyncruns.dialects.list_polls import ListedRuns, ListPolls
from asyncruns.errors import InvalidRequestError
from asyncruns.http import Request, Response, join_path, require_id, wait_hint
from asyncruns.lifecycle.phases import Phase
from asyncruns.lifecycle.run_shapes import no_run
from asyncruns.lifecycle.values import Answers, Refusal, RefusalKind, RunRef, Snapshot
from asyncruns.wire import Batch, MessageBatch, Page, decode

B = TypeVar("B", Batch, MessageBatch)

_WITHOUT_EXPIRY_S: Final = 90_000.0  # the usual window of 24 h, and an hour in which the server notices its end
_AFTER_EXPIRY_S: Final = 3600.0  # after the expiry, results that are there are still being written
_MAX_OUTAGE_S: Final = 3600.0  # a server that was away for an hour loses no batch
_CANCEL_BOUND_S: Final = 900.0  # OpenAI documents that `cancelling` may last for 10 minutes
_LONGEST_PAUSE_S: Final = 300.0
_PAGE_SIZE: Final = "100"  # the most that OpenAI's wire allows; Anthropic's allows 1,000, which would stall the loop

_OVER: Final = (
    r"can(?:not|'t| not) (?:be )?cancel|not cancell?able|no longer (?:be )?cancel"
    r"|already (?:been )?(?:completed|cancell?ed|finished|ended|failed|expired|processed)|has (?:already )?ended"
)
_STATUS_IN_TEXT: Final = r"\bstat(?:us|e)\W+(?:(?:is|of)\W+)?(\w+)"


class _BatchPages(ListPolls[B]):
    """The open batches of the list that a server has of all batches."""

    def __init__(self, dialect: AnyBatchDialect[B]) -> None:
        super().__init__()
        self._dialect: AnyBatchDialect[B] = dialect

    def request(self, cursor: str) -> Request:
        return self._dialect._list_request(cursor)

    def page(self, request: Request, response: Response) -> ListedRuns:
        return self._dialect._listed(request, response)


class AnyBatchDialect(Dialect[B]):
    """The base class of the dialects of batches. A ref has one id, that of the batch."""

    without_expiry = _WITHOUT_EXPIRY_S
    after_expiry = _AFTER_EXPIRY_S
    max_outage = _MAX_OUTAGE_S
    cancel_bound = _CANCEL_BOUND_S
    longest_pause = _LONGEST_PAUSE_S

    _type: ClassVar[Any]
    _path: ClassVar[tuple[str, ...]]
    """The segments of the path below which batches are."""
    _phases: ClassVar[Mapping[str, Phase]]
    _cursor: ClassVar[str]
    """The parameter of the list for the id after which a page begins."""

    def given(self, run: object) -> Any:
        return given_run(run)

    def identify(self, run: object, ids: Mapping[str, str]) -> RunRef:
        given = given_run(run)
        if ids:
            raise InvalidRequestError("A batch is identified by its own id: pass the batch, its batch_id, or a RunRef")
        if isinstance(given, RunRef):
            if given.dialect != self.name or len(given.ids) != 1:
                raise InvalidRequestError(
                    f"{given!r} does not name a batch of this API, which is RunRef({self.name!r}, (batch_id,))"
                )
            return self.ref(*given.ids)
        if isinstance(given, self._type):
            return self.ref(given.id)
        raise no_run(given, "Expected a batch or a RunRef")

    def ref(self, batch_id: str) -> RunRef:
        """Return the ref of a batch by its id.

        Raises:
            InvalidRequestError: It cannot be an id.
        """
        batch_id = require_id("batch_id", batch_id)
        join_path(batch_id)
        return RunRef(self.name, (batch_id,))

    @abstractmethod
    def _snapshot(self, batch: B, headers: Mapping[str, str]) -> Snapshot[B]:
        """Return the snapshot of a batch that came with these headers."""

    def snapshot(self, resource: B) -> Snapshot[B]:
        return self._snapshot(resource, {})

    def poll(self, ref: RunRef) -> Request:
        return Request("GET", join_path(*self._path, *ref.ids))

    def read(self, request: Request, response: Response) -> Snapshot[B]:
        try:
            batch: B = decode(response.body, self._type)
        except msgspec.DecodeError as error:
            raise bad_answer(request, response, error) from error
        requested = unquote(request.path.split("/")[len(self._path) + 1])
        check_is_of(request, response, batch_id=(requested, batch.id))
        return redacted(self._snapshot(batch, response.headers), response.redact)

    def submit(
        self, ref: RunRef, snapshot: Snapshot[B], answers: Answers, *, keep_tool_choice: bool = False
    ) -> Request:
        raise InvalidRequestError(f"The batch {ref} takes no outputs: a batch never waits for the caller")

    def cancel(self, ref: RunRef) -> Request:
        return Request("POST", join_path(*self._path, *ref.ids, "cancel"))

    def collective(self) -> CollectivePolls[B] | None:
        return _BatchPages(self)

    def _list_request(self, cursor: str) -> Request:
        query = (("limit", _PAGE_SIZE), (self._cursor, cursor)) if cursor else (("limit", _PAGE_SIZE),)
        return Request("GET", join_path(*self._path), query)

    def _listed(self, request: Request, response: Response) -> ListedRuns:
        try:
            page: Page[B] = decode(response.body, Page[self._type])  # type: ignore[name-defined]  # of run time
        except msgspec.DecodeError as error:
            raise bad_answer(request, response, error) from error
        shown = [redacted(self._snapshot(batch, response.headers), response.redact) for batch in page.data]
        last = (page.last_id or page.data[-1].id) if page.data and page.has_more is not False else None
        return ListedRuns([(RunRef(self.name, (each.resource.id,)), each) for each in shown], last)

    def refusal(self, request: Request, response: Response) -> Refusal:
        error = error_object(response)
        kind, phase = refusal_kind(response, error), None
        if has_no_cancel(request, response, error):
            kind = RefusalKind.UNSUPPORTED
        elif request.path.endswith("/cancel") and kind is not RefusalKind.THROTTLED:
            said = f"{error.code} {error.message}"
            # At OGX a 409 is the answer to the cancel of a batch that has ended; others send 400 and a text.
            if response.status == 409 or (response.status in (400, 422) and re.search(_OVER, said, re.IGNORECASE)):
                kind = RefusalKind.ALREADY_OVER
                named = re.search(_STATUS_IN_TEXT, said, re.IGNORECASE)
                phase = self._phases.get(named[1]) if named else None
        return Refusal(
            kind=kind, cause=status_error(request, response), retry_after=wait_hint(response.headers), phase=phase
        )
