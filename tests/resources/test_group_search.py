"""The list is searched for the batches of input files: as far as needed, and the answer says whether it is certain."""

from __future__ import annotations

from typing import Any

import pytest

from asyncruns import NotFoundError, PermissionDeniedError
from asyncruns.errors import APIStatusError
from asyncruns.resources.group_search import SEARCHED_BATCHES, FileBatches, batches_of_files
from asyncruns.resources.pages import PageCall
from asyncruns.wire import Batch, Page

SINCE = 1000.0


class List:
    """A list of some pages, after which it is over, or fails.

    Args:
        pages: The times at which the batches of each page were created; each is named by the page and its place.
        error: Raised after the last page.
        has_more: What each page says; None says nothing.
    """

    def __init__(self, *pages: list[float], error: APIStatusError | None = None, has_more: bool | None = None) -> None:
        self.pages, self.error, self.has_more = pages, error, has_more
        self.read = 0

    def __call__(self, *, limit: int, after: str | None) -> PageCall[Batch]:
        async def fetch(_: str | None) -> Page[Batch]:
            number = self.read
            self.read += 1
            if number >= len(self.pages):
                if self.error is not None:
                    raise self.error
                return Page(data=[], has_more=False)
            data = [batch(f"b{number}-{place}", time) for place, time in enumerate(self.pages[number])]
            return Page(data=data, has_more=self.has_more)

        assert limit == 100
        assert (after is None) is (self.read == 0)
        return PageCall(fetch)

    async def search(self) -> FileBatches:
        return await batches_of_files(self, {"file-1", "file-2"}, SINCE)


def batch(id_: str, time: Any) -> Batch:
    return Batch(id=id_, status="completed", created_at=time, input_file_id=f"file-{id_[-1]}")


def refused(status: int) -> APIStatusError:
    kind = NotFoundError if status == 404 else PermissionDeniedError if status == 403 else APIStatusError
    return kind("no", status=status)


async def test_batches_of_other_files_are_left_out_and_the_newest_come_first() -> None:
    found = await List([1001.0, 1005.0, 1003.0], [1002.0, 1004.0, 1006.0]).search()
    assert found.is_all
    assert {file: [each.id for each in of_file] for file, of_file in found.of_files.items()} == {
        "file-1": ["b0-1", "b1-1"],
        "file-2": ["b1-2", "b0-2"],
    }


async def test_the_list_is_read_back_to_a_minute_before_the_files() -> None:
    pages = List([1100.0, 1050.0], [1040.0, 950.0], [945.0, 939.0], [930.0, 920.0])
    assert (await pages.search()).is_all
    assert pages.read == 3


async def test_a_list_that_is_not_newest_first_is_read_to_its_end() -> None:
    pages = List([900.0, 1050.0, 900.0], [900.0, 900.0], [1050.0, 900.0, 1200.0])
    found = await pages.search()
    assert found.is_all
    assert pages.read == 4
    assert found.of_files["file-2"][0].id == "b2-2"


async def test_a_list_without_end_proves_nothing() -> None:
    pages = List(*[[2000.0 - page, 1999.5 - page] * 50 for page in range(500)], has_more=True)
    found = await pages.search()
    assert not found.is_all
    assert pages.read == SEARCHED_BATCHES / 100


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_a_list_proves_nothing(status: int) -> None:
    assert await List(error=refused(status)).search() == FileBatches({}, is_all=False)


async def test_a_refused_page_after_the_last_one_is_the_end() -> None:
    found = await List([2000.0, 1999.0], error=refused(404)).search()
    assert found.is_all
    assert list(found.of_files) == ["file-1"]
    assert not (await List([2000.0, 1999.0], error=refused(404), has_more=True).search()).is_all


async def test_another_refusal_is_raised() -> None:
    with pytest.raises(PermissionDeniedError):
        await List([2000.0, 1999.0], error=refused(403)).search()
