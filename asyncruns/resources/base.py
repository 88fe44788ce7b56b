"""What the resources share: build a request, send it, decode the answer; and lists, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from asyncruns.abc import Transport
from asyncruns.dialects.errors import bad_answer, status_error
from asyncruns.errors import InvalidRequestError
from asyncruns.http import Request, join_path, query_of
from asyncruns.wire import Page, decode, encode
from asyncruns.wire.codec import present

T = TypeVar("T")

FILE_SEARCH_CONTENT: Final = "step_details.tool_calls[*].file_search.results[*].content"
"""The only documented value of `include`."""


class Resource:
    """Some operations of the API.

    Args:
        transport: Sends, with retries.
        host: The server's host, for messages about it.
    """

    def __init__(self, transport: Transport, host: str = "") -> None:
        self._transport = transport
        self._host = host

    async def _send(self, request: Request, type_: type[T]) -> T:
        response = await self._transport.send(request)
        if not 200 <= response.status < 300:
            raise status_error(request, response, host=self._host)
        try:
            return decode(response.body, type_)
        except msgspec.DecodeError as error:
            raise bad_answer(request, response, error) from error

    async def _post(self, type_: type[T], *segments: str, body: Mapping[str, Any] | None = None) -> T:
        data = None if body is None else json_body(body)
        return await self._send(Request("POST", join_path(*segments), body=data), type_)

    async def _delete(self, type_: type[T], *segments: str) -> T:
        return await self._send(Request("DELETE", join_path(*segments)), type_)

    def _list(self, item: type[T], *segments: str, **parameters: Any) -> PageCall[T]:
        path = join_path(*segments)
        page: type[Page[T]] = Page[item]  # type: ignore[valid-type]  # a page of what is asked for

        async def fetch(after: str | None) -> Page[T]:
            given = parameters if after is None else {**parameters, "after": after}
            return await self._send(Request("GET", path, query_of(given.items())), page)

        return PageCall(fetch, backwards=parameters.get("before") is not None)


def json_body(fields: Mapping[str, Any]) -> bytes:
    """Encode what was given of some fields.

    Raises:
        InvalidRequestError: There is no JSON for something in it.
    """
    try:
        return encode(present(fields))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The parameters can't be written as JSON: {error}") from error


class PageCall(Generic[T]):
    """A list: `await` it for one page, or iterate over it with `async for` for all items of all pages.

    Each iteration asks anew. Safe to cancel. A server that repeats a page, or promises more without saying where, ends
    the iteration: no item is given twice.
    """

    def __init__(self, fetch: Callable[[str | None], Any], *, backwards: bool = False) -> None:
        self._fetch = fetch
        self._backwards = backwards

    def __await__(self) -> Generator[Any, None, Page[T]]:
        page: Generator[Any, None, Page[T]] = self._fetch(None).__await__()
        return page

    async def __aiter__(self) -> AsyncIterator[T]:
        after: str | None = None
        seen: set[str | None] = set()
        while True:
            page: Page[T] = await self._fetch(after)
            is_news = False
            for item in page.data:
                item_id = getattr(item, "id", None)
                if item_id not in seen:
                    seen.add(item_id)
                    is_news = True
                    yield item
            # With `before`, "more" lies the other way, and there is no cursor that leads there.
            if not page.has_more or not is_news or self._backwards:
                return
            after = page.last_id or getattr(page.data[-1], "id", None)
            if not after:
                return
