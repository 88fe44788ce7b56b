"""What the resources share: build a request, send it, decode the answer; and lists, page by page."""

from __future__ import annotations

import copy
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from typing import Any, ClassVar, Final, Generic, TypedDict, TypeVar, cast

import msgspec
from msgspec import Struct

from asyncruns.abc import Transport
from asyncruns.dialects.errors import bad_answer, status_error
from asyncruns.errors import InvalidRequestError
from asyncruns.http import Request, Response, join_path, query_of, request_id
from asyncruns.limits import Limits
from asyncruns.transport.auth import check_header
from asyncruns.wire import Page, decode, encode
from asyncruns.wire.codec import present

T = TypeVar("T")

FILE_SEARCH_CONTENT: Final = "step_details.tool_calls[*].file_search.results[*].content"
"""The only documented value of `include`."""


class CallOptions(TypedDict, total=False):
    """What any call takes beside its own parameters.

    Attributes:
        request_timeout: Seconds for each request of this call, instead of the client's; None is for ever.
        extra_headers: Sent with it, and instead of the client's of the same name.
        extra_query: Sent with it, beside the parameters' own.
        extra_body: Fields that are put into the JSON body, over the parameters' own.
    """

    request_timeout: float | None
    extra_headers: Mapping[str, str]
    extra_query: Mapping[str, Any]
    extra_body: Mapping[str, Any]


class Server(Struct, frozen=True):
    """What a resource needs to know.

    Attributes:
        transport: Sends, with retries.
        host: The server's host, for messages about it.
        limits: What is checked before sending; None checks nothing.
    """

    transport: Transport
    host: str = ""
    limits: Limits | None = None


class Resource:
    """Some operations of the API."""

    tools_limit: ClassVar[str] = "run_tools"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._raw = False

    @property
    def with_raw_response(self) -> RawCalls:
        """The same methods, giving a `RawResponse`: status, headers, bytes, and `parse()` for the object."""
        return RawCalls(self)

    async def _ask(
        self,
        type_: type[T],
        method: str,
        *segments: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        options: CallOptions | None = None,
    ) -> T:
        """Build the request, send it, and decode the answer."""
        server = self._server
        if server.limits is not None and (body or query):
            server.limits.check({**(query or {}), **(body or {})}, tools=getattr(server.limits, self.tools_limit))
        request = _request(method, join_path(*segments), query, body, options)
        response = await server.transport.send(request)
        if not 200 <= response.status < 300:
            raise status_error(request, response, host=server.host)
        if self._raw:
            return cast("T", RawResponse(request, response, type_))
        try:
            return decode(response.body, type_)
        except msgspec.DecodeError as error:
            raise bad_answer(request, response, error) from error

    def _list(self, item: type[T], *segments: str, query: Mapping[str, Any], options: CallOptions) -> PageCall[T]:
        page: type[Page[T]] = Page[item]  # type: ignore[valid-type]  # a page of what is asked for

        async def fetch(after: str | None) -> Page[T]:
            given = query if after is None else {**query, "after": after}
            return await self._ask(page, "GET", *segments, query=given, options=options)

        return PageCall(fetch, backwards=query.get("before") is not None)


def _request(
    method: str,
    path: str,
    query: Mapping[str, Any] | None,
    body: Mapping[str, Any] | None,
    options: CallOptions | None,
) -> Request:
    if not options:
        return Request(
            method, path, query_of(query.items()) if query else (), None if body is None else json_body(body)
        )
    extra_body = options.get("extra_body")
    if extra_body:
        body = {**(body or {}), **extra_body}
    headers = tuple(options.get("extra_headers", {}).items())
    for name, value in headers:
        check_header(name, value)
    timeout = None
    if "request_timeout" in options:
        timeout = math.inf if options["request_timeout"] is None else options["request_timeout"]
    return Request(
        method,
        path,
        query_of([*(query or {}).items(), *options.get("extra_query", {}).items()]),
        None if body is None else json_body(body),
        headers,
        timeout,
    )


class RawResponse(Generic[T]):
    """An answer as it came.

    Attributes:
        status: The HTTP status (also as `status_code`).
        headers: Finds names in lower case.
        content: The body, complete and decompressed.
    """

    def __init__(self, request: Request, response: Response, type_: type[T]) -> None:
        self._request = request
        self._response = response
        self._type = type_
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content: bytes = response.body

    @property
    def status_code(self) -> int:
        """The HTTP status, by the name that users of the official client know."""
        return self.status

    @property
    def request_id(self) -> str:
        """What names this exchange to the server's operators, or ""."""
        return request_id(self.headers)

    def parse(self) -> T:
        """Give the object.

        Raises:
            APIResponseValidationError: The body is not one.
        """
        try:
            return decode(self.content, self._type)
        except msgspec.DecodeError as error:
            raise bad_answer(self._request, self._response, error) from error

    def __repr__(self) -> str:
        return f"<RawResponse {self.status} of {self._request.method} {self._request.path}, {len(self.content)} bytes>"


class RawCalls:
    """The methods of a resource, each giving a `RawResponse` of what it else gives."""

    def __init__(self, resource: Resource) -> None:
        self._resource = copy.copy(resource)
        self._resource._raw = True

    def __getattr__(self, name: str) -> Callable[..., Awaitable[RawResponse[Any]]]:
        method: Callable[..., Awaitable[RawResponse[Any]]] = getattr(self._resource, name)
        return method


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
