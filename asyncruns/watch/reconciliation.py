"""Compares the results of a batch with the requests that were asked for: each custom id is named.

It sends nothing; the results come from the caller, and only custom ids are kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from asyncruns.dialects.request_lines import body_of, custom_id_of
from asyncruns.errors import InvalidRequestError
from asyncruns.wire.plain import Plain

if TYPE_CHECKING:
    from asyncruns.dialects.result_lines import BatchResult  # late: it imports the many structs of responses

T = TypeVar("T")


class Reconciliation(Plain, frozen=True, kw_only=True):
    """What became of each request of a batch, by its custom id.

    The first five are in the order in which the ids were asked for; each of these ids is in exactly one of them.

    Attributes:
        answered: They have an answer.
        failed: They have an error.
        expired: They were not executed within the batch's time.
        cancelled: They were not executed because the batch was cancelled.
        missing: No result names them.
        unexpected: They have a result, and were not asked for, in the order of the results. "" stands for lines that
            could not be read.
    """

    answered: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether each id that was asked for is answered."""
        return not (self.failed or self.expired or self.cancelled or self.missing)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in self.__struct_fields__)
        return f"<Reconciliation {counts}>"


async def reconciled(results: AsyncIterable[BatchResult], ids: Iterable[Any] | AsyncIterable[Any]) -> Reconciliation:
    """Return what became of each request.

    If an id has several results, an answer counts more than an error.

    Args:
        results: The results.
        ids: The custom ids, or the requests in any form that `create(requests=...)` takes.

    Raises:
        InvalidRequestError: An item is neither.
    """
    async with aclosing(numbered(ids)) as each:
        asked = dict.fromkeys([custom_id async for custom_id, _ in each])
    kinds: dict[str, str] = {}
    async for result in results:
        if kinds.get(result.custom_id) != "answered":
            kinds[result.custom_id] = result.kind
    found: dict[str, list[str]] = {name: [] for name in Reconciliation.__struct_fields__}
    for custom_id in asked:
        found[kinds.pop(custom_id, "missing")].append(custom_id)
    found["unexpected"] = [*kinds]
    return Reconciliation(**{name: tuple(ids) for name, ids in found.items()})


async def unanswered_of(
    results: AsyncIterable[BatchResult], requests: Iterable[Any] | AsyncIterable[Any]
) -> AsyncGenerator[tuple[str, Any]]:
    """Yield the requests that have no answer, as pairs of custom id and body. A custom id is yielded once.

    Args:
        results: The results, which are read first.
        requests: The requests in any form that `create(requests=...)` takes.

    Raises:
        InvalidRequestError: An item is no request, or `requests` is no iterable; then no results are read.
    """
    async with closing_all(requests), aclosing(each_of(requests)) as each:
        check_is_several(requests)
        done = {result.custom_id async for result in results if result.kind == "answered"}
        number = 0
        async for request in each:
            number += 1
            custom_id = custom_id_of(request, number)
            if custom_id not in done:
                done.add(custom_id)
                yield custom_id, body_of(request, number)


async def numbered(ids: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[tuple[str, Any]]:
    """Yield each item with its custom id; an id is its own.

    Raises:
        InvalidRequestError: An item is neither an id nor a request.
    """
    number = 0
    async with aclosing(each_of(ids, "custom ids, or of the requests")) as each:
        async for item in each:
            number += 1
            if not isinstance(item, str | Mapping | list | tuple):
                raise InvalidRequestError(
                    f"Item {number} of the ids is of the type {type(item).__name__}; pass custom ids, which are "
                    "strings, or the requests as they were passed to create(requests=...)"
                )
            yield item if isinstance(item, str) else custom_id_of(item, number), item


@asynccontextmanager
async def closing_all(items: object) -> AsyncGenerator[None]:
    """Close a generator, async or not, at the end of the `async with`, whether it was read or not.

    Another object is its owner's, also if it has an `aclose`.
    """
    try:
        yield
    finally:
        if isinstance(items, Generator):
            items.close()
        elif isinstance(items, AsyncGenerator):
            await items.aclose()


async def each_of(items: Iterable[T] | AsyncIterable[T], what: str = "requests") -> AsyncGenerator[T]:
    """Yield the items of an iterable, async or not. A generator is closed at the end.

    What the iterable raises passes through, with a note that has the number of the item.

    Args:
        items: The iterable.
        what: What its items are, for messages.

    Raises:
        InvalidRequestError: It is no iterable of several things.
    """
    check_is_several(items, what)
    number = 0
    try:
        async with closing_all(items):
            if isinstance(items, AsyncIterable):
                async for item in items:
                    number += 1
                    yield item
            else:
                for item in items:
                    number += 1
                    yield item
    except Exception as error:
        error.add_note(f"Raised by the iterable of {what}, in place of its item {number + 1}.")
        raise


def check_is_several(items: object, what: str = "requests") -> None:
    """Check that something can be iterated over, and is not a single item.

    Raises:
        InvalidRequestError: It is not.
    """
    is_several = isinstance(items, Iterable) and not isinstance(items, str | bytes | Mapping)
    if not is_several and not isinstance(items, AsyncIterable):
        hint = _no_items(items, what)
        raise InvalidRequestError(f"Expected an iterable of {what}; got {type(items).__name__}{hint}")


def _no_items(items: object, what: str) -> str:
    """Return what to pass in place of something that has no such items; "" if that is not known."""
    if isinstance(items, Mapping):
        return ": pass its items() for pairs of custom id and body, or [body] for one request"
    if isinstance(items, str | bytes | PathLike):
        if what != "requests":
            return ": pass a list, also of a single id"
        return ": for the lines of a file, pass (json.loads(line) for line in file)"
    if callable(items):
        return f": call it, and pass what it returns: {getattr(items, '__name__', 'function')}()"
    return ""
