"""Lists: `await` returns a page, `async for` yields all items, and no server can make the iteration endless."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from asyncruns import APIResponseValidationError, InternalServerError
from asyncruns.abc import Transport
from asyncruns.http import Request, Response
from asyncruns.resources.assistants import Assistants
from asyncruns.resources.base import Server
from asyncruns.resources.messages import Messages


def page(*ids: str, has_more: object = False, **more: object) -> dict[str, Any]:
    data = [{"id": each} for each in ids]
    return {"object": "list", "data": data, "has_more": has_more, **({"last_id": ids[-1]} if ids else {}), **more}


class Pages(Transport):
    """Answers with one page after the other, and then always with the last one."""

    def __init__(self, *pages: object) -> None:
        self.pages = list(pages)
        self.asked: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.asked.append(request)
        assert len(self.asked) < 20, "too many requests: is this loop endless?"
        found = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        return found if isinstance(found, Response) else Response(200, {}, msgspec.json.encode(found))

    async def aclose(self) -> None:
        pass


async def listed(transport: Transport, **parameters: Any) -> list[str]:
    return [item.id async for item in Assistants(Server(transport)).list(**parameters)]


async def test_awaiting_returns_one_page_with_its_cursors() -> None:
    transport = Pages(page("a", "b", has_more=True, first_id="a"))
    found = await Assistants(Server(transport)).list(limit=2)
    assert [item.id for item in found.data] == ["a", "b"]
    assert (found.first_id, found.last_id, found.has_more) == ("a", "b", True)
    assert [request.query for request in transport.asked] == [(("limit", "2"),)]


async def test_iterating_yields_all_items_of_all_pages() -> None:
    transport = Pages(page("a", "b", has_more=True), page("c", "d", has_more=True), page("e"))
    assert await listed(transport, limit=2, order="asc") == ["a", "b", "c", "d", "e"]
    assert [request.query for request in transport.asked] == [
        (("limit", "2"), ("order", "asc")),
        (("limit", "2"), ("order", "asc"), ("after", "b")),
        (("limit", "2"), ("order", "asc"), ("after", "d")),
    ]


async def test_iterating_starts_after_the_callers_cursor() -> None:
    transport = Pages(page("c", has_more=True), page("d"))
    assert await listed(transport, after="b") == ["c", "d"]
    assert [dict(request.query)["after"] for request in transport.asked] == ["b", "c"]


async def test_each_iteration_and_each_await_sends_new_requests() -> None:
    transport = Pages(page("a"), page("a", "b"), page("a"))
    call = Assistants(Server(transport)).list()
    assert [item.id async for item in call] == ["a"]
    assert [item.id async for item in call] == ["a", "b"]
    assert [item.id for item in (await call).data] == ["a"]


async def test_without_a_last_id_the_last_item_is_the_cursor() -> None:
    for missing in ({"last_id": None}, {"last_id": ""}, {"last_id": 5}):
        transport = Pages(page("a", "b", has_more=True, **missing), page("c"))
        assert await listed(transport) == ["a", "b", "c"]
        assert transport.asked[1].query == (("after", "b"),)


@pytest.mark.parametrize(
    ("pages", "items"),
    [
        pytest.param([page("a", "b", has_more=True)], ["a", "b"], id="always the same page"),
        pytest.param(
            [page("a", "b", has_more=True), page("b", "c", has_more=True), page("a", "c", has_more=True)],
            ["a", "b", "c"],
            id="pages that overlap",
        ),
        pytest.param([page("a", "a", "b", "a")], ["a", "b"], id="one item twice in a page"),
        pytest.param(
            [page("a", has_more=True, last_id="z"), page("a", has_more=True, last_id="y")], ["a"], id="cursor"
        ),
        pytest.param([page(has_more=True)], [], id="an empty page that promises more"),
        pytest.param([page("a", has_more=True), page(has_more=True, last_id="x")], ["a"], id="more, and then nothing"),
        pytest.param([page("a", has_more="yes")], ["a"], id="has_more is not a boolean"),
        pytest.param([page("a", has_more=None)], ["a"], id="has_more is null"),
        pytest.param([{"data": [{"id": "a"}]}], ["a"], id="nothing but data"),
        pytest.param([page("", has_more=True)], [""], id="an item without an id"),
        pytest.param([page("", "", has_more=True)], ["", ""], id="several items without an id"),
        pytest.param([page("a", "", has_more=True, last_id=None)], ["a", ""], id="no cursor"),
        pytest.param(
            [
                {"data": [{"id": "a"}], "last_id": "a"},
                {"data": [{"id": "b"}], "last_id": "a"},
                {"data": [], "last_id": "a"},
            ],
            ["a", "b"],
            id="a last_id that stays the same",
        ),
        pytest.param(
            [page("a", has_more=True), page("b", has_more=True), page("a", has_more=True), page("b", has_more=True)],
            ["a", "b"],
            id="pages in a circle",
        ),
        pytest.param(
            [page("", has_more=True, last_id="x"), page("", has_more=True, last_id="y"), page(last_id="z")],
            ["", ""],
            id="items without ids, and cursors",
        ),
        pytest.param([page("", has_more=True, last_id="x")], [""], id="always the same page, without ids"),
        pytest.param([{"data": [None, {"id": "a"}], "has_more": False}], ["a"], id="null among the items"),
    ],
)
async def test_a_list_of_an_odd_server_ends_and_has_no_item_twice(pages: list[object], items: list[str]) -> None:
    assert await listed(Pages(*pages)) == items


async def test_before_returns_one_page_since_no_cursor_leads_further_back() -> None:
    transport = Pages(page("a", "b", has_more=True))
    assert await listed(transport, before="c") == ["a", "b"]
    assert len(transport.asked) == 1


async def test_breaking_off_requests_no_further_page() -> None:
    transport = Pages(page("a", "b", has_more=True), page("c"))
    async for item in Assistants(Server(transport)).list():
        if item.id == "b":
            break
    assert len(transport.asked) == 1


async def test_an_error_on_a_later_page_comes_after_the_items_before_it() -> None:
    found: list[str] = []
    transport = Pages(page("a", has_more=True), Response(500, {}, b"{}"))
    with pytest.raises(InternalServerError):
        async for item in Assistants(Server(transport)).list():
            found.append(item.id)
    assert found == ["a"]


async def test_iteration_over_a_list_is_never_endless() -> None:
    class Endless(Transport):
        asked = 0

        async def send(self, request: Request) -> Response:
            self.asked += 1
            return Response(200, {}, msgspec.json.encode(page(f"a{self.asked}", has_more=True)))

        async def aclose(self) -> None:
            pass

    transport, found = Endless(), []
    with pytest.raises(APIResponseValidationError, match=r"more than 1000 pages.*after='a1000'"):
        async for item in Assistants(Server(transport)).list():
            found.append(item.id)
    assert (transport.asked, len(found)) == (1000, 1000)


async def test_lists_can_be_gathered() -> None:
    transport = Pages(page("a"))
    resource = Assistants(Server(transport))
    first, second = await asyncio.gather(resource.list(), resource.list())
    assert first.data == second.data


def test_a_repr_says_what_is_listed_and_shows_no_query() -> None:
    call = Messages(Server(Pages(page()))).list("thread_1", extra_query={"key": "sk-hidden"})
    assert repr(call) == "<PageCall GET /threads/thread_1/messages>"
