"""Each custom id that was asked for is named: answered, failed, expired, cancelled or missing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from asyncruns.dialects.result_lines import BatchResult, ResultKind
from asyncruns.errors import InvalidRequestError
from asyncruns.watch.reconciliation import Reconciliation, each_of, reconciled, unanswered_of


async def results(*kinds: tuple[str, ResultKind]) -> AsyncIterator[BatchResult]:
    for custom_id, kind in kinds:
        yield BatchResult(custom_id=custom_id, kind=kind)


async def test_each_id_is_in_one_list_in_the_order_asked() -> None:
    found = await reconciled(
        results(("f", "expired"), ("b", "failed"), ("x", "answered"), ("a", "answered"), ("c", "cancelled")),
        ["a", "b", "c", "d", "f", "a"],
    )
    assert found == Reconciliation(
        answered=("a",), failed=("b",), expired=("f",), cancelled=("c",), missing=("d",), unexpected=("x",)
    )
    assert not found.is_complete
    assert repr(found) == "<Reconciliation 1 answered, 1 failed, 1 expired, 1 cancelled, 1 missing, 1 unexpected>"


async def test_ids_may_be_given_as_the_requests() -> None:
    requests: list[Any] = [
        "a",
        ("b", {}),
        {"custom_id": "c", "body": {}},
        {"custom_id": "d", "params": {}},
        {"model": "m"},
    ]
    names = ("a", "b", "c", "d", "request-5")
    answered: list[tuple[str, ResultKind]] = [(name, "answered") for name in names]
    found = await reconciled(results(*answered), requests)
    assert found.answered == names
    assert found.is_complete


async def test_ids_may_come_from_an_async_generator_which_is_closed() -> None:
    closed = []

    async def ids() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            closed.append(True)

    assert (await reconciled(results(), ids())).missing == ("a",)
    assert closed


@pytest.mark.parametrize("kinds", [("failed", "answered"), ("answered", "failed")])
async def test_an_answer_counts_more_than_an_error(kinds: tuple[ResultKind, ResultKind]) -> None:
    found = await reconciled(results(("a", kinds[0]), ("a", kinds[1])), ["a"])
    assert found.answered == ("a",)


async def test_a_line_that_could_not_be_read_is_unexpected() -> None:
    found = await reconciled(results(("", "failed"), ("a", "answered")), ["a", "b"])
    assert (found.missing, found.unexpected) == (("b",), ("",))


@pytest.mark.parametrize("ids", ["abc", {"a": 1}, 3, [3], [None]])
async def test_what_is_no_request_is_refused(ids: Any) -> None:
    with pytest.raises(InvalidRequestError):
        await reconciled(results(), ids)


async def test_an_unanswered_id_comes_once() -> None:
    requests = [("a", {}), ("b", {"n": 1}), ("b", {"n": 2})]
    found = [request async for request in unanswered_of(results(("a", "answered"), ("b", "failed")), requests)]
    assert found == [("b", {"n": 1})]


@pytest.mark.parametrize("is_async", [True, False])
async def test_requests_are_closed_also_if_the_results_fail(is_async: bool) -> None:
    closed: list[bool] = []

    async def failing() -> AsyncIterator[BatchResult]:
        raise ValueError("no results")
        yield

    requests = some_async(closed) if is_async else some(closed)
    _ = next(requests) if isinstance(requests, Iterator) else await anext(requests)
    with pytest.raises(ValueError, match="no results"):
        [request async for request in unanswered_of(failing(), requests)]
    assert closed == [True]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_generator_that_is_left_early_is_closed(is_async: bool) -> None:
    closed: list[bool] = []
    async with aclosing(each_of(some_async(closed) if is_async else some(closed))) as each:
        assert await anext(each) == ("a", {})
    assert closed == [True]


def some(closed: list[bool]) -> Generator[Any]:
    try:
        yield ("a", {})
        yield ("b", {})
    finally:
        closed.append(True)


async def some_async(closed: list[bool]) -> AsyncIterator[Any]:
    with contextlib.closing(some(closed)) as found:
        for each in found:
            yield each
