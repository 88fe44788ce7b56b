"""The batches of one wire: found by their ids, and listed newest first, without walking through all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from asyncruns.testing.emulator.batch import EmulatedBatch
from asyncruns.testing.emulator.refusals import RefusedError
from asyncruns.testing.emulator.timeline import reached


class BatchList:
    """Keeps batches in the order of their creation.

    Args:
        not_found: Makes the refusal of an id.
    """

    def __init__(self, not_found: Callable[[str], RefusedError]) -> None:
        self.by_id: dict[str, EmulatedBatch] = {}
        self._in_order: list[EmulatedBatch] = []
        self._not_found = not_found

    def __len__(self) -> int:
        return len(self._in_order)

    def add(self, batch: EmulatedBatch) -> None:
        """Keep a new batch, whose `number` is the length so far."""
        self.by_id[batch.id] = batch
        self._in_order.append(batch)

    def delete(self, batch: EmulatedBatch) -> None:
        """Forget a batch; it keeps its place in the list, where it is passed over."""
        del self.by_id[batch.id]
        batch.is_deleted = True

    def find(self, batch_id: str, now: float) -> EmulatedBatch:
        """Return the batch itself.

        Raises:
            RefusedError: There is no such batch at that time.
        """
        batch = self.by_id.get(batch_id)
        if batch is None or not reached(now, batch.created):
            raise self._not_found(batch_id)
        return batch

    def page(
        self, now: float, limit: int, *, after: str | None = None, before: str | None = None
    ) -> tuple[list[EmulatedBatch], bool]:
        """Return a page, newest first, as of that time, and whether there are more in the direction of paging."""
        if before is not None:
            found = self._walk(now, range(self.find(before, now).number + 1, len(self)))
        else:
            newest = len(self) if after is None else self.find(after, now).number
            found = self._walk(now, range(newest - 1, -1, -1))
        shown = [batch.as_of(now) for _, batch in zip(range(limit), found, strict=False)]
        has_more = next(found, None) is not None
        return (shown[::-1] if before is not None else shown), has_more

    def _walk(self, now: float, places: range) -> Iterator[EmulatedBatch]:
        for place in places:
            batch = self._in_order[place]
            if not batch.is_deleted and reached(now, batch.created):
                yield batch
