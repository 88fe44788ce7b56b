"""How the watch of a group of batches finished: the outcomes of its parts, and their results as one.

It sends nothing but what the outcomes of the parts send.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from asyncruns.errors import InvalidRequestError, NotFoundError, RunError, with_sentence
from asyncruns.resources.batch_group import BatchGroup, BatchPart
from asyncruns.watch.outcome import AnyOutcome, Cancelled, Expired, Failed, GaveUp
from asyncruns.watch.outcome_clients import check_has_client, reads_results
from asyncruns.watch.reconciliation import Reconciliation, check_is_several, closing_all, reconciled, unanswered_of
from asyncruns.wire import Batch
from asyncruns.wire.plain import Plain
from asyncruns.wire.shown_text import on_one_line

if TYPE_CHECKING:
    from asyncruns.dialects.result_lines import BatchResult

T = TypeVar("T")

_WORST_FIRST: Final = ((GaveUp, "gave_up"), (Failed, "failed"), (Expired, "expired"), (Cancelled, "cancelled"))


class GroupOutcome(Plain, frozen=True, kw_only=True, eq=False):
    """How the watch of a `BatchGroup` finished.

    Attributes:
        group: The group, with all batches that were created.
        outcomes: The outcome of each part, in their order. That of a part that was not created is a `GaveUp` with
            `Reason.NOT_CREATED`, or `Reason.TIMEOUT` if there was no time left; its ref has no ids.
    """

    group: BatchGroup
    outcomes: tuple[AnyOutcome[Batch], ...]

    _kind: ClassVar[str] = "outcome"

    @property
    def status(self) -> str:
        """The worst that happened to a part.

        "gave_up" if a part was not created, or its watch gave up: its batch may go on. Otherwise "failed", "expired" or
        "cancelled", in this order, if any part was; otherwise "completed". As with a single batch, requests that failed
        within a batch do not count: see `reconcile`.
        """
        for kind, status in _WORST_FIRST:
            if any(isinstance(outcome, kind) for outcome in self.outcomes):
                return status
        return "completed"

    def unwrap(self) -> list[Batch]:
        """Return the batches if all are completed, otherwise raise.

        Raises:
            RunError: One is not. It is the error of the worst part (see `status`), whose outcome it holds.
        """
        for kind, _ in _WORST_FIRST:
            for number, outcome in enumerate(self.outcomes, 1):
                if isinstance(outcome, kind):
                    _raise_of_part(outcome, f"part {number} of {len(self.outcomes)} of the group")
        return [outcome.unwrap() for outcome in self.outcomes]

    async def results(self) -> AsyncGenerator[BatchResult]:
        """Iterate over the results of all parts, one part after the other; see `Outcome.results`.

        A part that was not created has none. A part whose results can't be read yet, or any more, does not keep the
        others from being read: its error is raised at the end.

        Raises:
            InvalidRequestError: A batch has not ended, or the outcome was unpickled.
            APIError: The results could not be fetched.
        """
        async with aclosing(self._of_parts(_results_of)) as results:
            async for result in results:
                yield result

    async def reconcile(self, ids: Iterable[Any] | AsyncIterable[Any]) -> Reconciliation:
        """Return what became of each request of all parts, by its custom id; see `Outcome.reconcile`.

        Those of a part that was not created, has not ended, or has no results any more are missing. Safe to cancel.

        Raises:
            InvalidRequestError, APIError: As for `Outcome.reconcile`.
        """
        async with aclosing(self._of_parts(_results_of, raises=False)) as results:
            return await reconciled(results, ids)

    async def unanswered(
        self, requests: Iterable[Any] | AsyncIterable[Any] | None = None
    ) -> AsyncGenerator[tuple[str, Any]]:
        """Iterate over the requests that have no answer, as pairs of custom id and body; see `Outcome.unanswered`.

        Those of a part that was not created are among them, unless it may have been (`BatchPart.is_unsure`): its
        requests may be running, so they are left out, and an error is raised after those of the other parts. Without
        `requests`, the input file of a part is read only if the part has fewer answers than requests; if that can't be
        done, the error is raised after those of the other parts.

        Raises:
            InvalidRequestError: As for `Outcome.unanswered`; also if a part has not ended, or may be running.
            APIError: As for `Outcome.unanswered`.
        """
        found = self._of_parts(_unanswered_in) if requests is None else self._unanswered_among(requests)
        async with aclosing(found) as each:
            async for request in each:
                yield request

    async def _unanswered_among(self, requests: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[tuple[str, Any]]:
        async with closing_all(requests), aclosing(unanswered_of(self.results(), requests)) as found:
            check_is_several(requests)
            unsure = [(part, outcome) for part, outcome in self._each_part() if part.is_unsure]
            running = {custom_id for each in unsure async for custom_id, _ in _requests_of(*each)}
            async for custom_id, body in found:
                if custom_id not in running:
                    yield custom_id, body
        if unsure:
            raise _may_run(unsure[0][0])

    async def _of_parts(
        self, read: Callable[[BatchPart, AnyOutcome[Batch]], AsyncGenerator[T]], *, raises: bool = True
    ) -> AsyncGenerator[T]:
        """Yield what is read of each part.

        Raises:
            InvalidRequestError, NotFoundError: One part can't be read; raised at the end, if at all.
        """
        failed: InvalidRequestError | NotFoundError | None = None
        for part, outcome in self._each_part():
            check_has_client(outcome._client)
            try:
                async with aclosing(read(part, outcome)) as found:
                    async for each in found:
                        yield each
            except (InvalidRequestError, NotFoundError) as error:
                failed = failed or error
        if failed is not None and raises:
            raise failed

    def _each_part(self) -> Iterable[tuple[BatchPart, AnyOutcome[Batch]]]:
        return zip(self.group.parts, self.outcomes, strict=True)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "status": self.status}

    def __repr__(self) -> str:
        return f"<GroupOutcome {self.status}, {len(self.outcomes)} parts, {self.group.requests} requests>"


async def _results_of(part: BatchPart, outcome: AnyOutcome[Batch]) -> AsyncGenerator[BatchResult]:
    if outcome.ref.ids:
        async with aclosing(outcome.results()) as results:
            async for result in results:
                yield result


async def _unanswered_in(part: BatchPart, outcome: AnyOutcome[Batch]) -> AsyncGenerator[tuple[str, Any]]:
    if part.is_unsure:
        raise _may_run(part)
    async with aclosing(_results_of(part, outcome)) as results:
        done = {result.custom_id async for result in results if result.kind == "answered"}
    if len(done) >= part.requests:
        return  # the file may be deleted by now
    async with aclosing(_requests_of(part, outcome)) as requests:
        async for custom_id, body in requests:
            if custom_id not in done:
                yield custom_id, body


def _requests_of(part: BatchPart, outcome: AnyOutcome[Batch]) -> AsyncGenerator[tuple[str, Any]]:
    batch = Batch(id="", status="", input_file_id=part.input_file_id)
    return reads_results(outcome._client).requests(batch)


def _may_run(part: BatchPart) -> InvalidRequestError:
    return InvalidRequestError(
        f"It is not known whether the part with the file {on_one_line(part.input_file_id)} was created, so its "
        "requests may be running, and are left out: look for its batch at the server before you create them again"
    )


def _raise_of_part(outcome: AnyOutcome[Batch], which: str) -> None:
    try:
        outcome.unwrap()
    except RunError as error:
        raise type(error)(with_sentence(str(error), f"This is {which}."), outcome) from error.__cause__
