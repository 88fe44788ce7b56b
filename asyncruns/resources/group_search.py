"""Searches the list of batches for those of some input files: what another process, or a lost create, has created.

It only reads. What the list does not show proves nothing unless the list was read to its end, or back to the time of
the files: the result says which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from msgspec import Struct

from asyncruns.errors import APIStatusError
from asyncruns.resources.adoption import shows_newest
from asyncruns.resources.pages import REFUSED_PAGE, PageCall, Paging
from asyncruns.wire import Batch
from asyncruns.wire.common import epoch_seconds

SEARCHED_BATCHES: Final = 5000  # a server may repeat its pages for ever
SEARCHED_AT_ONCE: Final = 100
NO_LIST_STATUSES: Final = frozenset({404, 405})
CLOCKS_MARGIN_S: Final = 60.0  # the times of the list may come from another machine than that of the file


class FileBatches(Struct, frozen=True):
    """The batches of some input files.

    Attributes:
        of_files: The batches of each file that has any, the newest first.
        is_all: Whether there are certainly no others. False if the server has no list, or one without end.
    """

    of_files: Mapping[str, list[Batch]]
    is_all: bool


async def batches_of_files(
    list_batches: Callable[..., PageCall[Batch]], file_ids: Collection[str], since: float
) -> FileBatches:
    """Return the batches of some input files, as the list shows them. Safe to cancel.

    Args:
        list_batches: `client.batches.list`.
        file_ids: The input files.
        since: When the first of the files was created, in seconds since the epoch, by the server's clock.

    Raises:
        APIError: The list could not be read.
    """
    paging: Paging[Batch] = Paging()
    found: dict[str, list[Batch]] = {}
    seen, is_all = 0, False
    while not is_all and seen < SEARCHED_BATCHES:
        try:
            page = await list_batches(limit=SEARCHED_AT_ONCE, after=paging.after)
        except APIStatusError as error:
            if paging.is_guess and isinstance(error, REFUSED_PAGE):
                is_all = True
                break
            if error.status in NO_LIST_STATUSES:
                break
            raise
        for batch in paging.take(page):
            seen += 1
            if batch.input_file_id in file_ids:
                found.setdefault(batch.input_file_id or "", []).append(batch)
        is_all = paging.after is None or _reaches_back(page.data, since - CLOCKS_MARGIN_S)
    for each in found.values():
        each.sort(key=lambda batch: epoch_seconds(batch.created_at) or 0.0, reverse=True)
    return FileBatches(found, is_all)


def _reaches_back(page: list[Batch], since: float) -> bool:
    """Return whether all batches after a page are certainly older than a time."""
    # The first items of a list that is sorted in another way, or not at all, may be old as well.
    return shows_newest(page) and (epoch_seconds(page[-1].created_at) or since) < since
