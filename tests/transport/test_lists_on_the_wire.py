"""Every list with servers that paginate oddly: it ends, and yields no item twice."""

from __future__ import annotations

from typing import Any

import pytest
from operations import LISTS, Operation
from recording_server import RecordingServer, reply

from asyncruns import APIStatusError, Client


def page(*ids: str, **more: object) -> bytes:
    data = [{"id": each, "status": "queued"} for each in ids]
    return reply(200, {"object": "list", "data": data, **more})


async def listed(operation: Operation, *pages: bytes, **parameters: Any) -> tuple[list[str], list[str]]:
    """Return the ids of the items, and the queries that were sent."""
    async with RecordingServer(*pages) as server, Client(server.base_url) as client:
        call: Any = operation.call(client, **parameters)
        ids = [item.id async for item in call]
        assert len(server.seen) < 6, "the list is endless"
        path = f"/v1{operation.path}"
        assert {target.partition("?")[0] for target in server.targets} == {path}
        return ids, [target.partition("?")[2] for target in server.targets]


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_has_more_without_a_last_id_continues_after_the_last_item(operation: Operation) -> None:
    for missing in ({}, {"last_id": None}, {"last_id": ""}, {"last_id": 5}):
        found = await listed(operation, page("a", "b", has_more=True, **missing), page("c", has_more=False))
        assert found == (["a", "b", "c"], ["", "after=b"])


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_a_list_ends_when_the_server_repeats_a_page(operation: Operation) -> None:
    again = page("a", "b", has_more=True, last_id="b")
    assert await listed(operation, again) == (["a", "b"], ["", "after=b"])
    assert await listed(operation, again, again, page("c")) == (["a", "b"], ["", "after=b"])
    overlapping = page("a", "b", has_more=True), page("b", "c", has_more=True), page("c", has_more=True)
    assert await listed(operation, *overlapping) == (["a", "b", "c"], ["", "after=b", "after=c"])


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_an_empty_page_that_promises_more_is_the_last(operation: Operation) -> None:
    assert await listed(operation, page(has_more=True)) == ([], [""])
    assert await listed(operation, page("a", has_more=True), page(has_more=True, last_id="z")) == (
        ["a"],
        ["", "after=a"],
    )


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_without_has_more_pages_are_fetched_until_one_brings_nothing_new(operation: Operation) -> None:
    for fields in ({}, {"has_more": None}, {"has_more": "yes"}):
        for last in (page(**fields), page("c", **fields)):
            pages = page("a", "b", **fields), page("c", last_id="c", **fields), last
            assert await listed(operation, *pages) == (["a", "b", "c"], ["", "after=b", "after=c"])
        assert await listed(operation, page("a", **fields)) == (["a"], ["", "after=a"])


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_a_server_that_refuses_the_cursor_after_a_page_without_has_more_has_no_more(operation: Operation) -> None:
    for status in (400, 404, 422):
        assert await listed(operation, page("a"), reply(status, {})) == (["a"], ["", "after=a"])
        with pytest.raises(APIStatusError):
            await listed(operation, page("a", has_more=True), reply(status, {}))


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_parameters_apply_to_every_page_and_before_ends_after_one(operation: Operation) -> None:
    pages = page("a", "b", has_more=True), page("c", has_more=False)
    ids, queries = await listed(operation, *pages, limit=2, order="asc", after="z")
    assert ids == ["a", "b", "c"]
    assert queries == ["limit=2&order=asc&after=z", "limit=2&order=asc&after=b"]
    assert await listed(operation, *pages, before="x") == (["a", "b"], ["before=x"])
